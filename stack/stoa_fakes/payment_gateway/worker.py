"""What the gateway does on its own: it captures late charges and sends notices until they are taken.

It sleeps until the next thing is due or the books change.
"""

import asyncio
import hashlib
import hmac
import logging
import random
import sqlite3
import time
from contextlib import suppress

import httpx

from stoa_fakes.payment_gateway.books import Books, Notice

_log = logging.getLogger(__name__)
_BATCH = 20
_LONGEST_PAUSE = 30.0
_SIGNATURE_HEADER = "x-gateway-signature"


class Worker:
    """Runs for as long as the gateway does."""

    def __init__(self, books: Books, client: httpx.AsyncClient, *, url: str, secret: str) -> None:
        self._books = books
        self._client = client
        self._url = url
        self._secret = secret.encode()
        # How many times a notice that was taken is sent again; a fault that tests can switch on.
        self.duplicates = 0

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._books.changed.clear()
            try:
                pause = await self._work()
            except sqlite3.Error:
                _log.exception("the books can't be written")
                pause = 1.0
            with suppress(TimeoutError):
                await asyncio.wait_for(self._books.changed.wait(), pause)

    async def _work(self) -> float | None:
        """Do what is due and return the seconds until there is more; None if nothing is waiting."""
        await self._books.capture_due()
        while notices := await self._books.due_notices(_BATCH):
            await asyncio.gather(*(self._send(notice) for notice in notices))
        due = await self._books.next_due()
        return None if due is None else max(0.0, due - time.time())

    async def _send(self, notice: Notice) -> None:
        if not await self._taken(notice):
            pause = min(_LONGEST_PAUSE, 0.5 * 2.0 ** min(notice.attempts, 10)) * random.uniform(0.5, 1.0)
            await self._books.postpone_notice(notice.id, pause)
            return
        await self._books.notice_sent(notice.id)
        for _ in range(self.duplicates):
            await self._taken(notice)

    async def _taken(self, notice: Notice) -> bool:
        headers = {
            "content-type": "application/json",
            _SIGNATURE_HEADER: sign(self._secret, notice.body.encode(), int(time.time())),
        }
        try:
            answer = await self._client.post(self._url, content=notice.body, headers=headers)
        except httpx.HTTPError:
            return False
        return answer.is_success


def sign(secret: bytes, body: bytes, timestamp: int) -> str:
    """Return the signature header of a notice: HMAC-SHA256 over the time, a dot and the body."""
    digest = hmac.new(secret, b"%d." % timestamp + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"
