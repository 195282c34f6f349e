"""What the carriers do on their own: they send notices of scans until they are taken."""

import time
from collections.abc import Mapping

import aiohttp

from stoa_fakes import notices
from stoa_fakes.carriers.faults import AllFaults
from stoa_fakes.carriers.ledger import Ledger, Notice
from stoa_fakes.carriers.network import Carrier
from stoa_fakes.notices import Request


class Worker(notices.Worker[Notice]):
    """Runs for as long as the carriers do."""

    def __init__(
        self, ledger: Ledger, client: aiohttp.ClientSession, url: str, carriers: Mapping[str, Carrier]
    ) -> None:
        super().__init__(ledger, client)
        self._url = url
        self._carriers = carriers
        self.faults = AllFaults()

    def request(self, notice: Notice) -> Request:
        """Return how a notice is sent, signed now."""
        carrier = notice.scan.carrier
        return Request(f"{self._url}/{carrier}", *self._carriers[carrier].notice(notice.scan))

    def duplicates(self, notice: Notice) -> int:
        """Return how many times a notice that was taken is sent again."""
        return self.faults.of(notice.scan.carrier).duplicate_webhooks

    def delay(self, notice: Notice) -> float:
        """Return for how many seconds a notice that is due has to wait for all that."""
        delay = self.faults.of(notice.scan.carrier).delay_webhooks_ms / 1000
        return delay if notice.attempts == 0 and time.time() < notice.scan.at + delay else 0
