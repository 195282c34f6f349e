"""A use case of payment that goes on one step at a time.

Each of its transactions, and each of its requests to the gateway, is a step: what else happens in between,
and what becomes of a request, is for the model to say.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from stoa_chassis.memory import MemoryStore
from stoa_payment import testing
from stoa_payment.testing import Bank, Fate, Request

T = TypeVar("T")
STORE = "store"
"""The step that is a transaction, or a statement outside of one; those at the gateway have the names of its
requests."""


class Suspended(BaseException):
    """A use case has come to its next step."""

    def __init__(self, next_step: str) -> None:
        super().__init__(next_step)
        self.next_step = next_step


class Run:
    """Runs a use case up to where it was, lets it do one step more, and suspends it there.

    Coroutines can't be copied, so a use case that waits is kept as what it saw: `past` has, for each step,
    the rows of its transaction or the gateway's answer. What was done is done again without effect.
    """

    def __init__(
        self, store: MemoryStore[testing.Rows], bank: Bank, past: Iterable[Any], fate: Fate | None
    ) -> None:
        """`fate` is what becomes of the next step; without one it is not done."""
        self.bank = bank
        self.past = list(past)
        self._store = store
        self._at = 0
        self._fate = fate

    def store(self) -> MemoryStore[testing.Rows]:
        """Return the store as a transaction finds it."""
        if self._at == len(self.past):
            self._take(STORE)
            self.past.append(self._store.rows)
            self._at += 1
            return self._store
        self._at += 1
        return MemoryStore(self.past[self._at - 1])

    def request(self, step: str, request: Request | None, answer: Callable[[Bank], T | None]) -> T | None:
        """Send a request to the gateway and return its answer, None if none comes."""
        if self._at == len(self.past):
            fate = self._take(step)
            if request is not None and fate in (Fate.ANSWERED, Fate.LOST):
                self.bank = self.bank.carry_out(request)
            if request is not None and fate is Fate.LINGERS:
                self.bank = replace(self.bank, lingering=self.bank.lingering | {request})
            self.past.append(answer(self.bank) if fate is Fate.ANSWERED else None)
        self._at += 1
        answered: T | None = self.past[self._at - 1]
        return answered

    def _take(self, step: str) -> Fate:
        if self._fate is None:
            raise Suspended(step)
        fate, self._fate = self._fate, None
        return fate


class Gateway(testing.FakeGateway):
    """The payment gateway, as a use case that runs step by step reaches it."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.bank)
        self._run = run

    async def send(self, step: str, request: Request | None, answer: Callable[[Bank], T | None]) -> T | None:
        """Let the request be a step of the run."""
        return self._run.request(step, request, answer)
