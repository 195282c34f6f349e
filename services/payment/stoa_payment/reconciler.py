"""Looks after what the gateway has not settled, for as long as the service runs."""

import asyncio
from contextlib import suppress

from stoa_chassis.errors import Unavailable
from stoa_payment.service import Payments

# What another instance left behind when it died is found within this time, in seconds.
_SWEEP = 15.0
_PAUSE_WITHOUT_DATABASE = 1.0
# So many are looked after at once; a gateway that hangs over some does not keep the others waiting.
_CONCURRENCY = 20


async def reconcile(payments: Payments) -> None:
    """Look after what is due, then sleep until the next is, or until something is left for later."""
    running: set[asyncio.Task[None]] = set()

    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        payments.postponed.set()

    async with asyncio.TaskGroup() as group:
        while True:
            payments.postponed.clear()
            pause = _SWEEP
            try:
                if free := _CONCURRENCY - len(running):
                    for due in await payments.take_due(free):
                        task = group.create_task(payments.look_after(due))
                        running.add(task)
                        task.add_done_callback(ended)
                    if (next_due := await payments.next_due()) is not None:
                        pause = min(_SWEEP, next_due.total_seconds())
            except Unavailable:
                pause = _PAUSE_WITHOUT_DATABASE
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await payments.postponed.wait()
