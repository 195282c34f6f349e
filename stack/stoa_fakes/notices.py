"""What a company does on its own: it sends notices until they are taken.

It sleeps until the next is due or its ledger changes.
"""

import asyncio
import hashlib
import hmac
import logging
import random
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Generic, NamedTuple, Protocol, TypeVar

import aiohttp

_log = logging.getLogger(__name__)
_BATCH = 20
_LONGEST_PAUSE = 30.0


class Due(Protocol):
    """A notice that is due to be sent."""

    @property
    def id(self) -> str:
        """What the ledger knows it by."""
        ...

    @property
    def attempts(self) -> int:
        """How often it was put off."""
        ...


N = TypeVar("N", bound=Due)
N_co = TypeVar("N_co", bound=Due, covariant=True)


class Ledger(Protocol[N_co]):
    """Where notices wait."""

    changed: asyncio.Event
    """Set after a change that may bring forward what is due next."""

    def next_due(self) -> float | None:
        """Return when there is something to do, in Unix time; None if there is nothing."""
        ...

    def due_notices(self, limit: int) -> Sequence[N_co]:
        """Return up to `limit` notices whose time to be sent has come."""
        ...

    def notice_sent(self, notice_id: str, /) -> None:
        """Note that the receiver has taken a notice."""
        ...

    def postpone_notice(self, notice_id: str, seconds: float, /) -> None:
        """Note that a notice is to be sent later."""
        ...


class Request(NamedTuple):
    """How a notice is sent."""

    url: str
    body: bytes
    headers: Mapping[str, str]


class Worker(ABC, Generic[N]):
    """Runs for as long as the company does."""

    def __init__(self, ledger: Ledger[N], client: aiohttp.ClientSession) -> None:
        self._ledger = ledger
        self._client = client

    @abstractmethod
    def request(self, notice: N) -> Request:
        """Return how a notice is sent, signed now."""

    @abstractmethod
    def duplicates(self, notice: N) -> int:
        """Return how many times a notice that was taken is sent again."""

    def delay(self, notice: N) -> float:
        """Return for how many seconds a notice that is due has to wait for all that."""
        return 0

    def work_off(self) -> None:
        """Do what else is due."""

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._ledger.changed.clear()
            try:
                pause = await self._work()
            except sqlite3.Error:
                _log.exception("the ledger can't be written")
                pause = 1.0
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._ledger.changed.wait()

    async def _work(self) -> float | None:
        """Do what is due and return the seconds until there is more; None if nothing is waiting."""
        while (due := self._ledger.next_due()) is not None and due <= time.time():
            self.work_off()
            await asyncio.gather(*(self._send(notice) for notice in self._ledger.due_notices(_BATCH)))
        return None if due is None else max(0.0, due - time.time())

    async def _send(self, notice: N) -> None:
        if delay := self.delay(notice):
            self._ledger.postpone_notice(notice.id, delay)
            return
        if not await self._taken(notice):
            pause = min(_LONGEST_PAUSE, 0.5 * 2.0 ** min(notice.attempts, 10)) * random.uniform(0.5, 1.0)
            self._ledger.postpone_notice(notice.id, pause)
            return
        self._ledger.notice_sent(notice.id)
        for _ in range(self.duplicates(notice)):
            await self._taken(notice)

    async def _taken(self, notice: N) -> bool:
        url, body, headers = self.request(notice)
        try:
            async with self._client.post(
                url,
                data=body,
                headers={"content-type": "application/json", **headers},
                allow_redirects=False,
            ) as answer:
                await answer.read()  # what is left unread would close the connection
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError):
            return False


def signed_now(secret: bytes, body: bytes) -> str:
    """Return a signature in the manner of Stripe's: HMAC-SHA256 over the time, a dot and the body."""
    now = int(time.time())
    digest = hmac.new(secret, b"%d." % now + body, hashlib.sha256).hexdigest()
    return f"t={now},v1={digest}"
