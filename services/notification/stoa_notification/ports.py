"""What the use cases of notifications need from outside."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from stoa_notification.model import Contact, GuestOrder, Notification, Parcel, Template


class Contacts(Protocol):
    """How users are reached."""

    async def get(self, user_id: UUID) -> Contact | None:
        """Read how a user is reached, if anything is known."""
        ...

    async def lock(self, user_id: UUID) -> Contact:
        """Read how a user is reached, which nobody else changes until the transaction ends.

        A contact of whom nothing is known is stored, so that there is something to lock.
        """
        ...

    async def save(self, contact: Contact) -> None:
        """Store a locked contact."""
        ...


class GuestOrders(Protocol):
    """Orders without an account behind them."""

    async def add(self, order: GuestOrder) -> None:
        """Store an order, unless it is known."""
        ...

    async def get(self, order_id: UUID) -> GuestOrder | None:
        """Read an order; None if it is not known, or an account's."""
        ...

    async def hand_over(self, order_id: UUID, user_id: UUID) -> None:
        """Let an order be a user's, if it is known."""
        ...

    async def forget(self, user_id: UUID) -> None:
        """Forget the orders of a user."""
        ...


class Parcels(Protocol):
    """Parcels that carriers have booked."""

    async def add(self, parcel: Parcel) -> None:
        """Store a parcel, or what is said of it anew."""
        ...

    async def get(self, shipment_id: UUID) -> Parcel | None:
        """Read a parcel, if it is known."""
        ...


class Notifications(Protocol):
    """What was told, and is to be told; one for an event and a channel."""

    async def add(self, notifications: Iterable[Notification]) -> Sequence[Notification]:
        """Store new notifications unless there is one for the event and the channel; return those stored."""
        ...

    async def lock(self, notification_id: UUID) -> Notification:
        """Read a notification, which nobody else changes until the transaction ends."""
        ...

    async def save(self, notification: Notification) -> None:
        """Store a changed notification, and publish its events."""
        ...

    async def end(self, notification: Notification) -> None:
        """Store how a notification has ended, unless it had before, and publish its events."""
        ...

    async def tells(self, order_id: UUID, template: Template) -> bool:
        """Whether something is told of an order with a template."""
        ...

    async def hand_over(self, order_id: UUID, user_id: UUID) -> None:
        """Let what was told of an order have been told to a user."""
        ...

    async def pending_of(self, user_id: UUID) -> Sequence[Notification]:
        """Read what is still to be told to a user, locked."""
        ...


@dataclass(frozen=True, slots=True)
class Tx:
    """What a use case sees of a transaction."""

    contacts: Contacts
    guest_orders: GuestOrders
    parcels: Parcels
    notifications: Notifications


class NotificationReader(Protocol):
    """Reads outside of a transaction."""

    async def contact(self, user_id: UUID) -> Contact | None:
        """Read how a user is reached, if anything is known."""
        ...

    async def list(self, user_id: UUID, before: UUID | None, limit: int) -> Sequence[Notification]:
        """Read what a user was told or will be, the newest first; `before`: only older than this one.

        May lag behind by seconds: nobody has just written it.
        """
        ...


class Outgoing(Protocol):
    """Notifications that are still to be delivered. They fall due (`stoa_chassis.due`)."""

    async def claim_due(self, now: datetime, limit: int) -> Sequence[Notification]:
        """Take at most `limit` that are due, so that nobody else takes them meanwhile."""
        ...

    async def next_due(self) -> datetime | None:
        """Return when the next falls due; None if nothing is to be delivered."""
        ...

    async def put_off(self, notification: Notification, until: datetime) -> None:
        """Let one fall due at another time, unless it has ended meanwhile.

        With that it is known that none of its attempts has delivered it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Content:
    """What is told, in the recipient's language: `text` and `html` are of mail, `short` is one sentence."""

    subject: str
    text: str = field(repr=False)
    html: str = field(repr=False)
    short: str = field(repr=False)
    link: str = field(repr=False)


class Renderer(Protocol):
    """Puts what is told into words."""

    def subject(self, notification: Notification) -> str:
        """Return the subject of a notification whose recipient is known."""
        ...

    def render(self, notification: Notification) -> Content:
        """Put a notification whose recipient is known into words."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """What a provider is to deliver. The id is the same each time the message is tried."""

    notification_id: UUID
    address: str = field(repr=False)
    name: str = field(repr=False)
    content: Content
    created_at: datetime


class Refused(Exception):
    """A provider will never deliver the message: it says so, for a reason of its own (`code`).

    `address_is_gone` if it says that nobody is reached there any more.
    """

    def __init__(self, code: str, *, address_is_gone: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.address_is_gone = address_is_gone


class NotTaken(Exception):
    """A provider has certainly not taken the message, and may take it later."""


class OutcomeUnknown(Exception):
    """A provider did not say whether it took the message."""


class Provider(Protocol):
    """Delivers messages of one channel."""

    @property
    def name(self) -> str:
        """The provider's, as histories have it."""
        ...

    @property
    def repeatable(self) -> bool:
        """Whether the same message, given twice, is one to its recipient, or is told to be the same.

        If not, a message whose outcome is not known is not given again.
        """
        ...

    async def send(self, message: Message) -> None:
        """Give a message to the provider. Raises Refused, NotTaken, OutcomeUnknown."""
        ...
