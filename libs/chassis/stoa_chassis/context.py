"""What travels along with a request or an event through all layers without being passed by hand.

The server interceptor binds it for a call, the Kafka consumer for an event; logs, outgoing calls and
published events read it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import NamedTuple

_correlation_id: ContextVar[str] = ContextVar("stoa_correlation_id", default="")
_deadline: ContextVar[float | None] = ContextVar("stoa_deadline", default=None)
_RESERVE = 0.05


class Bound(NamedTuple):
    """What `bind` replaced; hand it to `reset`."""

    correlation_id: Token[str]
    deadline: Token[float | None]


def correlation_id() -> str:
    """Return the id that ties together all that one request caused; "" outside of any."""
    return _correlation_id.get()


def deadline() -> float | None:
    """Return when the caller stops waiting, in seconds of `time.monotonic()`; None if it waits forever."""
    return _deadline.get()


def remaining() -> float | None:
    """Return the seconds left until the deadline (0 when it has passed); None if there is no deadline."""
    at = _deadline.get()
    return None if at is None else max(0.0, at - time.monotonic())


def time_limit(seconds: float) -> float:
    """Return how long what is asked of another may take: `seconds`, and never as long as our caller waits.

    A part of the caller's time is kept back, to still tell it what went wrong when ours has passed.
    """
    left = remaining()
    return seconds if left is None else min(seconds, left * (1 - _RESERVE))


def bind(correlation_id: str, deadline: float | None = None) -> Bound:
    """Enter a request or event; `deadline` is in seconds of `time.monotonic()`."""
    return Bound(_correlation_id.set(correlation_id), _deadline.set(deadline))


def reset(bound: Bound) -> None:
    """Leave what `bind` entered. Only valid in the same task."""
    _correlation_id.reset(bound.correlation_id)
    _deadline.reset(bound.deadline)


@contextmanager
def bound(correlation_id: str, deadline: float | None = None) -> Iterator[None]:
    """`bind` and `reset` around a block."""
    tokens = bind(correlation_id, deadline)
    try:
        yield
    finally:
        reset(tokens)
