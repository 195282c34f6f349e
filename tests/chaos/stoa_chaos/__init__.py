"""`stoa chaos`: shoppers buy while the stack is broken, by a schedule that a seed gives; then the audit.

Read `faults.py` for what is broken, `fault_injection.py` for how, `schedule.py` for when, `journeys.py` for
what shoppers do meanwhile, and `report.py` for what is found out.
"""
