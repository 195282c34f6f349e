"""A circuit breaker per target: after several failures in a row, calls fail at once instead of piling up.

Pattern: https://martinfowler.com/bliki/CircuitBreaker.html. While the circuit is half open only one call goes
through, as a probe; a call that its caller gave up says nothing about the target.
"""

import time
from datetime import timedelta
from enum import IntEnum

from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.telemetry import BREAKER_STATE, get_logger

_log = get_logger(__name__)


class State(IntEnum):
    """What a breaker does with calls; the values are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Opens after `threshold` failures in a row; after `ttl` seconds one call may try again."""

    def __init__(self, target: str, *, threshold: int = 5, ttl: float = 1.0) -> None:
        self.target = target
        self._threshold = threshold
        self._ttl = ttl
        self._state = State.CLOSED
        self._failures = 0  # in a row
        self._opened_at = 0.0
        self._probing = False  # whether a call is out that tries again
        self._gauge = BREAKER_STATE.labels(target)
        self._gauge.set(State.CLOSED)

    def enter(self, method: str, *, probes: bool = True) -> None:
        """Ask before a call. Raises RemoteError (UNAVAILABLE, CIRCUIT_OPEN) instead of letting it through.

        A call that may take long for reasons of its own is no probe: its silence would say nothing.
        """
        if self._state is State.CLOSED:
            return
        if time.monotonic() - self._opened_at >= self._ttl:
            self._become(State.HALF_OPEN)
        if self._state is State.OPEN or self._probing or not probes:
            raise RemoteError(
                self.target,
                method,
                Code.UNAVAILABLE,
                "CIRCUIT_OPEN",
                f"{self.target} does not answer",
                retry_after=timedelta(seconds=self._ttl),
            )
        self._probing = True

    def succeeded(self) -> None:
        """Count a call that the target answered, be it with a domain error."""
        self._failures = 0
        self._become(State.CLOSED)

    def failed(self) -> None:
        """Count a call that the target did not answer."""
        self._failures += 1
        if self._failures >= self._threshold:
            self._opened_at = time.monotonic()
            self._become(State.OPEN)

    def abandoned(self) -> None:
        """Count nothing: the call was given up before its answer was known."""
        self._probing = False

    def _become(self, state: State) -> None:
        if state is not self._state:
            self._state = state
            self._probing = False
            self._gauge.set(state)
            _log.warning("circuit breaker", target=self.target, state=state.name.lower())
