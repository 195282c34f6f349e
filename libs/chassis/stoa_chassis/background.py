"""Work beside the server: started again when it fails, tried again while something it needs is down."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from stoa_chassis.context import bound
from stoa_chassis.ids import new_id
from stoa_chassis.outages import is_outage
from stoa_chassis.telemetry import get_logger

_log = get_logger(__name__)

Work = Callable[[], Awaitable[None]]

_GRACE_SECONDS = 10.0  # to end after it was cancelled
_RESTART_PAUSES = (0.5, 30.0)  # seconds: the first and the longest pause before work starts again
_OUTAGE_PAUSE = 1.0  # seconds between tries while something that is needed is down


async def supervised(name: str, work: Work) -> None:
    """Start work again whenever it fails, less and less often; after an outage soon, however long it was."""
    shortest, longest = _RESTART_PAUSES
    pause = shortest
    while True:
        began = time.monotonic()
        try:
            await work()
        except Exception as error:
            if is_outage(error):
                pause = shortest
                _log.warning("background work waits for what is down", work=name, error=repr(error))
                await asyncio.sleep(_OUTAGE_PAUSE)
                continue
            if time.monotonic() - began > longest:
                pause = shortest
            _log.error("background work failed", work=name, restart_in=pause, exc_info=error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
        else:
            _log.info("background work is done", work=name)
            return


def periodic(seconds: float, work: Work) -> Work:
    """Return what does `work` now and then again and again, `seconds` after its end, until it fails."""

    async def repeat() -> None:
        while True:
            with bound(str(new_id())):
                await work()
            await asyncio.sleep(seconds)

    return repeat


async def cancelled(tasks: Iterable["asyncio.Future[Any]"]) -> None:
    """Cancel tasks and wait, though not for ever, until they have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
        for task in late:
            _log.warning("background work does not end, leaving it", work=str(task))
