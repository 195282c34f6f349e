"""A payment gateway that behaves like a real one, as a process of its own.

Charges and refunds with idempotency keys, declines, latency, answers that come after the caller gave up, and
signed webhooks. Its ledger is durable: what it answered is still so after kill -9.
"""
