"""Notifications: what the shop tells whom by which channel, once for each event.

An event that is told of becomes an `Occasion`, and that one `Notification` for each channel that its
recipient wants. A notification falls due until a provider has taken it, or until it is given up. Whom an
occasion is for may be known only later, since events of accounts and of orders come in any order: then its
notification waits.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self, TypeAlias
from uuid import UUID

from stoa_chassis.errors import NotFound
from stoa_chassis.ids import new_id
from stoa_events import NotificationSent

Facts: TypeAlias = Mapping[str, Any]
"""What a template tells beyond its recipient, as JSON has it."""


class ContactErased(NotFound):
    """The account was erased, and nothing is kept of the person any more."""

    reason = "CONTACT_ERASED"


class Channel(StrEnum):
    """A way to reach somebody."""

    EMAIL = "email"
    SMS = "sms"
    PUSH = "push"


class Kind(StrEnum):
    """What notifications are about, as preferences tell them apart."""

    ACCOUNT = "account"  # transactional: sent whatever the preferences say
    ORDERS = "orders"
    SHIPPING = "shipping"
    MARKETING = "marketing"
    STAFF = "staff"


class Status(StrEnum):
    """Where a notification stands."""

    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"
    SUPPRESSED = "suppressed"  # its recipient does not want it, or must not get it any more


class Template(StrEnum):
    """What is told; the templates of the texts have these names."""

    WELCOME = "welcome"
    VERIFY_EMAIL = "verify_email"
    PASSWORD_RESET = "password_reset"
    EMAIL_CHANGE = "email_change"
    PASSWORD_CHANGED = "password_changed"
    ORDER_CONFIRMED = "order_confirmed"
    ORDER_CANCELLED = "order_cancelled"
    PAYMENT_FAILED = "payment_failed"
    ORDER_SHIPPED = "order_shipped"
    OUT_FOR_DELIVERY = "out_for_delivery"
    PARCEL_DELAYED = "parcel_delayed"
    ORDER_DELIVERED = "order_delivered"
    RETURN_REQUESTED = "return_requested"
    RETURN_DECIDED = "return_decided"
    RETURN_RECEIVED = "return_received"
    REFUND_MADE = "refund_made"
    LOW_STOCK = "low_stock"


@dataclass(frozen=True, slots=True)
class Rule:
    """Of which kind a template is, and by which channels it may go."""

    kind: Kind
    channels: tuple[Channel, ...]


_MAIL = (Channel.EMAIL,)
_MAIL_AND_PUSH = (Channel.EMAIL, Channel.PUSH)
_ALL = (Channel.EMAIL, Channel.SMS, Channel.PUSH)
RULES: Mapping[Template, Rule] = {
    Template.WELCOME: Rule(Kind.ACCOUNT, _MAIL),
    Template.VERIFY_EMAIL: Rule(Kind.ACCOUNT, _MAIL),
    Template.PASSWORD_RESET: Rule(Kind.ACCOUNT, _MAIL),
    Template.EMAIL_CHANGE: Rule(Kind.ACCOUNT, _MAIL),
    Template.PASSWORD_CHANGED: Rule(Kind.ACCOUNT, _MAIL),
    Template.ORDER_CONFIRMED: Rule(Kind.ORDERS, _MAIL_AND_PUSH),
    Template.ORDER_CANCELLED: Rule(Kind.ORDERS, _MAIL_AND_PUSH),
    Template.PAYMENT_FAILED: Rule(Kind.ORDERS, _MAIL_AND_PUSH),
    Template.ORDER_SHIPPED: Rule(Kind.SHIPPING, _ALL),
    Template.OUT_FOR_DELIVERY: Rule(Kind.SHIPPING, (Channel.SMS, Channel.PUSH)),
    Template.PARCEL_DELAYED: Rule(Kind.SHIPPING, _ALL),
    Template.ORDER_DELIVERED: Rule(Kind.SHIPPING, _ALL),
    Template.RETURN_REQUESTED: Rule(Kind.ORDERS, _MAIL),
    Template.RETURN_DECIDED: Rule(Kind.ORDERS, _MAIL_AND_PUSH),
    Template.RETURN_RECEIVED: Rule(Kind.ORDERS, _MAIL),
    Template.REFUND_MADE: Rule(Kind.ORDERS, _MAIL_AND_PUSH),
    Template.LOW_STOCK: Rule(Kind.STAFF, _MAIL),
}

LOCALES = ("en", "de")
"""The languages that there are templates in; the first is spoken where another is asked for."""


def known_locale(locale: str) -> str:
    """Return the language of a locale such as de-AT, if there are templates in it, else the first one."""
    language = locale.replace("_", "-").partition("-")[0].lower()
    return language if language in LOCALES else LOCALES[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """What somebody wants to be told, by which channels, and where these other than mail reach them."""

    email: bool = True
    sms: bool = False
    push: bool = False
    orders: bool = True
    shipping: bool = True
    marketing: bool = False
    phone_number: str = field(default="", repr=False)
    push_token: str = field(default="", repr=False)

    def want(self, kind: Kind, channel: Channel) -> bool:
        """Tell whether something of a kind may be told by a channel. What is about the account always may."""
        if kind is Kind.ACCOUNT or kind is Kind.STAFF:
            return True
        by_channel = {Channel.EMAIL: self.email, Channel.SMS: self.sms, Channel.PUSH: self.push}
        of_kind = {Kind.ORDERS: self.orders, Kind.SHIPPING: self.shipping, Kind.MARKETING: self.marketing}
        return by_channel[channel] and of_kind[kind]


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who is told: where a channel reaches them, how they are called, which language they read.

    `access_token` lets a guest follow an order without an account.
    """

    address: str = field(repr=False)
    name: str = field(default="", repr=False)
    locale: str = LOCALES[0]
    access_token: str = field(default="", repr=False)


@dataclass(slots=True, kw_only=True)
class Contact:
    """How a user is reached. Events of accounts come in any order: each part knows as of when it is true."""

    user_id: UUID
    email: str = field(default="", repr=False)
    email_as_of: datetime | None = None
    first_name: str = field(default="", repr=False)
    locale: str = LOCALES[0]
    profile_as_of: datetime | None = None
    preferences: Preferences = Preferences()
    erased_at: datetime | None = None

    def know(self, *, email: str, first_name: str, locale: str, at: datetime) -> None:
        """Take over an account as it was at a time, unless later news was taken over."""
        self.know_email(email, at)
        if self.erased_at is None and _is_later(at, self.profile_as_of):
            self.first_name, self.locale, self.profile_as_of = first_name, known_locale(locale), at

    def know_email(self, email: str, at: datetime) -> None:
        """Take over where mail reached them at a time, unless later news was taken over."""
        if self.erased_at is None and _is_later(at, self.email_as_of):
            self.email, self.email_as_of = email, at

    def prefer(self, preferences: Preferences) -> None:
        """Replace the preferences. Raises ContactErased."""
        if self.erased_at is not None:
            raise ContactErased("the account was erased")
        self.preferences = preferences

    def forget_address(self, channel: Channel, address: str) -> None:
        """Forget where messages by a channel went, unless they go elsewhere by now.

        Where mail goes is up to the account.
        """
        if channel is Channel.PUSH and self.preferences.push_token == address:
            self.preferences = replace(self.preferences, push_token="")
        elif channel is Channel.SMS and self.preferences.phone_number == address:
            self.preferences = replace(self.preferences, phone_number="")

    def erase(self, at: datetime) -> None:
        """Keep nothing of the person but when they were forgotten, so that late events bring nobody back."""
        self.email = self.first_name = ""
        self.locale, self.preferences, self.erased_at = LOCALES[0], Preferences(), at

    def reached_by(self, channel: Channel) -> Recipient | None:
        """Return the recipient for a channel; None if it is not known how to reach them by it."""
        address = {
            Channel.EMAIL: self.email,
            Channel.SMS: self.preferences.phone_number,
            Channel.PUSH: self.preferences.push_token,
        }[channel]
        return Recipient(address, self.first_name, self.locale) if address else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestOrder:
    """An order without an account behind it, and where mail about it goes."""

    order_id: UUID
    user_id: UUID
    email: str = field(repr=False)
    locale: str
    access_token: str = field(repr=False)

    @property
    def recipient(self) -> Recipient:
        """Who is told about the order."""
        return Recipient(self.email, "", self.locale, self.access_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A parcel that a carrier has booked: where the carrier shows it, and when it should be there."""

    shipment_id: UUID
    tracking_url: str
    estimated_delivery: datetime

    @property
    def facts(self) -> Facts:
        """What is told of it."""
        return {"tracking_url": self.tracking_url, "estimated_delivery": self.estimated_delivery.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """Something to tell: which event it is about, what it says, and whom it concerns.

    `recipient` is only there if the event itself says it, `expires_at` if telling it later is of no use, and
    `shipment_id` if the parcel's facts belong to it, which another event says.
    """

    cause_id: UUID
    template: Template
    at: datetime
    user_id: UUID | None = None
    order_id: UUID | None = None
    facts: Facts = field(default_factory=dict, repr=False)
    recipient: Recipient | None = None
    expires_at: datetime | None = None
    shipment_id: UUID | None = None

    @property
    def rule(self) -> Rule:
        """What its template may do."""
        return RULES[self.template]


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How long it is tried to deliver something.

    An event that is older than `tell_within` is not told of any more: a consumer group that is new reads all
    that its topics still have. What could not be delivered for `give_up_after` has failed. `lease` is longer
    than an attempt may take.
    """

    tell_within: timedelta
    give_up_after: timedelta
    lease: timedelta


@dataclass(slots=True, kw_only=True)
class Notification:
    """Something that is told to somebody by one channel. Its methods decide and record `events`.

    `recipient` is None while it is not known whom it is for, `shipment_id` is that of a parcel of which the
    facts are not known yet. What it tells, and the address, are kept until
    it has ended only: they may hold a one-time token. `concluded` is the number of attempts whose outcome is
    known: the attempt before, if there was one and it is not among them, may have been delivered.
    """

    notification_id: UUID
    cause_id: UUID
    channel: Channel
    template: Template
    user_id: UUID | None
    order_id: UUID | None
    facts: Facts = field(repr=False)
    recipient: Recipient | None
    subject: str
    status: Status
    correlation_id: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    shipment_id: UUID | None = None
    provider: str = ""
    failure: str = ""
    attempts: int = 0
    concluded: int = 0
    due_at: datetime | None = None
    events: list[NotificationSent] = field(default_factory=list, compare=False)

    @classmethod
    def of(
        cls,
        occasion: Occasion,
        channel: Channel,
        recipient: Recipient | None,
        correlation_id: str,
        now: datetime,
    ) -> Self:
        """Begin to tell of an occasion by a channel."""
        return cls(
            notification_id=new_id(),
            cause_id=occasion.cause_id,
            channel=channel,
            template=occasion.template,
            user_id=occasion.user_id,
            order_id=occasion.order_id,
            facts=occasion.facts,
            recipient=recipient,
            subject="",
            status=Status.PENDING,
            correlation_id=correlation_id,
            created_at=now,
            updated_at=now,
            expires_at=occasion.expires_at,
            shipment_id=occasion.shipment_id,
            due_at=now,
        )

    @property
    def kind(self) -> Kind:
        """What it is about."""
        return RULES[self.template].kind

    @property
    def is_pending(self) -> bool:
        """Whether it is still to be delivered."""
        return self.status is Status.PENDING

    @property
    def is_complete(self) -> bool:
        """Whether all is known that is needed to put it into words."""
        return self.recipient is not None and self.shipment_id is None

    @property
    def outcome_is_unknown(self) -> bool:
        """Whether the attempt before this one may have delivered it: nobody noted how it ended."""
        return self.attempts - 1 > self.concluded

    def address_to(self, contact: Contact | None, guest: GuestOrder | None) -> None:
        """Take over whom it is for, if that is known by now, and whether they want it."""
        if contact is not None and contact.erased_at is not None:
            self.suppress("erased", contact.erased_at)
        elif contact is not None and not contact.preferences.want(self.kind, self.channel):
            self.suppress("unwanted", self.updated_at)
        else:
            self.recipient = _recipient(self.channel, contact, guest)

    def claim(self, policy: DeliveryPolicy, now: datetime) -> None:
        """Leave the first attempt to who stores it."""
        self.attempts, self.due_at = 1, now + policy.lease

    def describe(self, parcel: Parcel | None) -> None:
        """Take over what is known of its parcel by now."""
        if parcel is not None:
            self.facts, self.shipment_id = {**self.facts, **parcel.facts}, None

    def sent(self, provider: str, now: datetime) -> None:
        """Take over that a provider took it."""
        self._end(Status.SENT, now)
        self.provider = provider
        self.events.append(
            NotificationSent(
                notification_id=self.notification_id,
                user_id=self.user_id,
                template=self.template,
                kind=self.kind,
                channel=self.channel,
                provider=provider,
                cause_id=self.cause_id,
                sent_at=now,
            )
        )

    def fail(self, why: str, now: datetime) -> None:
        """Give it up. `why` is a word or a code of the provider, never what it says of the recipient."""
        self._end(Status.FAILED, now)
        self.failure = why

    def suppress(self, why: str, now: datetime) -> None:
        """Don't send it."""
        self._end(Status.SUPPRESSED, now)
        self.failure = why

    def too_late(self, policy: DeliveryPolicy, now: datetime) -> str:
        """Return why it must not be sent any more; "" if it may."""
        if self.expires_at is not None and now >= self.expires_at:
            return "expired"
        return "gave_up" if now - self.created_at >= policy.give_up_after else ""

    def _end(self, status: Status, now: datetime) -> None:
        self.status, self.updated_at, self.due_at = status, now, None
        self.facts, self.recipient = {}, None


def notifications(
    occasion: Occasion,
    contact: Contact | None,
    guest: GuestOrder | None,
    channels: Collection[Channel],
    correlation_id: str,
    policy: DeliveryPolicy,
    now: datetime,
) -> Iterator[Notification]:
    """Begin to tell of an occasion, by those of the shop's channels that its recipient wants.

    What is not wanted by mail is noted as suppressed, so that each event has an answer to why nothing came.
    """
    for channel in occasion.rule.channels:
        if channel not in channels:
            continue
        recipient = occasion.recipient or _recipient(channel, contact, guest)
        if channel is not Channel.EMAIL and (recipient is None or not _wanted(occasion, channel, contact)):
            continue
        notification = Notification.of(occasion, channel, recipient, correlation_id, now)
        if now - occasion.at >= policy.tell_within:
            notification.suppress("stale", now)
        elif occasion.recipient is None:
            notification.address_to(contact, guest)
        yield notification


def _wanted(occasion: Occasion, channel: Channel, contact: Contact | None) -> bool:
    return contact is not None and contact.preferences.want(occasion.rule.kind, channel)


def _recipient(channel: Channel, contact: Contact | None, guest: GuestOrder | None) -> Recipient | None:
    """An account's address comes before the one that a guest gave, who may have got an account since."""
    found = contact.reached_by(channel) if contact is not None else None
    if found is None and guest is not None and channel is Channel.EMAIL:
        return guest.recipient
    return found


def _is_later(at: datetime, known: datetime | None) -> bool:
    return known is None or at > known
