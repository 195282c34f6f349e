"""The stores of notifications and a provider in memory, for tests of use cases; see `stoa_chassis.memory`.

The stores refuse what the constraints of the migrations refuse. One suite, tests/test_repository.py, runs on
these and on PostgreSQL.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from stoa_chassis.due import Backoff
from stoa_chassis.memory import MemoryStore
from stoa_chassis.outbox import Outbox
from stoa_notification import ports
from stoa_notification.model import Contact, GuestOrder, Notification, Parcel, Status, Template
from stoa_notification.ports import Message


@dataclass(frozen=True)
class Rows:
    """What the notification service keeps, by its keys. What is in here is never changed, but replaced."""

    contacts: Mapping[UUID, Contact] = field(default_factory=dict)
    guest_orders: Mapping[UUID, GuestOrder] = field(default_factory=dict)
    parcels: Mapping[UUID, Parcel] = field(default_factory=dict)
    notifications: Mapping[UUID, Notification] = field(default_factory=dict)


# Where a repository finds its rows: the view of a transaction, or the store for a statement outside of one.
Open = Callable[[], MemoryStore[Rows]]


class Contacts:
    """How users are reached."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def get(self, user_id: UUID) -> Contact | None:
        """Read how a user is reached, if anything is known."""
        found = self._store().rows.contacts.get(user_id)
        return replace(found) if found else None

    async def lock(self, user_id: UUID) -> Contact:
        """Read how a user is reached; a contact of whom nothing is known is stored."""
        if (found := await self.get(user_id)) is None:
            found = Contact(user_id=user_id)
            self._put(found)
        return found

    async def save(self, contact: Contact) -> None:
        """Store a locked contact."""
        wanted = contact.preferences
        nothing = contact.email + contact.first_name + wanted.phone_number + wanted.push_token == ""
        self._store().check(contact.erased_at is None or nothing, "contacts_check")
        self._put(contact)

    def _put(self, contact: Contact) -> None:
        store = self._store()
        store.rows = replace(store.rows, contacts={**store.rows.contacts, contact.user_id: replace(contact)})


class GuestOrders:
    """Orders without an account behind them."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def add(self, order: GuestOrder) -> None:
        """Store an order, unless it is known."""
        store = self._store()
        known = store.rows.guest_orders
        store.rows = replace(store.rows, guest_orders={order.order_id: order, **known})

    async def get(self, order_id: UUID) -> GuestOrder | None:
        """Read an order; None if it is not known, or an account's."""
        return self._store().rows.guest_orders.get(order_id)

    async def hand_over(self, order_id: UUID, user_id: UUID) -> None:
        """Let an order be a user's, if it is known."""
        store = self._store()
        if (known := store.rows.guest_orders.get(order_id)) is not None:
            changed = {**store.rows.guest_orders, order_id: replace(known, user_id=user_id)}
            store.rows = replace(store.rows, guest_orders=changed)

    async def forget(self, user_id: UUID) -> None:
        """Forget the orders of a user."""
        store = self._store()
        kept = {key: order for key, order in store.rows.guest_orders.items() if order.user_id != user_id}
        store.rows = replace(store.rows, guest_orders=kept)


class Parcels:
    """Parcels that carriers have booked."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def add(self, parcel: Parcel) -> None:
        """Store a parcel, or what is said of it anew."""
        store = self._store()
        store.rows = replace(store.rows, parcels={**store.rows.parcels, parcel.shipment_id: parcel})

    async def get(self, shipment_id: UUID) -> Parcel | None:
        """Read a parcel, if it is known."""
        return self._store().rows.parcels.get(shipment_id)


class Notifications:
    """What was told, and is to be told; one for an event and a channel."""

    def __init__(self, store: MemoryStore[Rows], outbox: Outbox) -> None:
        self._store = store
        self._outbox = outbox

    async def add(self, notifications: Iterable[Notification]) -> Sequence[Notification]:
        """Store new notifications unless there is one for the event and the channel; return those stored."""
        stored = []
        for notification in notifications:
            known = {(each.cause_id, each.channel) for each in self._store.rows.notifications.values()}
            if (notification.cause_id, notification.channel) not in known:
                _put(self._store, notification)
                stored.append(notification)
        return stored

    async def lock(self, notification_id: UUID) -> Notification:
        """Read a notification, which nobody else changes until the transaction ends."""
        return _copy(self._store.rows.notifications[notification_id])

    async def save(self, notification: Notification) -> None:
        """Store a changed notification, and publish its events."""
        _put(self._store, notification)
        self._outbox.collect(notification)

    async def end(self, notification: Notification) -> None:
        """Store how a notification has ended, unless it had before, and publish its events."""
        known = self._store.rows.notifications[notification.notification_id]
        if known.is_pending:
            _put(self._store, replace(notification, user_id=known.user_id))
            self._outbox.collect(notification)

    async def tells(self, order_id: UUID, template: Template) -> bool:
        """Whether something is told of an order with a template."""
        told = self._store.rows.notifications.values()
        return any((each.order_id, each.template) == (order_id, template) for each in told)

    async def hand_over(self, order_id: UUID, user_id: UUID) -> None:
        """Let what was told of an order have been told to a user."""
        for notification in self._store.rows.notifications.values():
            if notification.order_id == order_id:
                _put(self._store, replace(notification, user_id=user_id, events=[]))

    async def pending_of(self, user_id: UUID) -> Sequence[Notification]:
        """Read what is still to be told to a user."""
        told = self._store.rows.notifications.values()
        return [_copy(each) for each in told if each.user_id == user_id and each.is_pending]


class NotificationReader:
    """Reads outside of a transaction."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def contact(self, user_id: UUID) -> Contact | None:
        """Read how a user is reached, if anything is known."""
        return await Contacts(self._store).get(user_id)

    async def list(self, user_id: UUID, before: UUID | None, limit: int) -> Sequence[Notification]:
        """Read what a user was told or will be, the newest first; `before`: only older than this one."""
        told = [
            _copy(each)
            for each in self._store().rows.notifications.values()
            if each.user_id == user_id and each.status is not Status.SUPPRESSED
        ]
        told.sort(key=lambda each: each.notification_id, reverse=True)
        return [each for each in told if before is None or each.notification_id < before][:limit]


@dataclass(frozen=True)
class Outgoing:
    """Notifications that are still to be delivered."""

    store: Open
    backoff: Backoff
    lease: timedelta

    async def claim_due(self, now: datetime, limit: int) -> Sequence[Notification]:
        """Take at most `limit` that are due, so that nobody else takes them meanwhile."""
        store = self.store()
        waiting = [each for each in store.rows.notifications.values() if each.due_at is not None]
        waiting.sort(key=lambda each: each.due_at or now)
        claimed = [_copy(each) for each in waiting if each.due_at is not None and each.due_at <= now][:limit]
        for notification in claimed:
            pause = self.backoff.at_most(notification.attempts)
            notification.attempts += 1
            notification.due_at = now + max(self.lease, pause)
            _put(store, notification)
        return [_copy(each) for each in claimed]

    async def next_due(self) -> datetime | None:
        """Return when the next falls due; None if nothing is to be delivered."""
        return min(
            (each.due_at for each in self.store().rows.notifications.values() if each.due_at), default=None
        )

    async def put_off(self, notification: Notification, until: datetime) -> None:
        """Let one fall due at another time, unless it has ended meanwhile."""
        store = self.store()
        known = _copy(store.rows.notifications[notification.notification_id])
        if known.due_at is not None:
            known.due_at, known.concluded = until, known.attempts
            _put(store, known)


def open_tx(store: MemoryStore[Rows], outbox: Outbox) -> ports.Tx:
    """Put the repositories on the view of a transaction."""
    return ports.Tx(
        Contacts(lambda: store),
        GuestOrders(lambda: store),
        Parcels(lambda: store),
        Notifications(store, outbox),
    )


def _put(store: MemoryStore[Rows], notification: Notification) -> None:
    pending = notification.is_pending
    store.check(pending == (notification.due_at is not None), "notifications_check")
    store.check(pending or notification.recipient is None, "notifications_check1")
    told = {**store.rows.notifications, notification.notification_id: _copy(notification)}
    store.rows = replace(store.rows, notifications=told)


def _copy(notification: Notification) -> Notification:
    return replace(notification, events=[])


# ------------------------------------------------------------------------------------------- a provider


@dataclass
class FakeProvider:
    """A provider in memory: what it took, and what becomes of what is given to it."""

    name: str = "fake"
    repeatable: bool = True
    taken: list[Message] = field(default_factory=list)
    trouble: Exception | None = None
    """Raised instead of taking a message: Refused, NotTaken."""
    loses_answers: bool = False
    """Whether it takes messages and does not say so."""

    async def send(self, message: Message) -> None:
        """Take a message. Raises Refused, NotTaken, OutcomeUnknown."""
        if self.trouble is not None:
            raise self.trouble
        self.taken.append(message)
        if self.loses_answers:
            raise ports.OutcomeUnknown("no answer")
