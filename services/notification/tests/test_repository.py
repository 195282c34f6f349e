"""What the use cases rely on, of the store in memory and of PostgreSQL alike."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.memory import ConstraintViolated, MemoryStore, memory_unit_of_work
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_chassis.uow import UnitOfWork
from stoa_notification import ports, repository, testing
from stoa_notification.model import (
    Channel,
    Contact,
    GuestOrder,
    Notification,
    Occasion,
    Parcel,
    Preferences,
    Recipient,
    Status,
    Template,
)

from .conftest import BACKOFF, POLICY

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
REFUSED = (ConstraintViolated, asyncpg.IntegrityConstraintViolationError)


@dataclass
class Store:
    """One of the stores, behind the ports."""

    uow: UnitOfWork[ports.Tx]
    reader: ports.NotificationReader
    outgoing: ports.Outgoing
    published: Callable[[], Awaitable[list[str]]]


@pytest.fixture
def in_memory() -> Store:
    store = MemoryStore(testing.Rows())

    async def published() -> list[str]:
        return [event.topic for event in store.published]

    return Store(
        memory_unit_of_work(lambda: store, testing.open_tx),
        testing.NotificationReader(lambda: store),
        testing.Outgoing(lambda: store, BACKOFF, POLICY.lease),
        published,
    )


@pytest.fixture
async def in_postgres(database: Database, codec: EventCodec) -> Store:
    await database.execute("TRUNCATE contacts, guest_orders, parcels, notifications, outbox")

    async def published() -> list[str]:
        return [row["topic"] for row in await database.fetch("SELECT topic FROM outbox ORDER BY id")]

    return Store(
        postgres_unit_of_work(database, codec, repository.open_tx, SystemClock()),
        repository.NotificationReader(database, database),
        repository.Outgoing(database, BACKOFF, POLICY.lease),
        published,
    )


@pytest.fixture(params=["in_memory", pytest.param("in_postgres", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    made: Store = request.getfixturevalue(request.param)
    return made


def a_notification(**changes: Any) -> Notification:
    """A notification of which no field is empty, but those that only an ended one has."""
    occasion = Occasion(
        cause_id=uuid4(),
        template=Template.ORDER_CONFIRMED,
        at=NOW,
        user_id=uuid4(),
        order_id=uuid4(),
        facts={"items": [{"name": "Desk", "quantity": 1}], "approved": True},
        expires_at=NOW + timedelta(hours=1),
        shipment_id=uuid4(),
    )
    recipient = Recipient("ada@mail.test", "Ada", "de", "access")
    notification = Notification.of(occasion, Channel.EMAIL, recipient, "correlation", NOW)
    given = {"subject": "Hello", "provider": "smtp", "failure": "421", "attempts": 2, "concluded": 1}
    for name, value in {**given, **changes}.items():
        setattr(notification, name, value)
    return notification


async def added(store: Store, *notifications: Notification) -> None:
    await store.uow.run(lambda tx: tx.notifications.add(notifications))


async def read(store: Store, notification: Notification) -> Notification:
    return await store.uow.run(lambda tx: tx.notifications.lock(notification.notification_id))


async def test_every_field_of_a_notification_comes_back_as_it_was(store: Store) -> None:
    notification = a_notification()
    assert all(getattr(notification, field.name) for field in fields(notification) if field.compare)
    await added(store, notification)
    assert await read(store, notification) == notification


async def test_of_one_event_and_channel_there_is_one(store: Store) -> None:
    first = a_notification()
    again = replace(a_notification(), cause_id=first.cause_id)
    by_phone = replace(a_notification(), cause_id=first.cause_id, channel=Channel.SMS)
    assert await store.uow.run(lambda tx: tx.notifications.add([first])) == [first]
    assert await store.uow.run(lambda tx: tx.notifications.add([again, by_phone])) == [by_phone]
    assert await read(store, first) == first
    assert await read(store, by_phone) == by_phone
    claimed = await store.outgoing.claim_due(NOW, 10)
    assert {each.notification_id for each in claimed} == {first.notification_id, by_phone.notification_id}


async def test_what_was_sent_is_published_with_it_and_keeps_nothing_personal(store: Store) -> None:
    notification = a_notification()
    await added(store, notification)

    async def send(tx: ports.Tx) -> None:
        sent = replace(notification, events=[])
        sent.sent("smtp", NOW)
        await tx.notifications.end(sent)

    await store.uow.run(send)
    await store.uow.run(send)
    sent = await read(store, notification)
    assert (sent.status, sent.recipient, sent.facts, sent.due_at) == (Status.SENT, None, {}, None)
    assert await store.published() == ["notification.sent"]


async def test_what_has_ended_keeps_no_recipient_and_is_not_due(store: Store) -> None:
    for wrong in (
        a_notification(status=Status.SENT, due_at=None),
        a_notification(status=Status.SENT, recipient=None),
        a_notification(due_at=None),
    ):
        with pytest.raises(REFUSED):
            await added(store, wrong)


async def test_a_claim_leaves_others_alone_for_the_lease_and_says_that_it_has_begun(store: Store) -> None:
    notification = a_notification(attempts=0, concluded=0)
    await added(store, notification)
    assert await store.outgoing.next_due() == NOW
    (claimed,) = await store.outgoing.claim_due(NOW, 10)
    assert claimed.attempts == 1
    assert not claimed.outcome_is_unknown
    assert not await store.outgoing.claim_due(NOW + timedelta(seconds=20), 10)
    (again,) = await store.outgoing.claim_due(NOW + timedelta(seconds=22), 10)
    assert again.outcome_is_unknown, "nobody said how the first attempt ended"
    await store.outgoing.put_off(again, NOW + timedelta(minutes=5))
    (third,) = await store.outgoing.claim_due(NOW + timedelta(minutes=5), 10)
    assert not third.outcome_is_unknown


async def test_what_has_ended_is_not_put_off(store: Store) -> None:
    notification = a_notification()
    await added(store, notification)

    async def give_up(tx: ports.Tx) -> None:
        locked = await tx.notifications.lock(notification.notification_id)
        locked.fail("gave_up", NOW)
        await tx.notifications.save(locked)

    await store.uow.run(give_up)
    await store.outgoing.put_off(notification, NOW)
    assert await store.outgoing.next_due() is None


async def test_a_users_are_listed_the_newest_first_without_what_was_suppressed(store: Store) -> None:
    user_id = uuid4()
    mine = [a_notification(user_id=user_id) for _ in range(3)]
    suppressed = a_notification(user_id=user_id)
    suppressed.suppress("unwanted", NOW)
    await added(store, *mine, suppressed, a_notification())
    assert await store.reader.list(user_id, None, 2) == [mine[2], mine[1]]
    assert await store.reader.list(user_id, mine[1].notification_id, 2) == [mine[0]]
    pending = await store.uow.run(lambda tx: tx.notifications.pending_of(user_id))
    assert sorted(each.notification_id for each in pending) == [each.notification_id for each in mine]


async def test_a_guests_order_is_handed_over_with_what_was_told_of_it(store: Store) -> None:
    told, user_id = a_notification(), uuid4()
    assert told.order_id
    assert told.user_id
    order = GuestOrder(
        order_id=told.order_id,
        user_id=told.user_id,
        email="guest@mail.test",
        locale="de",
        access_token="secret",
    )
    await added(store, told)

    async def hand_over(tx: ports.Tx) -> GuestOrder | None:
        await tx.guest_orders.add(order)
        await tx.guest_orders.add(replace(order, email="another@mail.test"))
        assert await tx.guest_orders.get(order.order_id) == order
        await tx.guest_orders.hand_over(order.order_id, user_id)
        await tx.notifications.hand_over(order.order_id, user_id)
        assert await tx.notifications.tells(order.order_id, Template.ORDER_CONFIRMED)
        assert not await tx.notifications.tells(order.order_id, Template.ORDER_CANCELLED)
        assert not await tx.notifications.tells(uuid4(), Template.ORDER_CONFIRMED)
        await tx.guest_orders.forget(order.user_id)
        return await tx.guest_orders.get(order.order_id)

    assert await store.uow.run(hand_over) == replace(order, user_id=user_id)
    assert [each.notification_id for each in await store.reader.list(user_id, None, 9)] == [
        told.notification_id
    ]

    async def forget(tx: ports.Tx) -> GuestOrder | None:
        await tx.guest_orders.forget(user_id)
        return await tx.guest_orders.get(order.order_id)

    assert await store.uow.run(forget) is None


async def test_a_parcel_is_what_was_said_of_it_last(store: Store) -> None:
    parcel = Parcel(shipment_id=uuid4(), tracking_url="https://carrier.test/1", estimated_delivery=NOW)
    later = replace(parcel, tracking_url="https://other.test/1", estimated_delivery=NOW + timedelta(days=1))

    async def add(tx: ports.Tx) -> Parcel | None:
        assert await tx.parcels.get(parcel.shipment_id) is None
        await tx.parcels.add(parcel)
        assert await tx.parcels.get(parcel.shipment_id) == parcel
        await tx.parcels.add(later)
        return await tx.parcels.get(parcel.shipment_id)

    assert await store.uow.run(add) == later


async def test_every_field_of_a_contact_comes_back_as_it_was(store: Store) -> None:
    contact = Contact(
        user_id=uuid4(),
        email="ada@mail.test",
        email_as_of=NOW,
        first_name="Ada",
        locale="de",
        profile_as_of=NOW + timedelta(seconds=1),
        preferences=Preferences(
            email=False,
            sms=True,
            push=True,
            orders=False,
            shipping=False,
            marketing=True,
            phone_number="+4930123456",
            push_token="device",
        ),
    )
    assert await store.reader.contact(contact.user_id) is None

    async def save(tx: ports.Tx) -> Contact:
        new = await tx.contacts.lock(contact.user_id)
        await tx.contacts.save(contact)
        return new

    assert await store.uow.run(save) == Contact(user_id=contact.user_id)
    assert await store.reader.contact(contact.user_id) == contact
    assert all(
        getattr(contact.preferences, field.name) != getattr(Preferences(), field.name)
        for field in fields(Preferences)
    )


async def test_of_who_was_erased_nothing_can_be_kept(store: Store) -> None:
    contact = Contact(user_id=uuid4(), email="ada@mail.test", erased_at=NOW)

    async def save(tx: ports.Tx) -> None:
        await tx.contacts.lock(contact.user_id)
        await tx.contacts.save(contact)

    with pytest.raises(REFUSED):
        await store.uow.run(save)
    contact.erase(NOW)
    await store.uow.run(save)
    assert await store.reader.contact(contact.user_id) == contact
