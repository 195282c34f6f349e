"""What the gateway does on its own: it captures late charges and sends notices until they are taken."""

import aiohttp

from stoa_fakes import notices
from stoa_fakes.network import Faults
from stoa_fakes.notices import Request, signed_now
from stoa_fakes.payment_gateway.ledger import Ledger, Notice

_SIGNATURE_HEADER = "x-gateway-signature"


class Worker(notices.Worker[Notice]):
    """Runs for as long as the gateway does."""

    def __init__(self, ledger: Ledger, client: aiohttp.ClientSession, *, url: str, secret: str) -> None:
        super().__init__(ledger, client)
        self._capture_due = ledger.capture_due
        self._url = url
        self._secret = secret.encode()
        self.faults = Faults()

    def request(self, notice: Notice) -> Request:
        """Return how a notice is sent, signed now."""
        body = notice.body.encode()
        return Request(self._url, body, {_SIGNATURE_HEADER: signed_now(self._secret, body)})

    def duplicates(self, notice: Notice) -> int:
        """Return how many times a notice that was taken is sent again."""
        return self.faults.duplicate_webhooks

    def work_off(self) -> None:
        """Capture the charges whose time has come."""
        self._capture_due()
