"""The audit: do the books of all services and of the payment gateway tell the same story?

`books` reads every store, `invariants` says what must hold of what was read, `command` waits for quiet.
"""
