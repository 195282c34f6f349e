"""A circuit breaker per target: after several failures in a row, calls fail at once instead of piling up.

The states and their transitions are purgatory's. This adds what its context manager does not offer: while it
is half open only one call goes through as a probe, and a call that we cancelled ourselves says nothing about
the target.
"""

from datetime import timedelta

from purgatory.domain.model import CLOSED, HALF_OPENED, Context, OpenedState

from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.telemetry import BREAKER_STATE, get_logger

_log = get_logger(__name__)
_GAUGE = {CLOSED: 0, HALF_OPENED: 1}
_OPEN = 2


class Breaker:
    """Opens after `threshold` failures in a row; after `ttl` seconds one call may try again."""

    def __init__(self, target: str, *, threshold: int = 5, ttl: float = 2.0) -> None:
        self.target = target
        self._circuit = Context(target, threshold, ttl)
        self._retry_after = timedelta(seconds=ttl)
        self._probing = False
        self._gauge = BREAKER_STATE.labels(target)
        self._gauge.set(0)

    def enter(self, method: str) -> None:
        """Ask before a call. Raises RemoteError (UNAVAILABLE, CIRCUIT_OPEN) without any call being made."""
        try:
            self._circuit.handle_new_request()
        except OpenedState as refused:
            refused.__traceback__ = None  # one object for all refusals: it would collect all their frames
            raise self._refusal(method) from None
        if self._circuit.state == HALF_OPENED:
            if self._probing:
                raise self._refusal(method)
            self._probing = True
        self._report()

    def succeeded(self) -> None:
        """Count a call that the target answered, be it with a domain error."""
        self._probing = False
        self._circuit.handle_end_request()
        self._report()

    def failed(self, error: Exception) -> None:
        """Count a call that the target did not answer."""
        self._probing = False
        self._circuit.handle_exception(error)
        self._report()

    def abandoned(self) -> None:
        """Count nothing: we gave the call up before we knew."""
        self._probing = False

    def _report(self) -> None:
        if not self._circuit.messages:
            return
        before, after = self._gauge_value, _GAUGE.get(self._circuit.state, _OPEN)
        self._circuit.messages.clear()
        self._gauge.set(after)
        if before != after:
            _log.warning("circuit breaker", target=self.target, state=self._circuit.state)
        self._gauge_value = after

    _gauge_value = 0

    def _refusal(self, method: str) -> RemoteError:
        return RemoteError(
            self.target,
            method,
            Code.UNAVAILABLE,
            "CIRCUIT_OPEN",
            f"{self.target} does not answer",
            retry_after=self._retry_after,
        )
