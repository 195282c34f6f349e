"""A circuit breaker per target: after several failures in a row, calls fail at once instead of piling up.

The states are those of the library `circuitbreaker`, one file without dependencies. (Of the others, purgatory
and pybreaker load a Redis client, 16 MB in each process, and aiobreaker is not kept up.) This adds what it
leaves out: while the circuit is half open only one call goes through as a probe, and a call that we cancelled
ourselves says nothing about the target.
"""

from datetime import timedelta

from circuitbreaker import (  # type: ignore[import-untyped]  # has no annotations
    STATE_CLOSED,
    STATE_HALF_OPEN,
    STATE_OPEN,
    CircuitBreaker,
)

from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.telemetry import BREAKER_STATE, get_logger

_log = get_logger(__name__)
_GAUGE = {STATE_CLOSED: 0, STATE_HALF_OPEN: 1, STATE_OPEN: 2}


class Breaker:
    """Opens after `threshold` failures in a row; after `ttl` seconds one call may try again."""

    def __init__(self, target: str, *, threshold: int = 5, ttl: float = 2.0) -> None:
        self.target = target
        self._circuit = CircuitBreaker(threshold, ttl, name=target)
        self._retry_after = timedelta(seconds=ttl)
        self._probing = False
        self._reported = STATE_CLOSED
        self._gauge = BREAKER_STATE.labels(target)
        self._gauge.set(0)

    def enter(self, method: str, *, probes: bool = True) -> None:
        """Ask before a call. Raises RemoteError (UNAVAILABLE, CIRCUIT_OPEN) instead of letting it through.

        A call that may take long for reasons of its own is no probe: its silence would say nothing.
        """
        state = self._circuit.state
        if state == STATE_OPEN or (state == STATE_HALF_OPEN and (self._probing or not probes)):
            raise RemoteError(
                self.target,
                method,
                Code.UNAVAILABLE,
                "CIRCUIT_OPEN",
                f"{self.target} does not answer",
                retry_after=self._retry_after,
            )
        self._probing = state == STATE_HALF_OPEN
        self._report()

    def succeeded(self) -> None:
        """Count a call that the target answered, be it with a domain error."""
        self._probing = False
        self._circuit.reset()
        self._report()

    def failed(self, error: Exception) -> None:
        """Count a call that the target did not answer."""
        self._probing = False
        self._circuit.__exit__(type(error), error, None)
        self._report()

    def abandoned(self) -> None:
        """Count nothing: we gave the call up before we knew."""
        self._probing = False

    def _report(self) -> None:
        state = self._circuit.state
        if state != self._reported:
            self._reported = state
            self._gauge.set(_GAUGE[state])
            _log.warning("circuit breaker", target=self.target, state=state)
