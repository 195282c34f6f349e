"""The local stack: real servers as native processes, listed in one table and watched by one supervisor."""
