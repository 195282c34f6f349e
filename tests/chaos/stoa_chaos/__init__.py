"""`stoa chaos`: shoppers buy while the stack is broken, by a schedule that a seed gives; then the audit.

Read `faults.py` for what is broken (a table: a new service adds its name), `errands.py` for what shoppers do,
`schedule.py` for when, and `report.py` for what is found out.
"""
