"""The local stack: real servers as native processes, and the stoa command."""
