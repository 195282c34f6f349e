"""Who is told what by which channel, and what becomes of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from stoa_notification.model import (
    RULES,
    Channel,
    Contact,
    ContactErased,
    DeliveryPolicy,
    GuestOrder,
    Kind,
    Notification,
    Occasion,
    Parcel,
    Preferences,
    Recipient,
    Status,
    Template,
    known_locale,
    notifications,
)

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLICY = DeliveryPolicy(timedelta(days=2), timedelta(days=1), timedelta(minutes=1))
GUEST = GuestOrder(
    order_id=uuid4(), user_id=uuid4(), email="guest@mail.test", locale="de", access_token="secret"
)
ALL = Preferences(sms=True, push=True, phone_number="+4930123456", push_token="device")


def an_occasion(template: Template = Template.ORDER_DELIVERED, at: datetime = NOW) -> Occasion:
    return Occasion(
        cause_id=uuid4(), template=template, at=at, user_id=GUEST.user_id, order_id=GUEST.order_id
    )


def a_contact(preferences: Preferences = ALL, email: str = "ada@mail.test") -> Contact:
    return Contact(user_id=GUEST.user_id, email=email, first_name="Ada", preferences=preferences)


def a_notification(occasion: Occasion | None = None) -> Notification:
    return Notification.of(occasion or an_occasion(), Channel.EMAIL, Recipient("a@mail.test"), "c", NOW)


def told(
    occasion: Occasion, contact: Contact | None = None, guest: GuestOrder | None = None, now: datetime = NOW
) -> list[Notification]:
    return [*notifications(occasion, contact, guest, [*Channel], "c", POLICY, now)]


def test_what_may_go_by_which_channel_is_one_table() -> None:
    mail, mail_and_push = (Channel.EMAIL,), (Channel.EMAIL, Channel.PUSH)
    every, phone = (Channel.EMAIL, Channel.SMS, Channel.PUSH), (Channel.SMS, Channel.PUSH)
    assert {template: (rule.kind, rule.channels) for template, rule in RULES.items()} == {
        "welcome": (Kind.ACCOUNT, mail),
        "verify_email": (Kind.ACCOUNT, mail),
        "password_reset": (Kind.ACCOUNT, mail),
        "email_change": (Kind.ACCOUNT, mail),
        "password_changed": (Kind.ACCOUNT, mail),
        "order_confirmed": (Kind.ORDERS, mail_and_push),
        "order_cancelled": (Kind.ORDERS, mail_and_push),
        "payment_failed": (Kind.ORDERS, mail_and_push),
        "order_shipped": (Kind.SHIPPING, every),
        "out_for_delivery": (Kind.SHIPPING, phone),
        "parcel_delayed": (Kind.SHIPPING, every),
        "order_delivered": (Kind.SHIPPING, every),
        "return_requested": (Kind.ORDERS, mail),
        "return_decided": (Kind.ORDERS, mail_and_push),
        "return_received": (Kind.ORDERS, mail),
        "refund_made": (Kind.ORDERS, mail_and_push),
        "low_stock": (Kind.STAFF, mail),
    }


def test_who_chooses_nothing_is_mailed_about_orders_and_parcels() -> None:
    shop = Preferences()
    assert (shop.email, shop.sms, shop.push) == (True, False, False)
    assert (shop.orders, shop.shipping, shop.marketing) == (True, True, False)
    assert (shop.phone_number, shop.push_token) == ("", "")


@pytest.mark.parametrize("kind", [Kind.ORDERS, Kind.SHIPPING, Kind.MARKETING])
@pytest.mark.parametrize("channel", [*Channel])
def test_each_kind_and_each_channel_is_wanted_by_its_own(kind: Kind, channel: Channel) -> None:
    every: dict[str, Any] = dict.fromkeys(("email", "sms", "push", "orders", "shipping", "marketing"), True)
    none: dict[str, Any] = dict.fromkeys(every, False)
    assert Preferences(**{**none, str(kind): True, str(channel): True}).want(kind, channel)
    assert not Preferences(**{**every, str(kind): False}).want(kind, channel)
    assert not Preferences(**{**every, str(channel): False}).want(kind, channel)


@pytest.mark.parametrize("kind", [Kind.ACCOUNT, Kind.STAFF])
def test_what_an_account_or_staff_has_to_know_is_told_whatever_they_want(kind: Kind) -> None:
    assert Preferences(email=False, orders=False, shipping=False).want(kind, Channel.EMAIL)


def test_a_person_is_not_written_into_logs() -> None:
    occasion = replace(an_occasion(), facts={"token": "secret"}, recipient=Recipient("ada@mail.test", "Ada"))
    notification = Notification.of(occasion, Channel.EMAIL, Recipient("ada@mail.test", "Ada"), "c", NOW)
    written = f"{a_contact()} {GUEST} {occasion} {notification}"
    for personal in ("ada@mail.test", "guest@mail.test", "'Ada'", "+4930123456", "device", "secret"):
        assert personal not in written


def test_of_a_user_who_is_not_known_yet_nothing_is_known() -> None:
    contact = Contact(user_id=uuid4())
    assert (contact.email, contact.first_name, contact.locale) == ("", "", "en")
    assert [contact.reached_by(channel) for channel in Channel] == [None, None, None]


def test_each_channel_reaches_somebody_where_it_can() -> None:
    reached = [a_contact().reached_by(channel) for channel in Channel]
    assert reached == [
        Recipient(address, "Ada", "en", "") for address in ("ada@mail.test", "+4930123456", "device")
    ]


@pytest.mark.parametrize("seconds", [-1, 0])
def test_what_is_no_later_than_what_is_known_changes_nothing(seconds: int) -> None:
    contact = Contact(user_id=uuid4())
    contact.know(email="new@mail.test", first_name="New", locale="de-AT", at=NOW)
    contact.know(email="old@mail.test", first_name="Old", locale="en", at=NOW + timedelta(seconds=seconds))
    assert (contact.email, contact.first_name, contact.locale) == ("new@mail.test", "New", "de")
    contact.know_email("newest@mail.test", NOW + SECOND)
    assert contact.email == "newest@mail.test"


def test_of_who_was_erased_only_that_is_kept() -> None:
    contact = a_contact()
    contact.locale = "de"
    contact.erase(NOW)
    contact.know(email="late@mail.test", first_name="Late", locale="de", at=NOW + SECOND)
    assert contact == Contact(user_id=GUEST.user_id, erased_at=NOW)
    with pytest.raises(ContactErased):
        contact.prefer(ALL)


@pytest.mark.parametrize(
    ("channel", "known", "left"),
    [
        (Channel.PUSH, ALL.push_token, replace(ALL, push_token="")),
        (Channel.SMS, ALL.phone_number, replace(ALL, phone_number="")),
        (Channel.EMAIL, "buyer@mail.test", ALL),
    ],
)
def test_where_messages_went_is_forgotten_unless_they_go_elsewhere_by_now(
    channel: Channel, known: str, left: Preferences
) -> None:
    contact = a_contact()
    contact.forget_address(channel, "an older one")
    assert contact.preferences == ALL
    contact.forget_address(channel, known)
    assert contact.preferences == left


def test_a_guest_is_told_by_mail_alone_also_if_an_account_wants_more() -> None:
    assert [(each.channel, each.recipient) for each in told(an_occasion(), guest=GUEST)] == [
        (Channel.EMAIL, Recipient("guest@mail.test", "", "de", "secret"))
    ]
    without_addresses = a_contact(Preferences(sms=True, push=True), email="")
    (mail,) = told(an_occasion(), without_addresses, GUEST)
    assert (mail.channel, mail.recipient) == (Channel.EMAIL, GUEST.recipient)


def test_an_account_is_told_where_it_is_reached_before_the_guest_that_it_was() -> None:
    mail, sms, push = told(an_occasion(), a_contact(), GUEST)
    assert [each.channel for each in (mail, sms, push)] == [*Channel]
    assert mail.recipient == Recipient("ada@mail.test", "Ada")


def test_an_unwanted_mail_is_noted_and_other_channels_are_left_alone() -> None:
    (mail,) = told(an_occasion(), a_contact(Preferences(email=False)))
    assert (mail.status, mail.failure, mail.due_at) == (Status.SUPPRESSED, "unwanted", None)


def test_a_channel_that_is_not_wanted_is_left_alone_though_it_would_reach_them() -> None:
    found = told(an_occasion(), a_contact(replace(ALL, sms=False)))
    assert [each.channel for each in found] == [Channel.EMAIL, Channel.PUSH]


def test_an_occasion_that_says_itself_whom_it_is_for_is_told_by_mail_alone_while_nobody_is_known() -> None:
    occasion = replace(an_occasion(), recipient=Recipient("ada@mail.test"))
    assert [(each.channel, each.recipient) for each in told(occasion)] == [
        (Channel.EMAIL, Recipient("ada@mail.test"))
    ]


@pytest.mark.parametrize(("age", "status"), [(SECOND, "pending"), (timedelta(), "suppressed")])
def test_an_event_is_told_of_until_it_is_too_old(age: timedelta, status: str) -> None:
    (mail, *_) = told(an_occasion(at=NOW), a_contact(), now=NOW + POLICY.tell_within - age)
    assert (mail.status, mail.failure) == (status, "" if status == "pending" else "stale")


def test_only_channels_that_the_shop_has_are_used() -> None:
    found = [*notifications(an_occasion(), a_contact(), None, [Channel.PUSH], "c", POLICY, NOW)]
    assert [each.channel for each in found] == [Channel.PUSH]


def test_a_new_notification_is_due_at_once_with_all_that_its_occasion_says() -> None:
    occasion = replace(an_occasion(), facts={"a": 1}, expires_at=NOW + SECOND, shipment_id=uuid4())
    found = Notification.of(occasion, Channel.SMS, None, "c", NOW)
    assert found == Notification(
        notification_id=found.notification_id,
        cause_id=occasion.cause_id,
        channel=Channel.SMS,
        template=Template.ORDER_DELIVERED,
        user_id=occasion.user_id,
        order_id=occasion.order_id,
        facts={"a": 1},
        recipient=None,
        subject="",
        status=Status.PENDING,
        correlation_id="c",
        created_at=NOW,
        updated_at=NOW,
        expires_at=NOW + SECOND,
        shipment_id=occasion.shipment_id,
        provider="",
        failure="",
        attempts=0,
        concluded=0,
        due_at=NOW,
    )
    assert (found.is_pending, found.is_complete, found.kind) == (True, False, Kind.SHIPPING)


def test_it_is_complete_with_its_recipient_and_its_parcel() -> None:
    parcel = Parcel(shipment_id=uuid4(), tracking_url="https://ups.test/1", estimated_delivery=NOW)
    found = a_notification(replace(an_occasion(), facts={"a": 1}, shipment_id=parcel.shipment_id))
    found.describe(None)
    assert not found.is_complete
    found.describe(parcel)
    assert found.facts == {
        "a": 1,
        "tracking_url": "https://ups.test/1",
        "estimated_delivery": NOW.isoformat(),
    }
    assert found.is_complete
    found.recipient = None
    assert not found.is_complete


def test_the_outcome_of_an_attempt_is_unknown_until_it_is_noted() -> None:
    found = a_notification()
    found.claim(POLICY, NOW)
    assert (found.attempts, found.due_at) == (1, NOW + POLICY.lease)
    assert not found.outcome_is_unknown
    found.attempts = 2
    assert found.outcome_is_unknown
    found.concluded = 1
    assert not found.outcome_is_unknown


def test_what_was_sent_is_told_and_nothing_of_its_recipient_is_kept() -> None:
    found = a_notification(replace(an_occasion(), facts={"a": 1}))
    found.sent("ses", NOW + SECOND)
    assert (found.status, found.provider, found.updated_at, found.due_at) == (
        Status.SENT,
        "ses",
        NOW + SECOND,
        None,
    )
    assert (found.facts, found.recipient, found.is_pending) == ({}, None, False)
    (event,) = found.events
    assert (event.notification_id, event.user_id, event.cause_id) == (
        found.notification_id,
        found.user_id,
        found.cause_id,
    )
    assert (event.template, event.kind, event.channel) == ("order_delivered", "shipping", "email")
    assert (event.provider, event.sent_at) == ("ses", NOW + SECOND)


@pytest.mark.parametrize("status", [Status.FAILED, Status.SUPPRESSED])
def test_what_is_not_sent_keeps_why_and_nothing_of_its_recipient(status: Status) -> None:
    found = a_notification()
    end = found.fail if status is Status.FAILED else found.suppress
    end("why", NOW + SECOND)
    assert (found.status, found.failure, found.updated_at, found.due_at) == (
        status,
        "why",
        NOW + SECOND,
        None,
    )
    assert (found.recipient, found.events) == (None, [])


def test_it_is_given_up_in_the_end_or_when_it_is_of_no_use_any_more() -> None:
    found = a_notification()
    assert found.too_late(POLICY, NOW + POLICY.give_up_after - SECOND) == ""
    assert found.too_late(POLICY, NOW + POLICY.give_up_after) == "gave_up"
    found.expires_at = NOW + SECOND
    assert found.too_late(POLICY, NOW) == ""
    assert found.too_late(POLICY, NOW + SECOND) == "expired"


@pytest.mark.parametrize(
    ("contact", "status", "failure", "ended_at"),
    [
        (a_contact(), Status.PENDING, "", NOW),
        (a_contact(Preferences(shipping=False)), Status.SUPPRESSED, "unwanted", NOW),
        (
            Contact(user_id=GUEST.user_id, erased_at=NOW + SECOND),
            Status.SUPPRESSED,
            "erased",
            NOW + SECOND,
        ),
        (None, Status.PENDING, "", NOW),
    ],
)
def test_it_is_addressed_when_its_recipient_is_known_and_wants_it(
    contact: Contact | None, status: Status, failure: str, ended_at: datetime
) -> None:
    found = a_notification()
    found.recipient = None
    found.address_to(contact, None)
    assert (found.status, found.failure, found.updated_at) == (status, failure, ended_at)
    known = contact is not None and status is Status.PENDING
    assert found.recipient == (Recipient("ada@mail.test", "Ada", "en") if known else None)


@pytest.mark.parametrize(
    ("locale", "language"), [("de-AT", "de"), ("DE_ch", "de"), ("en-GB", "en"), ("fr-FR", "en"), ("", "en")]
)
def test_a_locale_is_answered_in_its_language_if_there_are_texts_in_it(locale: str, language: str) -> None:
    assert known_locale(locale) == language
