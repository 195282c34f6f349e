"""Shipments: when an order's goods are sent, who carries them, and what became of them.

A shipment begins with whatever is heard first of its order: that it was confirmed, that it was paid, or that
it is not to be sent. It is sent when the first two came, in either order, unless the third did.

A carrier is asked in two steps. It books, which gives a label and a tracking number, and promises nothing: a
booking is collected only once it was confirmed. So several carriers may be asked in turn while none answers;
the first whose booking comes wins, it alone is ever confirmed, and the bookings of the others are voided,
whenever they turn up. From then on the carrier's scan decides: until the first the booking can be voided,
after it the parcel is under way.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self
from uuid import UUID

from stoa_chassis.errors import (
    FailedPrecondition,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from stoa_chassis.ids import new_id
from stoa_contracts.money import Money
from stoa_events import ShipmentCreated, ShipmentStatusUpdated


class ShipmentNotFound(NotFound):
    """The order has no shipment (yet), or it is another's."""

    reason = "SHIPMENT_NOT_FOUND"


class ShipmentUnderWay(FailedPrecondition):
    """The carrier has the parcel: it can't be stopped any more."""

    reason = "SHIPMENT_UNDER_WAY"


class NoLabel(FailedPrecondition):
    """No carrier has booked the parcel, or the booking was voided: there is nothing to print."""

    reason = "NO_LABEL"


class CarrierSilent(Unavailable):
    """The carrier does not answer; try again."""

    reason = "CARRIER_SILENT"


class BadSignature(Unauthenticated):
    """A notice was not signed by the carrier, or too long ago."""

    reason = "BAD_SIGNATURE"


class Method(StrEnum):
    """How fast."""

    STANDARD = "standard"
    EXPRESS = "express"


class Status(StrEnum):
    """Where a shipment stands; one after the other, as far as it goes."""

    WAITING = "waiting"
    """For the rest of what lets it be sent: no shipment yet, to others."""

    PENDING = "pending"
    CREATED = "created"
    IN_TRANSIT = "in_transit"
    EXCEPTION = "exception"
    OUT_FOR_DELIVERY = "out_for_delivery"
    DELIVERED = "delivered"
    RETURNED = "returned"
    STOPPED = "stopped"


_FAIR_ATTEMPTS = 2
_LONGEST_PROBLEM = 300  # characters: a carrier may say more than anyone reads
_CLOCKS_DIFFER = timedelta(days=1)  # a carrier may tell local times for universal ones
_ORDER = {status: place for place, status in enumerate(Status)}
_CLOSED = frozenset({Status.DELIVERED, Status.RETURNED, Status.STOPPED})
_ARRIVALS = frozenset({Status.DELIVERED, Status.EXCEPTION, Status.RETURNED})
# What a scan may make of a shipment: it only goes forward, but for the trouble that passes.
_NEXT: Mapping[Status, frozenset[Status]] = {
    Status.CREATED: frozenset({Status.IN_TRANSIT, Status.OUT_FOR_DELIVERY}) | _ARRIVALS,
    Status.IN_TRANSIT: frozenset({Status.OUT_FOR_DELIVERY}) | _ARRIVALS,
    Status.OUT_FOR_DELIVERY: _ARRIVALS,
    Status.EXCEPTION: frozenset(
        {Status.IN_TRANSIT, Status.OUT_FOR_DELIVERY, Status.DELIVERED, Status.RETURNED}
    ),
}
SCANNED = frozenset().union(*_NEXT.values())
"""The statuses that a carrier's scan can give."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a parcel goes; `country` is ISO 3166-1 alpha-2."""

    recipient: str
    line1: str
    line2: str
    city: str
    region: str
    postal_code: str
    country: str

    def without_person(self) -> "Address":
        """Return what of it says nothing of a person: the country."""
        return Address("", "", "", "", "", "", self.country)


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is sent where, and how: what a carrier is told of it. `value` is for the customs."""

    method: Method
    destination: Address
    weight_grams: int
    value: Money


@dataclass(frozen=True, slots=True)
class TrackingEvent:
    """A line of a shipment's history: the status that it gave, what happened for people, where, and when."""

    status: Status
    description: str
    location: str
    at: datetime


def credible(scans: Iterable[TrackingEvent], now: datetime) -> tuple[TrackingEvent, ...]:
    """Leave out what is said to have happened in the future: the carrier's clock is wrong.

    It would make all that the carrier says after it older than that, and hold the parcel for ever.
    """
    return tuple(scan for scan in scans if scan.at <= now + _CLOCKS_DIFFER)


def in_order(events: Iterable[TrackingEvent]) -> tuple[TrackingEvent, ...]:
    """Return the oldest first; of what a carrier says of the same moment, what leads to the rest."""
    return tuple(sorted(events, key=lambda event: (event.at, _ORDER[event.status])))


@dataclass(frozen=True, slots=True)
class Label:
    """What a carrier answers to a booking."""

    tracking_id: str
    tracking_url: str
    estimated_delivery: datetime


@dataclass(frozen=True, slots=True)
class Notice:
    """What a carrier told us unasked: scans of a shipment; None if it is none of ours."""

    shipment_id: UUID | None
    scans: Sequence[TrackingEvent]


class BookingStatus(StrEnum):
    """Where a carrier's booking stands."""

    ASKED = "asked"
    """The carrier may have booked, or not: it was asked and has not answered."""

    BOOKED = "booked"
    """It is the shipment's."""

    CONFIRMED = "confirmed"
    """It is the shipment's, and is collected."""

    REFUSED = "refused"
    """The carrier does not carry it."""

    UNWANTED = "unwanted"
    """If there is one, it is to be voided."""

    VOIDED = "voided"
    """There is none, and none that could be collected."""


@dataclass(frozen=True, slots=True)
class Booking:
    """What became of asking one carrier, and since when it is so."""

    carrier: str
    status: BookingStatus
    at: datetime


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long what a carrier has not answered is left to one attempt, and to that carrier.

    `lease` is longer than an attempt may take. When a carrier has not booked within `takeover`, the next is
    asked as well. What all refuse is asked again after `reconsider`.
    """

    lease: timedelta
    takeover: timedelta
    reconsider: timedelta


@dataclass(slots=True, kw_only=True)
class Shipment:
    """What is sent of an order: one parcel. Its methods decide and record `events`.

    `carrier` and `label` are those of the booking that won. `stopping` is whether it is to be stopped and the
    carrier has not said yet whether it still can be. `problem` says what keeps it from being sent. `erased`
    is whether its buyer's account was: her address is forgotten when nothing needs it any more. `revision` is
    what its store knows this state by; None if it can't tell whether it is still so.
    """

    shipment_id: UUID
    order_id: UUID
    status: Status
    correlation_id: str
    created_at: datetime
    updated_at: datetime
    user_id: UUID | None = None
    parcel: Parcel | None = None
    paid: bool = False
    carrier: str = ""
    label: Label | None = None
    stopping: bool = False
    problem: str = ""
    erased: bool = False
    bookings: tuple[Booking, ...] = ()
    history: tuple[TrackingEvent, ...] = ()
    attempts: int = 0
    due_at: datetime | None = None
    revision: object = field(default=None, compare=False)
    events: list[ShipmentCreated | ShipmentStatusUpdated] = field(default_factory=list, compare=False)

    @classmethod
    def begin(cls, order_id: UUID, correlation_id: str, now: datetime) -> Self:
        """Begin the shipment of an order of which something was heard."""
        return cls(
            shipment_id=new_id(),
            order_id=order_id,
            status=Status.WAITING,
            correlation_id=correlation_id,
            created_at=now,
            updated_at=now,
        )

    # ----------------------------------------------------------------------------------- what orders say

    def on_order_confirmed(
        self, user_id: UUID, parcel: Parcel, carriers: Sequence[str], now: datetime
    ) -> None:
        """Know what is to be sent to whom, by the first of `carriers` that can."""
        if self.parcel is None and self.status is Status.WAITING:
            self.user_id, self.parcel = self.user_id or user_id, parcel
            self.updated_at = now
            self._begin_if_ready(carriers, now)

    def on_payment_successful(self, carriers: Sequence[str], now: datetime) -> None:
        """Know that it is paid for."""
        if not self.paid:
            self.paid = True
            self.updated_at = now
            self._begin_if_ready(carriers, now)

    def on_buyer_changed(self, user_id: UUID, now: datetime) -> None:
        """Know that a guest has an account now, also before anything else is known of the order."""
        self.user_id, self.updated_at = user_id, now

    def on_user_erased(self, now: datetime) -> None:
        """Know that the buyer's account was erased: forget her once the parcel is there."""
        self.erased = True
        self.updated_at = now
        self._forget_if_over()

    def stop(self, now: datetime) -> None:
        """Send nothing: at once if no carrier can have collected it, else its carrier has to be asked.

        Then it is `stopping`. Raises ShipmentUnderWay.
        """
        match self.status:
            case Status.WAITING | Status.PENDING:
                self._stop(now)
            case Status.CREATED:
                if not self.stopping:
                    self.stopping, self.attempts = True, 0
                    self._plan(now, now)
            case Status.STOPPED:
                return
            case _:
                raise ShipmentUnderWay("the carrier has the parcel", metadata={"status": self.status})

    def claim(self, retry: RetryPolicy, now: datetime) -> bool:
        """Leave what is due to whoever stores it, until the lease lapses; tell whether anything is."""
        if self.due_at is None or self.due_at > now:
            return False
        self.attempts, self.due_at = self.attempts + 1, now + retry.lease
        return True

    @property
    def is_visible(self) -> bool:
        """Whether there is a shipment to others: its order was confirmed and paid."""
        return self.parcel is not None and self.status is not Status.WAITING

    # --------------------------------------------------------------------------------- what carriers say

    @property
    def asking(self) -> str | None:
        """The carrier that is asked to book now; None if none is."""
        asked = [each.carrier for each in self.bookings if each.status is BookingStatus.ASKED]
        return asked[-1] if asked and self.status is Status.PENDING else None

    @property
    def to_confirm(self) -> bool:
        """Whether its carrier is to be told that the booking holds."""
        return self._booking(self.carrier) is BookingStatus.BOOKED and not self.stopping

    @property
    def to_void(self) -> Sequence[str]:
        """The carriers that are to make sure that they collect nothing; the one that matters most first."""
        unwanted = [each.carrier for each in self.bookings if each.status is BookingStatus.UNWANTED]
        return [self.carrier, *unwanted] if self.stopping else unwanted

    @property
    def is_followed(self) -> bool:
        """Whether its carrier may have news of it."""
        return self.status in _NEXT and not self.to_confirm and not self.stopping

    def is_overdue(self, retry: RetryPolicy, now: datetime) -> bool:
        """Tell whether the carrier that is asked has had its time, so that another is to be asked as well.

        It was asked several times by then: if nobody asked, the silence is not its own.
        """
        asked_at = next((each.at for each in self.bookings if each.carrier == self.asking), now)
        return self.attempts > _FAIR_ATTEMPTS and now - asked_at >= retry.takeover

    def ask_next(self, carriers: Sequence[str], now: datetime) -> None:
        """Ask the next of `carriers` to book, and the first after the last, but none that has refused.

        Whoever was asked until now may still answer first.
        """
        self._ask(self._willing(carriers)[0], now, now)

    def on_booked(self, carrier: str, label: Label, retry: RetryPolicy, now: datetime) -> None:
        """Take over a carrier's booking, if it is the first; what comes too late is not wanted."""
        if carrier == self.carrier:
            return
        if self.status is not Status.PENDING:
            self._note(carrier, BookingStatus.UNWANTED, now)
            self._plan(self.due_at, now)
            return
        assert self.user_id is not None
        assert self.parcel is not None
        self._note(carrier, BookingStatus.BOOKED, now)
        self._give_up_asking(now)
        self.carrier, self.label, self.problem, self.attempts = carrier, label, "", 0
        self._become(TrackingEvent(Status.CREATED, "The label was made.", "", now))
        # Whoever took it over goes on to confirm it: nobody else need, unless that one dies.
        self.due_at, self.updated_at = now + retry.lease, now
        self.events.append(
            ShipmentCreated(
                shipment_id=self.shipment_id,
                order_id=self.order_id,
                user_id=self.user_id,
                carrier=carrier,
                tracking_id=label.tracking_id,
                tracking_url=label.tracking_url,
                shipping_method=self.parcel.method,
                estimated_delivery=label.estimated_delivery,
            )
        )

    def on_refused(
        self, carrier: str, why: str, carriers: Sequence[str], retry: RetryPolicy, now: datetime
    ) -> None:
        """Ask the next carrier instead of one that does not carry it.

        If none does, a person has to look; they are all asked again after a while.
        """
        if self.asking != carrier:
            return
        self._note(carrier, BookingStatus.REFUSED, now)
        self.problem = f"{carrier}: {why}"[:_LONGEST_PROBLEM]
        if willing := self._willing(carriers):
            self._ask(willing[0], now, now)
        else:
            self.bookings = ()
            self._ask(carriers[0], now + retry.reconsider, now)

    def on_confirmed(self, carrier: str, next_look: datetime, now: datetime) -> None:
        """Know that the carrier will collect it, and when to look for news that it did not tell."""
        if self._booking(carrier) is BookingStatus.BOOKED:
            self._note(carrier, BookingStatus.CONFIRMED, now)
            self.attempts = 0
            self._plan(next_look, now)

    def on_voided(self, carrier: str, now: datetime) -> None:
        """Know that nothing will be collected by a carrier."""
        if self._booking(carrier) is BookingStatus.VOIDED:
            return
        self._note(carrier, BookingStatus.VOIDED, now)
        if carrier == self.carrier and self.status is Status.CREATED:
            self._stop(now)
        else:
            self._plan(self.due_at, now)

    def on_under_way(self, carrier: str, now: datetime) -> None:
        """Know that the carrier has the parcel, so that it can't be voided; its scans will tell the rest."""
        if carrier == self.carrier and self.stopping:
            self.stopping = False
            self._note(carrier, BookingStatus.CONFIRMED, now)
            self._plan(now, now)

    def on_scanned(
        self, carrier: str, scans: Iterable[TrackingEvent], next_look: datetime, now: datetime
    ) -> bool:
        """Take over what the carrier has scanned; tell whether anything was new.

        What comes again, late or out of order fills the history and turns nothing back.
        """
        if carrier != self.carrier or self.status is Status.STOPPED:
            return False
        fresh = in_order(set(scans) - set(self.history))
        for scan in fresh:
            if scan.status in _NEXT.get(self.status, ()) and not self._is_old(scan):
                self._become(scan)
                self._publish(scan)
            else:
                self._remember(scan)
        if fresh:
            # A parcel that is scanned was collected, whatever became of the answer that should have said so.
            self._note(carrier, BookingStatus.CONFIRMED, now)
            self.stopping, self.attempts = False, 0
            self._plan(next_look, now)
        return bool(fresh)

    # ------------------------------------------------------------------------------------------ in between

    def _begin_if_ready(self, carriers: Sequence[str], now: datetime) -> None:
        if self.status is Status.WAITING and self.parcel is not None and self.paid:
            self.status = Status.PENDING
            self.created_at = now
            self._ask(carriers[0], now, now)

    def _stop(self, now: datetime) -> None:
        was_created = self.status is Status.CREATED
        stopped = TrackingEvent(Status.STOPPED, "It is not sent.", "", now)
        self._become(stopped)
        self.stopping, self.problem, self.attempts = False, "", 0
        self._give_up_asking(now)
        if was_created:
            self._publish(stopped)
        self._plan(None, now)

    def _willing(self, carriers: Sequence[str]) -> Sequence[str]:
        """Return those that have not refused, in the order in which they are asked after the last one."""
        refused = {each.carrier for each in self.bookings if each.status is BookingStatus.REFUSED}
        last = self.bookings[-1].carrier
        after = carriers.index(last) + 1 if last in carriers else 0
        return [each for each in (*carriers[after:], *carriers[:after]) if each not in refused]

    def _ask(self, carrier: str, at: datetime, now: datetime) -> None:
        self.bookings = (
            *(each for each in self.bookings if each.carrier != carrier),
            Booking(carrier, BookingStatus.ASKED, at),
        )
        self.attempts = 0
        self.due_at, self.updated_at = at, now

    def _give_up_asking(self, now: datetime) -> None:
        for booking in self.bookings:
            if booking.status is BookingStatus.ASKED:
                self._note(booking.carrier, BookingStatus.UNWANTED, now)

    def _plan(self, next_look: datetime | None, now: datetime) -> None:
        """Fall due for what is to be done at once, else for a look at what the carrier does, if it does."""
        if self.to_void:
            self.due_at = now
        else:
            self.due_at = None if self.status in _CLOSED else next_look
        self.updated_at = now
        self._forget_if_over()

    def _forget_if_over(self) -> None:
        if self.erased and self.parcel is not None and self.status in _CLOSED and not self.to_void:
            self.parcel = replace(self.parcel, destination=self.parcel.destination.without_person())

    def _booking(self, carrier: str) -> BookingStatus | None:
        return next((each.status for each in self.bookings if each.carrier == carrier), None)

    def _note(self, carrier: str, status: BookingStatus, now: datetime) -> None:
        """Keep what became of asking a carrier; whoever was asked last stands last."""
        noted = Booking(carrier, status, now)
        known = self._booking(carrier)
        if known is None:
            self.bookings = (noted, *self.bookings)
        elif known is not status:
            self.bookings = tuple(noted if each.carrier == carrier else each for each in self.bookings)

    def _become(self, event: TrackingEvent) -> None:
        self.status = event.status
        self._remember(event)

    def _remember(self, event: TrackingEvent) -> None:
        self.history = in_order((*self.history, event))

    def _is_old(self, scan: TrackingEvent) -> bool:
        return any(each.status in SCANNED and each.at > scan.at for each in self.history)

    def _publish(self, event: TrackingEvent) -> None:
        assert self.user_id is not None
        assert self.label is not None
        self.events.append(
            ShipmentStatusUpdated(
                shipment_id=self.shipment_id,
                order_id=self.order_id,
                user_id=self.user_id,
                carrier=self.carrier,
                tracking_id=self.label.tracking_id,
                status=event.status,
                description=event.description,
                location=event.location,
                at=event.at,
            )
        )
