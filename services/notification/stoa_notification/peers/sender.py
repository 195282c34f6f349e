"""Who mail comes from, and how the address is written that it goes to."""

from dataclasses import dataclass
from uuid import UUID

import idna

from stoa_notification.ports import Refused


@dataclass(frozen=True, slots=True)
class Sender:
    """The shop, as mail programs show it."""

    address: str
    name: str

    def message_id(self, notification_id: UUID) -> str:
        """Return the Message-ID of a mail (RFC 5322): the same each time that it is given to a server."""
        return f"<{notification_id}@{self.address.rpartition('@')[2]}>"


def mailbox_and_domain(address: str) -> tuple[str, str]:
    """Return both parts of an address, the domain in ASCII (IDNA), as what carries mail has them.

    Raises Refused if nobody can have the address.
    """
    mailbox, _, domain = address.rpartition("@")
    if not mailbox or not domain or not address.isprintable() or " " in address:
        raise Refused("malformed address")
    try:
        return mailbox, domain if domain.isascii() else idna.encode(domain, uts46=True).decode()
    except idna.IDNAError:
        raise Refused("malformed address") from None
