"""What the gateway does on its own: it captures late charges and sends notices until they are taken.

It sleeps until the next thing is due or the ledger changes.
"""

import asyncio
import hashlib
import hmac
import logging
import random
import sqlite3
import time
from contextlib import suppress

import aiohttp

from stoa_fakes.payment_gateway.ledger import Ledger, Notice

_log = logging.getLogger(__name__)
_BATCH = 20
_LONGEST_PAUSE = 30.0
_SIGNATURE_HEADER = "x-gateway-signature"


class Worker:
    """Runs for as long as the gateway does."""

    def __init__(self, ledger: Ledger, client: aiohttp.ClientSession, *, url: str, secret: str) -> None:
        self._ledger = ledger
        self._client = client
        self._url = url
        self._secret = secret.encode()
        # How many times a notice that was taken is sent again; a fault that tests can switch on.
        self.duplicates = 0

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
            self._ledger.capture_due()
            await asyncio.gather(*(self._send(notice) for notice in self._ledger.due_notices(_BATCH)))
        return None if due is None else max(0.0, due - time.time())

    async def _send(self, notice: Notice) -> None:
        if not await self._taken(notice):
            pause = min(_LONGEST_PAUSE, 0.5 * 2.0 ** min(notice.attempts, 10)) * random.uniform(0.5, 1.0)
            self._ledger.postpone_notice(notice.id, pause)
            return
        self._ledger.notice_sent(notice.id)
        for _ in range(self.duplicates):
            await self._taken(notice)

    async def _taken(self, notice: Notice) -> bool:
        body = notice.body.encode()
        headers = {
            "content-type": "application/json",
            _SIGNATURE_HEADER: sign(self._secret, body, int(time.time())),
        }
        try:
            async with self._client.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                await answer.read()  # what is left unread would close the connection
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError):
            return False


def sign(secret: bytes, body: bytes, timestamp: int) -> str:
    """Return the signature header of a notice: HMAC-SHA256 over the time, a dot and the body."""
    digest = hmac.new(secret, b"%d." % timestamp + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"
