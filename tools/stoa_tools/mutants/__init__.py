"""`stoa mutants`: do the tests notice when the code is wrong? See `command.py`."""
