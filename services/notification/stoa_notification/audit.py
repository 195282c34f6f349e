"""The books of the notification service as the audit reads them, and what must hold of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from stoa_chassis.audit import Finding, Waiting

NOTED = (
    "user.registered",
    "user.profile_updated",
    "user.email_verified",
    "user.email_verification_requested",
    "user.password_reset_requested",
    "user.email_change_requested",
    "user.password_changed",
    "user.erased",
    "order.buyer_changed",
    "order.confirmed",
    "order.cancelled",
    "order.delivered",
    "order.returned",
    "order.return_requested",
    "order.return_decided",
    "shipment.created",
    "payment.failed",
    "payment.refunded",
    "inventory.low_stock",
)
"""Not those of which only some are noted: order.placed of guests, shipment.status_updated if it is told."""

_NEVER_TOLD = (
    "user.profile_updated",
    "user.email_verified",
    "user.erased",
    "order.buyer_changed",
    "shipment.created",
)
TOLD = tuple(topic for topic in NOTED if topic not in _NEVER_TOLD)
"""The topics of which each event is told of by mail, or noted as suppressed."""

_NOTIFICATIONS = """
SELECT notification_id, cause_id, order_id, template, channel, status, provider, failure, created_at
FROM notifications
"""
_WAITING = """
SELECT order_id, 'the provider of ' || channel AS waits_for, created_at AS since, attempts, due_at AS next_ask
FROM notifications WHERE due_at IS NOT NULL AND order_id IS NOT NULL
"""
_DELIVERED_WITHIN = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Notification:
    """Something that was told, or is to be. `created_at` is when the shop began to tell it."""

    notification_id: UUID
    cause_id: UUID
    order_id: UUID | None
    template: str
    channel: str
    status: str
    provider: str
    failure: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Books:
    """All notifications, as they were at a time."""

    notifications: Sequence[Notification]
    at: datetime


async def read(connection: asyncpg.Connection) -> Books:
    """Read the books as they are at one moment. A connection that may only read is enough."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows = await connection.fetch(_NOTIFICATIONS)
        return Books([Notification(**row) for row in rows], await connection.fetchval("SELECT now()"))


def findings(books: Books) -> Iterator[Finding]:
    """Check the books. While something goes on it may be on its way; it must not stay so."""
    for notification in books.notifications:
        subject = f"{notification.template} {notification.notification_id}"
        look = f"stoa logs notification | grep {notification.notification_id}"
        if notification.status == "pending" and books.at - notification.created_at > _DELIVERED_WITHIN:
            yield Finding("every notification is delivered", subject, "still to be delivered", look)
        if notification.status == "failed" and not notification.failure.startswith("refused"):
            detail = f"{notification.channel} failed: {notification.failure}"
            yield Finding("every notification is delivered", subject, detail, look)
    told = Counter((each.order_id, each.template, each.channel) for each in books.notifications)
    for (order_id, template, channel), count in told.items():
        if order_id is not None and template in _ONCE and count > 1:
            detail = f"{template} by {channel} {count} times, of as many events"
            yield Finding("an order is told of once", f"order {order_id}", detail, "the table notifications")


_ONCE = ("order_confirmed", "order_cancelled", "order_delivered", "order_shipped")


async def waiting(connection: asyncpg.Connection) -> Sequence[Waiting]:
    """What is still to be told of orders."""
    return [Waiting(**row) for row in await connection.fetch(_WAITING)]
