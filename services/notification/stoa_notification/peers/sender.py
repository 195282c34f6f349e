"""Who mail comes from."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Sender:
    """The shop, as mail programs show it."""

    address: str
    name: str

    def message_id(self, notification_id: UUID) -> str:
        """Return the Message-ID of a mail (RFC 5322): the same each time that it is given to a server."""
        return f"<{notification_id}@{self.address.rpartition('@')[2]}>"
