"""The links by which guests follow their orders: whoever has one may read the order, until it expires.

The secret of a link is the order's id and its last day, sealed with a key of the shop (HMAC, RFC 2104): it
needs no store, and can be made again for each mail. Nobody can make one of an order's id.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
# In bytes. The seal is longer than anybody can try through the edge; by threes, base64 needs no padding.
_ID, _DAYS, _SEAL = 16, 4, 16


@dataclass(frozen=True, slots=True)
class GuestLinks:
    """Makes and checks the secrets of links."""

    key: str = field(repr=False)
    lifetime: timedelta

    def __post_init__(self) -> None:
        if not self.key:
            raise ValueError("guest_link_key must be set, or anybody could make links")

    def secret(self, order_id: UUID, placed_at: datetime) -> str:
        """Return the secret of the link to an order; always the same."""
        last_day = (placed_at + self.lifetime - _EPOCH) // _DAY
        content = order_id.bytes + last_day.to_bytes(_DAYS, "big")
        return urlsafe_b64encode(content + self._seal(content)).decode()

    def order_of(self, secret: str, now: datetime) -> UUID | None:
        """Return the order that a link leads to; None if the secret is none of ours, or has expired."""
        try:
            sealed = urlsafe_b64decode(secret)
        except (NotBase64, ValueError):
            return None
        content, seal = sealed[: _ID + _DAYS], sealed[_ID + _DAYS :]
        if not hmac.compare_digest(seal, self._seal(content)):
            return None
        last_day = int.from_bytes(content[_ID:], "big")
        return UUID(bytes=content[:_ID]) if now - _EPOCH < (last_day + 1) * _DAY else None

    def _seal(self, content: bytes) -> bytes:
        return hmac.digest(self.key.encode(), b"guest order " + content, sha256)[:_SEAL]
