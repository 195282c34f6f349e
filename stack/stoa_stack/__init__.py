"""The local stack: real servers as native processes, declared in one table and watched by one supervisor."""
