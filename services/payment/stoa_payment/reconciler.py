"""Looks after what the gateway has not settled, for as long as the service runs."""

import asyncio
from contextlib import suppress

from stoa_chassis.errors import Unavailable
from stoa_payment.service import Payments

# What another instance left behind when it died is found within this time, in seconds.
_SWEEP = 15.0
_PAUSE_WITHOUT_DATABASE = 1.0


async def reconcile(payments: Payments) -> None:
    """Look after what is due, then sleep until the next is, or until something is left for later."""
    while True:
        payments.postponed.clear()
        try:
            due = await payments.look_after_due()
            pause = _SWEEP if due is None else min(_SWEEP, due.total_seconds())
        except Unavailable:
            pause = _PAUSE_WITHOUT_DATABASE
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await payments.postponed.wait()
