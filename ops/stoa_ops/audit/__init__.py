"""The audit: do the books of all services and of the payment gateway tell the same story?

`books` has each service read its own and reads what belongs to none, `invariants` says what must hold of them
together, `event_log` follows events from outboxes to inboxes, `command` waits for quiet.
"""
