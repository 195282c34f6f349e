"""Contacts, guests' orders and notifications in PostgreSQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from stoa_chassis.due import Backoff
from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Database, Queries
from stoa_chassis.postgres_due import DueTable
from stoa_chassis.postgres_replica import Reads
from stoa_chassis.postgres_table import Table
from stoa_notification import ports
from stoa_notification.model import (
    Channel,
    Contact,
    GuestOrder,
    Notification,
    Parcel,
    Preferences,
    Recipient,
    Status,
    Template,
)

_CONTACTS = Table("contacts", key="user_id")
_GUEST_ORDERS = Table("guest_orders", key="order_id")
_PARCELS = Table("parcels", key="shipment_id")
_NOTIFICATIONS = Table("notifications", key="notification_id")
_DUE = DueTable("notifications", key="notification_id")
_PUT_OFF = """
UPDATE notifications SET due_at = $2, concluded = attempts WHERE notification_id = $1 AND due_at IS NOT NULL
"""


_END = """
UPDATE notifications SET status = $2, provider = $3, failure = $4, updated_at = $5, facts = '{}',
    recipient = NULL, due_at = NULL
WHERE notification_id = $1 AND status = 'pending'
"""


class Contacts:
    """How users are reached."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def get(self, user_id: UUID) -> Contact | None:
        """Read how a user is reached, if anything is known."""
        row = await self._queries.fetchrow("SELECT * FROM contacts WHERE user_id = $1", user_id)
        return _contact(row) if row else None

    async def lock(self, user_id: UUID) -> Contact:
        """Read how a user is reached, which nobody else changes until the transaction ends.

        A contact of whom nothing is known is stored, so that there is something to lock.
        """
        await _CONTACTS.insert_new(self._queries, _contact_row(Contact(user_id=user_id)))
        row = await self._queries.fetchrow("SELECT * FROM contacts WHERE user_id = $1 FOR UPDATE", user_id)
        assert row is not None
        return _contact(row)

    async def save(self, contact: Contact) -> None:
        """Store a locked contact."""
        await _CONTACTS.update(self._queries, _contact_row(contact))


class GuestOrders:
    """Orders without an account behind them."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def add(self, order: GuestOrder) -> None:
        """Store an order, unless it is known."""
        await _GUEST_ORDERS.insert_new(self._queries, asdict(order))

    async def get(self, order_id: UUID) -> GuestOrder | None:
        """Read an order; None if it is not known, or an account's."""
        row = await self._queries.fetchrow("SELECT * FROM guest_orders WHERE order_id = $1", order_id)
        return GuestOrder(**row) if row else None

    async def hand_over(self, order_id: UUID, user_id: UUID) -> None:
        """Let an order be a user's, if it is known."""
        await self._queries.execute(
            "UPDATE guest_orders SET user_id = $2 WHERE order_id = $1", order_id, user_id
        )

    async def forget(self, user_id: UUID) -> None:
        """Forget the orders of a user."""
        await self._queries.execute("DELETE FROM guest_orders WHERE user_id = $1", user_id)


class Parcels:
    """Parcels that carriers have booked."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def add(self, parcel: Parcel) -> None:
        """Store a parcel, or what is said of it anew."""
        await _PARCELS.upsert(self._queries, asdict(parcel))

    async def get(self, shipment_id: UUID) -> Parcel | None:
        """Read a parcel, if it is known."""
        row = await self._queries.fetchrow("SELECT * FROM parcels WHERE shipment_id = $1", shipment_id)
        return Parcel(**row) if row else None


class Notifications:
    """What was told, and is to be told; one for an event and a channel."""

    def __init__(self, queries: Queries, outbox: Outbox) -> None:
        self._queries = queries
        self._outbox = outbox

    async def add(self, notifications: Iterable[Notification]) -> Sequence[Notification]:
        """Store new notifications unless there is one for the event and the channel; return those stored."""
        return [
            notification
            for notification in notifications
            if await _NOTIFICATIONS.insert_new(self._queries, _row(notification), "(cause_id, channel)")
        ]

    async def lock(self, notification_id: UUID) -> Notification:
        """Read a notification, which nobody else changes until the transaction ends."""
        row = await self._queries.fetchrow(
            "SELECT * FROM notifications WHERE notification_id = $1 FOR UPDATE", notification_id
        )
        assert row is not None, "notifications are never deleted"
        return _notification(row)

    async def save(self, notification: Notification) -> None:
        """Store a changed notification, and publish its events."""
        await _NOTIFICATIONS.update(self._queries, _row(notification))
        self._outbox.collect(notification)

    async def end(self, notification: Notification) -> None:
        """Store how a notification has ended, unless it had before, and publish its events."""
        ended = await self._queries.execute(
            _END,
            notification.notification_id,
            notification.status,
            notification.provider,
            notification.failure,
            notification.updated_at,
        )
        if ended == "UPDATE 1":
            self._outbox.collect(notification)

    async def tells(self, order_id: UUID, template: Template) -> bool:
        """Whether something is told of an order with a template."""
        found: bool = await self._queries.fetchval(
            "SELECT EXISTS (SELECT FROM notifications WHERE order_id = $1 AND template = $2)",
            order_id,
            template,
        )
        return found

    async def hand_over(self, order_id: UUID, user_id: UUID) -> None:
        """Let what was told of an order have been told to a user."""
        await self._queries.execute(
            "UPDATE notifications SET user_id = $2 WHERE order_id = $1", order_id, user_id
        )

    async def pending_of(self, user_id: UUID) -> Sequence[Notification]:
        """Read what is still to be told to a user, locked."""
        rows = await self._queries.fetch(
            """
            SELECT * FROM notifications WHERE user_id = $1 AND status = 'pending'
            ORDER BY notification_id FOR UPDATE
            """,
            user_id,
        )
        return [_notification(row) for row in rows]


class NotificationReader:
    """Reads outside of a transaction, from a replica what may lag."""

    def __init__(self, queries: Queries, lagging: Reads) -> None:
        self._queries = queries
        self._lagging = lagging

    async def contact(self, user_id: UUID) -> Contact | None:
        """Read how a user is reached, if anything is known."""
        return await Contacts(self._queries).get(user_id)

    async def list(self, user_id: UUID, before: UUID | None, limit: int) -> Sequence[Notification]:
        """Read what a user was told or will be, the newest first; `before`: only older than this one.

        May lag behind by seconds: nobody has just written it.
        """
        rows = await self._lagging.fetch(
            """
            SELECT * FROM notifications
            WHERE user_id = $1 AND ($2::uuid IS NULL OR notification_id < $2) AND status <> 'suppressed'
            ORDER BY notification_id DESC LIMIT $3
            """,
            user_id,
            before,
            limit,
        )
        return [_notification(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Notifications that are still to be delivered.

    One that is taken up is left alone for `lease`, which is longer than an attempt may take.
    """

    database: Database
    backoff: Backoff
    lease: timedelta

    async def claim_due(self, now: datetime, limit: int) -> Sequence[Notification]:
        """Take at most `limit` that are due, so that nobody else takes them meanwhile."""
        rows = await _DUE.claim(self.database, now, limit, self.backoff, self.lease)
        return [_notification(row) for row in rows]

    async def next_due(self) -> datetime | None:
        """Return when the next falls due; None if nothing is to be delivered."""
        return await _DUE.next_due(self.database)

    async def put_off(self, notification: Notification, until: datetime) -> None:
        """Let one fall due at another time, unless it has ended meanwhile.

        With that it is known that none of its attempts has delivered it.
        """
        await self.database.execute(_PUT_OFF, notification.notification_id, until)


def open_tx(connection: asyncpg.Connection, outbox: Outbox) -> ports.Tx:
    """Put the repositories on the connection of a transaction."""
    return ports.Tx(
        Contacts(connection), GuestOrders(connection), Parcels(connection), Notifications(connection, outbox)
    )


def _contact_row(contact: Contact) -> dict[str, Any]:
    wanted = contact.preferences
    return {
        "user_id": contact.user_id,
        "email": contact.email,
        "email_as_of": contact.email_as_of,
        "first_name": contact.first_name,
        "locale": contact.locale,
        "profile_as_of": contact.profile_as_of,
        "by_email": wanted.email,
        "by_sms": wanted.sms,
        "by_push": wanted.push,
        "of_orders": wanted.orders,
        "of_shipping": wanted.shipping,
        "of_marketing": wanted.marketing,
        "phone_number": wanted.phone_number,
        "push_token": wanted.push_token,
        "erased_at": contact.erased_at,
    }


def _contact(row: asyncpg.Record) -> Contact:
    return Contact(
        user_id=row["user_id"],
        email=row["email"],
        email_as_of=row["email_as_of"],
        first_name=row["first_name"],
        locale=row["locale"],
        profile_as_of=row["profile_as_of"],
        preferences=Preferences(
            email=row["by_email"],
            sms=row["by_sms"],
            push=row["by_push"],
            orders=row["of_orders"],
            shipping=row["of_shipping"],
            marketing=row["of_marketing"],
            phone_number=row["phone_number"],
            push_token=row["push_token"],
        ),
        erased_at=row["erased_at"],
    )


def _row(notification: Notification) -> dict[str, Any]:
    return {
        "notification_id": notification.notification_id,
        "cause_id": notification.cause_id,
        "channel": notification.channel,
        "template": notification.template,
        "user_id": notification.user_id,
        "order_id": notification.order_id,
        "facts": notification.facts,
        "recipient": asdict(notification.recipient) if notification.recipient else None,
        "subject": notification.subject,
        "status": notification.status,
        "provider": notification.provider,
        "failure": notification.failure,
        "correlation_id": notification.correlation_id,
        "expires_at": notification.expires_at,
        "shipment_id": notification.shipment_id,
        "attempts": notification.attempts,
        "concluded": notification.concluded,
        "due_at": notification.due_at,
        "created_at": notification.created_at,
        "updated_at": notification.updated_at,
    }


def _notification(row: asyncpg.Record) -> Notification:
    recipient: Mapping[str, Any] | None = row["recipient"]
    values = dict(row) | {
        "channel": Channel(row["channel"]),
        "template": Template(row["template"]),
        "status": Status(row["status"]),
        "recipient": Recipient(**recipient) if recipient else None,
    }
    return Notification(**values)
