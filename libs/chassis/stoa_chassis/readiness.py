"""Whether a process should get calls: only while all that it needs to answer them is there."""

import asyncio
from collections.abc import Awaitable, Callable

from stoa_chassis.telemetry import get_logger

_log = get_logger(__name__)

Check = Callable[[], Awaitable[object]]

_EVERY_SECONDS = 5.0  # between two looks; also how long a check may take
_AGAIN_SECONDS = 1.0  # until the next look while something fails
_STARTING_SECONDS = 0.1  # until the next look before all was there for the first time


class Readiness:
    """Asks checks again and again, and says when the answer of all has changed.

    A check that fails once is asked again before it counts: it may have waited behind too many calls.
    """

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        """Be ready only while `check()` neither raises nor returns False."""
        self._checks[name] = check

    async def watch(self, set_ready: Callable[[bool], Awaitable[None]]) -> None:
        """Call `set_ready` at first and then whenever it changes, until cancelled."""
        ready: bool | None = None
        failing = started = False
        while True:
            names = list(self._checks)
            found = await asyncio.gather(*(_failure(self._checks[name]) for name in names))
            causes = {name: cause for name, cause in zip(names, found, strict=True) if cause}
            if (now := not causes) is not ready and (now or failing or ready is None):
                await set_ready(now)
                _log.log(20 if now else 30, "readiness", ready=now, causes=causes)
                ready = now
            failing, started = bool(causes), started or now
            pause = _AGAIN_SECONDS if started else _STARTING_SECONDS
            await asyncio.sleep(pause if causes else _EVERY_SECONDS)


async def _failure(check: Check) -> str:
    try:
        async with asyncio.timeout(_EVERY_SECONDS):
            return "not ready" if await check() is False else ""
    except Exception as error:
        return repr(error)
