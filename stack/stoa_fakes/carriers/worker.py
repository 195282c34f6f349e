"""What the carriers do on their own: they send notices of scans until they are taken.

It sleeps until the next is due or the ledger changes.
"""

import asyncio
import logging
import random
import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress

import aiohttp

from stoa_fakes.carriers.faults import AllFaults
from stoa_fakes.carriers.ledger import Ledger, Notice, Scan
from stoa_fakes.carriers.network import Carrier

_log = logging.getLogger(__name__)
_BATCH = 20
_LONGEST_PAUSE = 30.0


class Worker:
    """Runs for as long as the carriers do."""

    def __init__(
        self, ledger: Ledger, client: aiohttp.ClientSession, url: str, carriers: Mapping[str, Carrier]
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._url = url
        self._carriers = carriers
        self.faults = AllFaults()

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
            await asyncio.gather(*(self._send(notice) for notice in self._ledger.due_notices(_BATCH)))
        return None if due is None else max(0.0, due - time.time())

    async def _send(self, notice: Notice) -> None:
        scan, faults = notice.scan, self.faults.of(notice.scan.carrier)
        if notice.attempts == 0 and time.time() < scan.at + (delay := faults.delay_webhooks_ms / 1000):
            self._ledger.postpone_notice(scan.id, delay)
            return
        if not await self._taken(scan):
            pause = min(_LONGEST_PAUSE, 0.5 * 2.0 ** min(notice.attempts, 10)) * random.uniform(0.5, 1.0)
            self._ledger.postpone_notice(scan.id, pause)
            return
        self._ledger.notice_sent(scan.id)
        for _ in range(faults.duplicate_webhooks):
            await self._taken(scan)

    async def _taken(self, scan: Scan) -> bool:
        body, signature = self._carriers[scan.carrier].notice(scan)
        try:
            async with self._client.post(
                f"{self._url}/{scan.carrier}",
                data=body,
                headers={"content-type": "application/json", **signature},
                allow_redirects=False,
            ) as answer:
                await answer.read()  # what is left unread would close the connection
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError):
            return False
