"""Time as something that is handed in, so that a test decides what time it is."""

import os
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...


def in_milliseconds(moment: datetime) -> datetime:
    """Return a time without what is less than a millisecond, which MongoDB does not keep."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class SystemClock:
    """The clock of this machine, or one that is STOA_CLOCK_OFFSET_SECONDS ahead of it.

    With the offset a process believes in a time of its own, as on a machine whose clock is wrong: what
    depends on clocks must also hold when they differ, and `stoa chaos` sees if it does.
    """

    def __init__(self) -> None:
        self._offset = timedelta(seconds=float(os.environ.get("STOA_CLOCK_OFFSET_SECONDS") or 0))

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return datetime.now(UTC) + self._offset
