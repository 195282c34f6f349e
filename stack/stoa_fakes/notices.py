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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

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


@contextmanager
def open_database(file: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """Open a ledger's file, in a folder that exists; a new one if there is none."""
    with closing(sqlite3.connect(file)) as database:
        database.row_factory = sqlite3.Row
        # In WAL mode a commit survives the death of this process without a sync to disk.
        database.executescript("pragma journal_mode = wal; pragma synchronous = normal;" + schema)
        yield database


class Ledger(ABC, Generic[N]):
    """What a company must not forget, and the notices about it."""

    def __init__(self, database: sqlite3.Connection, notices: str, *, sends_notices: bool) -> None:
        """`notices` is a table with the columns `id`, `due` (null: it was sent) and `attempts`."""
        self._database = database
        self._notices = notices
        self._sends_notices = sends_notices
        # Set after a change that may bring forward what is due next.
        self.changed = asyncio.Event()

    @abstractmethod
    def next_due(self) -> float | None:
        """Return when there is something to do, in Unix time; None if there is nothing."""

    @abstractmethod
    def due_notices(self, limit: int) -> Sequence[N]:
        """Return up to `limit` notices whose time to be sent has come."""

    def notice_sent(self, notice_id: str) -> None:
        """Note that the receiver has taken a notice."""
        with self._database:
            self._database.execute(f"update {self._notices} set due = null where id = ?", (notice_id,))

    def postpone_notice(self, notice_id: str, seconds: float) -> None:
        """Note that the receiver did not take a notice, and when to try again."""
        with self._database:
            self._database.execute(
                f"update {self._notices} set attempts = attempts + 1, due = ? where id = ?",
                (time.time() + seconds, notice_id),
            )

    def _row(self, query: str, *args: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._database.execute(query, args).fetchone()
        return row


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
