"""What is told to whom, once, whatever comes late, twice or out of order, and whatever providers do."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from stoa_chassis.avro import Event
from stoa_chassis.context import bound
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.memory import MemoryStore
from stoa_chassis.testing import SettableClock, eventually
from stoa_events import (
    InventoryLowStock,
    NotificationSent,
    UserEmailVerified,
    UserErased,
    UserProfileUpdated,
)
from stoa_notification import testing
from stoa_notification.model import Channel, ContactErased, Notification, Preferences, Status, Template
from stoa_notification.ports import NotTaken, Refused
from stoa_notification.service import Delivery, Notifications
from stoa_notification.testing import FakeProvider

from . import examples
from .conftest import STAFF
from .examples import event

Store = MemoryStore[testing.Rows]
EVERYTHING = Preferences(
    email=True, sms=True, push=True, phone_number="+4930123456", push_token="device", marketing=True
)


@pytest.fixture
def user_id() -> UUID:
    return uuid4()


@pytest.fixture
async def ada(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, user_id: UUID, store: Store
) -> UUID:
    """A user who has an account, and was welcomed."""
    await notifications.on_user_registered(event(examples.registered(user_id)))
    await delivery.due.work_off()
    mail.taken.clear()
    store.published.clear()
    return user_id


def stored(store: Store, template: Template, channel: Channel = Channel.EMAIL) -> Notification:
    (found,) = (
        each
        for each in store.rows.notifications.values()
        if (each.template, each.channel) == (template, channel)
    )
    return found


async def ship(notifications: Notifications, user_id: UUID) -> None:
    """A parcel is booked, and on its way then."""
    shipment_id = uuid4()
    await notifications.on_shipment_created(event(examples.shipment_created(user_id, shipment_id)))
    scanned = examples.shipment_status(user_id, "in_transit", shipment_id)
    await notifications.on_shipment_status_updated(event(scanned))


async def later(delivery: Delivery, clock: SettableClock, **time: float) -> None:
    clock.advance(**time)
    await delivery.due.work_off()


async def test_who_opens_an_account_is_welcomed(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, user_id: UUID
) -> None:
    await notifications.on_user_registered(event(examples.registered(user_id, locale="de")))
    await delivery.due.work_off()
    (message,) = mail.taken
    assert (message.address, message.name) == ("ada@mail.test", "Ada")
    assert message.content.subject == "Willkommen bei The Shop"


async def test_a_confirmed_order_is_mailed_with_its_items_and_its_total(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, ada: UUID, store: Store
) -> None:
    confirmed = event(examples.confirmed(ada))
    with bound(confirmed.correlation_id):
        await notifications.on_order_confirmed(confirmed)
    await delivery.due.work_off()
    (message,) = mail.taken
    for said in ("Desk <XL>", "3 × An item: $37.50", "Items: $286.50", "tax: $14.10", "Total: $300.60"):
        assert said in message.content.text
    assert "Desk &lt;XL&gt;" in message.content.html
    assert f"https://shop.test/orders/{confirmed.payload.order_id}" in message.content.text
    (sent,) = store.payloads(NotificationSent)
    assert sent == NotificationSent(
        notification_id=message.notification_id,
        user_id=ada,
        template="order_confirmed",
        kind="orders",
        channel="email",
        provider="mail",
        cause_id=confirmed.event_id,
        sent_at=sent.sent_at,
    )
    assert store.published[0].correlation_id == confirmed.correlation_id


OrderEvent = Callable[[UUID], Any]


@pytest.mark.parametrize(
    ("use_case", "example", "subject"),
    [
        ("on_order_cancelled", examples.cancelled, "is cancelled"),
        ("on_order_delivered", examples.delivered, "is there"),
        ("on_return_requested", examples.return_requested, "return request"),
        ("on_return_decided", examples.return_decided, "You can send it back"),
        ("on_order_returned", examples.returned, "is here"),
        ("on_payment_failed", examples.payment_failed, "could not be paid"),
        ("on_payment_refunded", examples.refunded, "$10.00 is on its way back"),
    ],
)
async def test_what_becomes_of_an_order_is_mailed_once(
    notifications: Notifications,
    delivery: Delivery,
    mail: FakeProvider,
    ada: UUID,
    use_case: str,
    example: OrderEvent,
    subject: str,
) -> None:
    happened = event(example(ada))
    handle: Callable[[Event[Any]], Awaitable[None]] = getattr(notifications, use_case)
    await handle(happened)
    await delivery.due.work_off()
    with pytest.raises(AlreadyProcessed):
        await handle(happened)
    await delivery.due.work_off()
    (message,) = mail.taken
    assert subject in message.content.subject
    assert message.content.html
    assert message.content.text


async def test_an_order_that_could_not_be_paid_is_not_said_to_be_cancelled_as_well(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, ada: UUID, store: Store
) -> None:
    failed = examples.payment_failed(ada)
    await notifications.on_payment_failed(event(failed))
    await notifications.on_order_cancelled(event(replace(examples.cancelled(ada), order_id=failed.order_id)))
    await delivery.due.work_off()
    (message,) = mail.taken
    assert "could not be paid" in message.content.subject
    assert stored(store, Template.ORDER_CANCELLED).failure == "told_already"


async def test_an_event_that_comes_again_is_told_once_even_if_nobody_noted_that_it_was_handled(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, ada: UUID, store: Store
) -> None:
    confirmed = event(examples.confirmed(ada))
    await notifications.on_order_confirmed(confirmed)
    await delivery.due.work_off()
    store.inbox = frozenset()  # as after a week
    await notifications.on_order_confirmed(confirmed)
    await delivery.due.work_off()
    assert len(mail.taken) == 1


async def test_the_mail_of_a_buyer_who_is_not_known_yet_waits_for_her(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, user_id: UUID, clock: SettableClock
) -> None:
    await notifications.on_order_confirmed(event(examples.confirmed(user_id)))
    await delivery.due.work_off()
    await later(delivery, clock, minutes=10)
    assert not mail.taken
    await notifications.on_user_registered(event(examples.registered(user_id)))
    await later(delivery, clock, minutes=2)
    assert sorted(message.content.subject for message in mail.taken)[0] == "Welcome to The Shop"
    assert len(mail.taken) == 2


async def test_a_guest_is_told_at_the_address_of_the_order_whatever_comes_first(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, user_id: UUID, clock: SettableClock
) -> None:
    order_id = uuid4()
    await notifications.on_order_confirmed(event(examples.confirmed(user_id, order_id)))
    await delivery.due.work_off()
    await notifications.on_order_placed(event(examples.placed(user_id, order_id)))
    await later(delivery, clock, minutes=2)
    (message,) = mail.taken
    assert message.address == "guest@mail.test"
    assert "Guten Tag" in message.content.text
    assert "https://shop.test/guest-orders/access" in message.content.text
    assert "account/notifications" not in message.content.text


async def test_an_order_of_an_account_leaves_nothing_behind_when_it_is_placed(
    notifications: Notifications, store: Store, user_id: UUID
) -> None:
    await notifications.on_order_placed(event(examples.placed(user_id, uuid4(), email="")))
    assert store.rows == testing.Rows()


async def test_whom_nobody_ever_gets_to_know_is_given_up(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, user_id: UUID, clock: SettableClock,
    store: Store,
) -> None:  # fmt: skip
    await notifications.on_order_confirmed(event(examples.confirmed(user_id)))
    await later(delivery, clock, hours=25)
    failed = stored(store, Template.ORDER_CONFIRMED)
    assert (failed.status, failed.failure) == (Status.FAILED, "incomplete")
    assert not mail.taken


async def test_who_wants_all_is_told_by_all_channels(
    notifications: Notifications,
    delivery: Delivery,
    mail: FakeProvider,
    sms: FakeProvider,
    push: FakeProvider,
    ada: UUID,
) -> None:
    await notifications.prefer(ada, EVERYTHING)
    await ship(notifications, ada)
    await delivery.due.work_off()
    assert [message.address for message in (*mail.taken, *sms.taken, *push.taken)] == [
        "ada@mail.test",
        "+4930123456",
        "device",
    ]
    assert "https://carrier.test/track/" in sms.taken[0].content.short
    assert len(await notifications.list(ada, None, 10)) == 4  # the welcome is the fourth


@pytest.mark.parametrize("unwanted", [Preferences(email=False), Preferences(orders=False)])
async def test_what_is_not_wanted_is_not_told_and_not_listed(
    notifications: Notifications,
    delivery: Delivery,
    mail: FakeProvider,
    ada: UUID,
    store: Store,
    unwanted: Preferences,
) -> None:
    await notifications.prefer(ada, unwanted)
    await notifications.on_order_confirmed(event(examples.confirmed(ada)))
    await delivery.due.work_off()
    assert not mail.taken
    assert stored(store, Template.ORDER_CONFIRMED).status is Status.SUPPRESSED
    assert len(await notifications.list(ada, None, 10)) == 1  # the welcome


async def test_links_of_the_account_are_mailed_whatever_is_wanted_and_are_forgotten_then(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, ada: UUID, store: Store,
    clock: SettableClock,
) -> None:  # fmt: skip
    await notifications.prefer(ada, Preferences(email=False, orders=False, shipping=False))
    expires_at = clock.now() + timedelta(hours=1)
    await notifications.on_password_reset_requested(event(examples.password_reset(ada, expires_at)))
    await notifications.on_email_verification_requested(event(examples.verification(ada)))
    await delivery.due.work_off()
    reset, verify = mail.taken
    assert "https://shop.test/reset?token=one-time-token" in reset.content.html
    assert reset.content.subject == "Wähle ein neues Passwort"
    assert verify.address == "new@mail.test"
    assert "https://shop.test/verify?token=another-token" in verify.content.text
    assert "token" not in str([each.facts for each in store.rows.notifications.values()])
    assert all(each.recipient is None for each in store.rows.notifications.values())


async def test_a_link_that_has_expired_is_not_mailed_any_more(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, ada: UUID, store: Store,
    clock: SettableClock,
) -> None:  # fmt: skip
    mail.trouble = NotTaken("421")
    expires_at = clock.now() + timedelta(minutes=30)
    await notifications.on_password_reset_requested(event(examples.password_reset(ada, expires_at)))
    await delivery.due.work_off()
    mail.trouble = None
    await later(delivery, clock, minutes=31)
    assert not mail.taken
    assert stored(store, Template.PASSWORD_RESET).failure == "expired"


async def test_an_event_of_last_week_is_not_told(
    notifications: Notifications,
    delivery: Delivery,
    mail: FakeProvider,
    ada: UUID,
    store: Store,
    now: datetime,
) -> None:
    await notifications.on_order_confirmed(event(examples.confirmed(ada), now - timedelta(days=2)))
    await delivery.due.work_off()
    assert not mail.taken
    assert stored(store, Template.ORDER_CONFIRMED).failure == "stale"


# --------------------------------------------------------------------------------------------- providers


async def test_a_provider_that_is_down_is_asked_again_later_and_later(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, ada: UUID, clock: SettableClock
) -> None:
    mail.trouble = NotTaken("ConnectionRefusedError")
    await notifications.on_order_confirmed(event(examples.confirmed(ada)))
    for _ in range(8):
        await later(delivery, clock, seconds=61)
    assert await delivery.due.work_off() == 0, "it was asked a moment ago"
    mail.trouble = None
    await later(delivery, clock, seconds=61)
    await later(delivery, clock, seconds=61)
    assert len(mail.taken) == 1


async def test_what_a_provider_refuses_has_failed(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, ada: UUID, clock: SettableClock,
    store: Store,
) -> None:  # fmt: skip
    mail.trouble = Refused("550")
    await notifications.on_order_confirmed(event(examples.confirmed(ada)))
    await delivery.due.work_off()
    mail.trouble = None
    await later(delivery, clock, hours=1)
    assert not mail.taken
    failed = stored(store, Template.ORDER_CONFIRMED)
    assert (failed.status, failed.failure) == (Status.FAILED, "refused: 550")
    assert not store.payloads(NotificationSent)


async def test_what_could_not_be_delivered_for_a_day_has_failed(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, ada: UUID, clock: SettableClock,
    store: Store,
) -> None:  # fmt: skip
    mail.trouble = NotTaken("421")
    await notifications.on_order_confirmed(event(examples.confirmed(ada)))
    await later(delivery, clock, hours=23)
    assert stored(store, Template.ORDER_CONFIRMED).is_pending
    await later(delivery, clock, hours=2)
    assert stored(store, Template.ORDER_CONFIRMED).failure == "gave_up"


async def test_a_mail_whose_answer_was_lost_is_given_again_as_the_same(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, ada: UUID, clock: SettableClock
) -> None:
    mail.loses_answers = True
    await notifications.on_order_confirmed(event(examples.confirmed(ada)))
    await delivery.due.work_off()
    mail.loses_answers = False
    await later(delivery, clock, minutes=1)
    await later(delivery, clock, minutes=5)
    first, second = mail.taken
    assert first == second


async def test_an_sms_whose_answer_was_lost_is_not_given_again(
    notifications: Notifications, delivery: Delivery, sms: FakeProvider, ada: UUID, clock: SettableClock,
    store: Store,
) -> None:  # fmt: skip
    await notifications.prefer(ada, EVERYTHING)
    sms.loses_answers = True
    await ship(notifications, ada)
    await delivery.due.work_off()
    await later(delivery, clock, minutes=5)
    assert len(sms.taken) == 1
    assert stored(store, Template.ORDER_SHIPPED, Channel.SMS).failure == "outcome_unknown"


async def test_who_dies_between_giving_and_noting_leaves_no_second_sms_and_the_same_mail(
    notifications: Notifications,
    delivery: Delivery,
    mail: FakeProvider,
    sms: FakeProvider,
    ada: UUID,
    clock: SettableClock,
    store: Store,
) -> None:
    await notifications.prefer(ada, EVERYTHING)
    await ship(notifications, ada)
    await delivery.due.work_off()
    # What was noted is lost: as if it had died just before.
    for sent in list(store.rows.notifications.values()):
        if sent.template is Template.ORDER_SHIPPED:
            recipient = {Channel.EMAIL: mail, Channel.SMS: sms}.get(sent.channel, mail).taken[0]
            undone = replace(
                sent,
                status=Status.PENDING,
                due_at=clock.now() + timedelta(seconds=21),
                facts=_shipped_facts(),
                recipient=replace(STAFF, address=recipient.address),
            )
            told = {**store.rows.notifications, sent.notification_id: undone}
            store.rows = replace(store.rows, notifications=told)
    await later(delivery, clock, seconds=22)
    assert len(sms.taken) == 1
    assert stored(store, Template.ORDER_SHIPPED, Channel.SMS).failure == "outcome_unknown"
    first, second = mail.taken
    assert first.notification_id == second.notification_id
    assert stored(store, Template.ORDER_SHIPPED).status is Status.SENT


def _shipped_facts() -> dict[str, str]:
    return {
        "carrier": "ups",
        "tracking_id": "1",
        "tracking_url": "https://carrier.test/",
        "shipping_method": "standard",
        "estimated_delivery": examples.AT.isoformat(),
    }


async def test_a_device_that_is_gone_is_forgotten(
    notifications: Notifications, delivery: Delivery, push: FakeProvider, ada: UUID
) -> None:
    await notifications.prefer(ada, EVERYTHING)
    push.trouble = Refused("UNREGISTERED", address_is_gone=True)
    await ship(notifications, ada)
    await delivery.due.work_off()
    left = await notifications.preferences(ada)
    assert (left.push_token, left.phone_number) == ("", "+4930123456")


async def test_a_phone_number_that_is_gone_is_forgotten_unless_it_is_another_by_now(
    notifications: Notifications, delivery: Delivery, sms: FakeProvider, ada: UUID
) -> None:
    await notifications.prefer(ada, EVERYTHING)
    sms.trouble = Refused("21610", address_is_gone=True)
    await ship(notifications, ada)
    await notifications.prefer(ada, replace(EVERYTHING, phone_number="+4930654321"))
    await delivery.due.work_off()
    assert (await notifications.preferences(ada)).phone_number == "+4930654321"
    await ship(notifications, ada)
    await delivery.due.work_off()
    left = await notifications.preferences(ada)
    assert (left.push_token, left.phone_number) == ("device", "")


async def test_while_it_runs_what_is_new_is_delivered_at_once_and_once(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, ada: UUID, clock: SettableClock,
    store: Store,
) -> None:  # fmt: skip
    running = asyncio.create_task(delivery.due.run())
    await eventually(lambda: delivery.due.has_room)
    confirmed = event(examples.confirmed(ada))
    await notifications.on_order_confirmed(confirmed)
    await eventually(lambda: len(mail.taken) == 1)
    store.inbox = frozenset()
    await notifications.on_order_confirmed(confirmed)
    clock.advance(minutes=1)
    delivery.due.wake()
    await asyncio.sleep(0.05)
    assert len(mail.taken) == 1
    assert stored(store, Template.ORDER_CONFIRMED).status is Status.SENT
    running.cancel()


# ------------------------------------------------------------------------------------------------ contacts


async def test_the_newest_address_counts_whatever_comes_last(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, user_id: UUID, now: datetime
) -> None:
    updated = UserProfileUpdated(
        user_id=user_id, email="new@mail.test", first_name="Augusta", last_name="King", locale="de-AT"
    )
    await notifications.on_profile_updated(event(updated, now))
    await notifications.on_user_registered(event(examples.registered(user_id), now - timedelta(minutes=1)))
    await delivery.due.work_off()
    (message,) = mail.taken
    assert (message.address, message.name) == ("new@mail.test", "Augusta")
    assert "Hallo Augusta" in message.content.text


async def test_an_address_that_was_confirmed_is_where_mail_goes(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, ada: UUID
) -> None:
    await notifications.on_email_verified(event(UserEmailVerified(user_id=ada, email="new@mail.test")))
    await notifications.on_order_confirmed(event(examples.confirmed(ada)))
    await delivery.due.work_off()
    assert [message.address for message in mail.taken] == ["new@mail.test"]


async def test_who_is_erased_is_told_nothing_more_and_nothing_is_kept_of_her(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, ada: UUID, store: Store,
    clock: SettableClock,
) -> None:  # fmt: skip
    await notifications.prefer(ada, EVERYTHING)
    await notifications.on_order_placed(event(examples.placed(ada, uuid4())))
    mail.trouble = NotTaken("421")
    await notifications.on_order_confirmed(event(examples.confirmed(ada)))
    await delivery.due.work_off()
    await notifications.on_user_erased(event(UserErased(user_id=ada)))
    mail.trouble = None
    await notifications.on_user_registered(event(examples.registered(ada)))
    await notifications.on_profile_updated(
        event(UserProfileUpdated(user_id=ada, email="ada@mail.test", first_name="Ada", last_name="L"))
    )
    await notifications.on_email_verified(event(UserEmailVerified(user_id=ada, email="ada@mail.test")))
    await notifications.on_order_cancelled(event(examples.cancelled(ada)))
    await later(delivery, clock, minutes=5)
    assert not mail.taken
    kept = repr([(each, each.recipient, each.facts) for each in store.rows.notifications.values()])
    contact = store.rows.contacts[ada]
    kept += repr((contact.email, contact.first_name, contact.preferences, store.rows.guest_orders))
    for personal in ("ada@mail.test", "Ada", "+4930123456", "guest@mail.test"):
        assert personal not in kept
    with pytest.raises(ContactErased):
        await notifications.prefer(ada, EVERYTHING)


# --------------------------------------------------------------------------------------------------- others


async def test_staff_are_told_what_runs_low(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, store: Store
) -> None:
    low = InventoryLowStock(variant_id=uuid4(), product_id=uuid4(), available=2, threshold=5)
    await notifications.on_low_stock(event(low))
    await delivery.due.work_off()
    (message,) = mail.taken
    assert message.address == STAFF.address
    assert f"https://shop.test/products/{low.product_id}" in message.content.text
    (sent,) = store.payloads(NotificationSent)
    assert (sent.kind, sent.user_id) == ("staff", None)


async def test_a_parcel_is_told_of_when_it_is_on_its_way_with_the_link_that_was_said_before_or_comes_later(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, ada: UUID, clock: SettableClock
) -> None:
    shipment_id = uuid4()
    scanned = examples.shipment_status(ada, "in_transit", shipment_id)
    await notifications.on_shipment_status_updated(event(scanned))
    await delivery.due.work_off()
    assert not mail.taken
    await notifications.on_shipment_created(event(examples.shipment_created(ada, shipment_id)))
    await later(delivery, clock, minutes=2)
    await ship(notifications, ada)
    await delivery.due.work_off()
    for message in mail.taken:
        assert "is on its way" in message.content.subject
        assert "https://carrier.test/track/1Z999AA10123456784" in message.content.html
        assert "Saturday, November 28, 2026" in message.content.text
    assert len(mail.taken) == 2


@pytest.mark.parametrize("status", ["delivered", "returned", "stopped"])
async def test_of_a_parcel_only_what_matters_is_told(
    notifications: Notifications, store: Store, ada: UUID, status: str
) -> None:
    before = store.rows
    await notifications.on_shipment_status_updated(event(examples.shipment_status(ada, status)))
    assert store.rows == before


async def test_a_delayed_parcel_is_mailed_and_one_that_comes_today_is_for_the_phone(
    notifications: Notifications, delivery: Delivery, mail: FakeProvider, push: FakeProvider, ada: UUID
) -> None:
    await notifications.on_shipment_status_updated(event(examples.shipment_status(ada, "exception")))
    await notifications.prefer(ada, EVERYTHING)
    await notifications.on_shipment_status_updated(event(examples.shipment_status(ada, "out_for_delivery")))
    await delivery.due.work_off()
    (delayed,) = mail.taken
    assert "Held by snow (Leipzig)" in delayed.content.text
    (today,) = push.taken
    assert today.content.subject == "Your parcel arrives today"


async def test_preferences_are_the_shops_defaults_until_they_are_chosen(
    notifications: Notifications, user_id: UUID
) -> None:
    assert await notifications.preferences(user_id) == Preferences()
    assert await notifications.prefer(user_id, EVERYTHING) == EVERYTHING
    assert await notifications.preferences(user_id) == EVERYTHING
