"""The stores of shipping and the carriers in memory, for tests of use cases and for the model check; see
`stoa_chassis.memory`.

The stores refuse what the constraints of the migrations refuse. One suite, tests/test_repository.py, runs on
these and on PostgreSQL.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from stoa_chassis.due import Backoff
from stoa_chassis.memory import MemoryStore
from stoa_chassis.outbox import Outbox
from stoa_shipping import ports
from stoa_shipping.model import (
    BadSignature,
    Label,
    Notice,
    Shipment,
    ShipmentNotFound,
    Status,
    TrackingEvent,
)

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
_SHIPMENT = [each.name for each in fields(Shipment) if each.compare]


@dataclass(frozen=True, slots=True)
class Weight:
    """What one of a variant weighs, as a version of its product says."""

    variant_id: UUID
    grams: int
    version: int


@dataclass(frozen=True)
class Rows:
    """What the shipping service keeps. A row is the values of an entity: immutable, and can be compared."""

    shipments: tuple[Row, ...] = ()
    weights: tuple[Weight, ...] = ()
    erased_users: frozenset[UUID] = frozenset()


def shipment_row(shipment: Shipment) -> Row:
    """Turn a shipment into a row."""
    return tuple(getattr(shipment, name) for name in _SHIPMENT)


def shipment_of(row: Row) -> Shipment:
    """Turn a row into a shipment."""
    return Shipment(**dict(zip(_SHIPMENT, row, strict=True)), revision=row)


# Where a repository finds its rows: the view of a transaction, or the store for a statement outside of one.
Open = Callable[[], MemoryStore[Rows]]


class Shipments:
    """The shipments, in a transaction; one for an order."""

    def __init__(self, store: Open, outbox: Outbox) -> None:
        self._store = store
        self._outbox = outbox

    async def begin(self, shipment: Shipment) -> Shipment:
        """Store a new shipment unless its order has one, and return the one that it has.

        Nobody else may change that until the transaction ends. It is erased if the account of the user of the
        new one was.
        """
        store = self._store()
        is_erased = shipment.user_id in store.rows.erased_users
        if known := _of_order(store, shipment.order_id):
            known.erased |= is_erased
            return known
        begun = replace(shipment, erased=shipment.erased or is_erased, events=[])
        _check(store, begun)
        row = begun.revision = shipment_row(begun)
        store.rows = replace(store.rows, shipments=(*store.rows.shipments, row))
        return begun

    async def of_user(self, user_id: UUID) -> Sequence[Shipment]:
        """Read a user's shipments, which nobody else may change until the transaction ends."""
        return [each for each in _shipments(self._store()) if each.user_id == user_id]

    async def lock(self, shipment_id: UUID) -> Shipment:
        """Read a shipment that nobody else may change until the transaction ends. Raises ShipmentNotFound."""
        shipment = _get(self._store(), shipment_id)
        if shipment is None:
            raise ShipmentNotFound("there is no such shipment")
        return shipment

    async def save(self, shipment: Shipment) -> None:
        """Store a changed shipment, and publish its events."""
        store = self._store()
        _check(store, shipment)
        _put(store, shipment)
        shipment.revision = shipment_row(shipment)
        self._outbox.collect(shipment)

    async def save_unless_changed(self, shipment: Shipment) -> bool:
        """Do what `save` does, unless somebody else has changed it since it was read or stored.

        Tell whether it was stored: it may have been read by another transaction, or without a lock.
        """
        known = _get(self._store(), shipment.shipment_id)
        if known is None or known.revision != shipment.revision:
            return False
        await self.save(shipment)
        return True


class Weights:
    """What variants weigh, as far as the catalogue has told."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def of(self, variant_ids: Iterable[UUID]) -> Mapping[UUID, int]:
        """Return the grams of those that were weighed."""
        wanted = set(variant_ids)
        known = (each for each in self._store().rows.weights if each.variant_id in wanted)
        return {each.variant_id: each.grams for each in known if each.grams}

    async def learn(self, grams: Mapping[UUID, int], version: int) -> None:
        """Keep what a product's variants weigh, unless a later version of the product was heard of."""
        store = self._store()
        known = {each.variant_id: each for each in store.rows.weights}
        for variant_id, weight in grams.items():
            store.check(weight >= 0, "variant_weights_weight_grams_check")
            if variant_id not in known or known[variant_id].version < version:
                known[variant_id] = Weight(variant_id, weight, version)
        store.rows = replace(store.rows, weights=tuple(known.values()))


class ErasedUsers:
    """Whose accounts were erased."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def add(self, user_id: UUID, now: datetime) -> None:
        """Keep that an account was erased; again is fine."""
        store = self._store()
        store.rows = replace(store.rows, erased_users=store.rows.erased_users | {user_id})


def open_tx(view: MemoryStore[Rows], outbox: Outbox) -> ports.Tx:
    """Put the repositories on the view of a transaction."""
    return ports.Tx(Shipments(lambda: view, outbox), Weights(lambda: view), ErasedUsers(lambda: view))


@dataclass(frozen=True)
class ShipmentReader:
    """The shipments, outside of a transaction."""

    store: Open

    async def get(self, shipment_id: UUID) -> Shipment | None:
        """Read a shipment, if there is one of that id."""
        return _get(self.store(), shipment_id)

    async def of_order(self, order_id: UUID) -> Shipment | None:
        """Read an order's shipment, if it has one."""
        return _of_order(self.store(), order_id)

    async def list(self, status: Status | None, before: UUID | None, limit: int) -> Sequence[Shipment]:
        """Read shipments, the newest first; `before`: only older than this one.

        Those that still wait for their order to be confirmed and paid are left out, and so is what was
        stopped before it was.
        """
        found = [
            each
            for each in _shipments(self.store())
            if each.is_visible
            and (status is None or each.status is status)
            and (before is None or each.shipment_id < before)
        ]
        return sorted(found, key=lambda each: each.shipment_id, reverse=True)[:limit]


@dataclass(frozen=True)
class Unfinished:
    """Shipments for which something is to be done."""

    store: Open
    backoff: Backoff
    lease: timedelta

    async def claim_due(self, now: datetime, limit: int) -> Sequence[Shipment]:
        """Take at most `limit` that are due, so that nobody else takes them meanwhile."""
        store = self.store()
        due = [each for each in _shipments(store) if each.due_at is not None and each.due_at <= now]
        for shipment in due[:limit]:
            pause = self.backoff.at_most(shipment.attempts)
            shipment.attempts += 1
            shipment.due_at = now + max(self.lease, pause)
            _put(store, shipment)
        return due[:limit]

    async def next_due(self) -> datetime | None:
        """Return when the next falls due; None if nothing is to be done."""
        return min((each.due_at for each in _shipments(self.store()) if each.due_at), default=None)

    async def put_off(self, work: Shipment, until: datetime) -> None:
        """Let one fall due at another time, unless it was finished meanwhile."""
        store = self.store()
        known = _get(store, work.shipment_id)
        if known is not None and known.due_at is not None:
            known.due_at = until
            _put(store, known)


def _shipments(store: MemoryStore[Rows]) -> list[Shipment]:
    return [shipment_of(row) for row in store.rows.shipments]


def _get(store: MemoryStore[Rows], shipment_id: UUID) -> Shipment | None:
    return next((each for each in _shipments(store) if each.shipment_id == shipment_id), None)


def _of_order(store: MemoryStore[Rows], order_id: UUID) -> Shipment | None:
    return next((each for each in _shipments(store) if each.order_id == order_id), None)


def _put(store: MemoryStore[Rows], shipment: Shipment) -> None:
    row = shipment_row(shipment)
    shipments = tuple(row if known[0] == shipment.shipment_id else known for known in store.rows.shipments)
    store.rows = replace(store.rows, shipments=shipments)


def _check(store: MemoryStore[Rows], shipment: Shipment) -> None:
    status, label = shipment.status, shipment.label
    others = [each for each in _shipments(store) if each.shipment_id != shipment.shipment_id]
    numbers = {(each.carrier, each.label.tracking_id) for each in others if each.label}
    taken = label is not None and (shipment.carrier, label.tracking_id) in numbers
    store.check(not taken, "shipments_carrier_tracking_id_key")
    store.check((label is not None) == bool(shipment.carrier), "shipments_label")
    sent = shipment.paid and shipment.user_id is not None and shipment.parcel is not None
    store.check(status in (Status.WAITING, Status.STOPPED) or sent, "shipments_sent")
    free = (Status.WAITING, Status.PENDING, Status.STOPPED)
    store.check(status in free or bool(shipment.carrier), "shipments_carried")
    store.check(status is Status.CREATED or not shipment.stopping, "shipments_stopping")
    finished = (Status.WAITING, Status.DELIVERED, Status.RETURNED, Status.STOPPED)
    store.check(status in finished or shipment.due_at is not None, "shipments_unfinished")


# ------------------------------------------------------------------------------------------------ a carrier


class Step(StrEnum):
    """What a carrier can be asked to do with a shipment."""

    BOOK = "book"
    CONFIRM = "confirm"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class Request:
    """A request on its way to a carrier."""

    step: Step
    shipment_id: UUID


@dataclass(frozen=True, slots=True)
class Held:
    """What a carrier has of a shipment: whether it may be collected, or was voided, and its scans."""

    shipment_id: UUID
    confirmed: bool = False
    voided: bool = False
    scans: tuple[TrackingEvent, ...] = ()

    @property
    def is_parcel(self) -> bool:
        """Whether it is sent: collected, or about to be."""
        return self.confirmed and not self.voided


@dataclass(frozen=True)
class CarrierBooks:
    """A carrier's books, and what is on its way to it though whoever asked has stopped waiting.

    Immutable, so that a state can be compared, kept and gone back to.
    """

    held: tuple[Held, ...] = ()
    lingering: frozenset[Request] = frozenset()

    def of(self, shipment_id: UUID) -> Held | None:
        """Return what it has of a shipment."""
        return next((each for each in self.held if each.shipment_id == shipment_id), None)

    def carry_out(self, request: Request) -> "CarrierBooks":
        """Do what is asked, unless it was done or can't be."""
        known = self.of(request.shipment_id)
        match request.step:
            case Step.BOOK if known is None:
                return replace(self, held=(*self.held, Held(request.shipment_id)))
            case Step.CONFIRM if known is not None and not known.voided:
                return self._put(replace(known, confirmed=True))
            case Step.VOID if known is None:
                # What was voided is not booked any more, should that be asked for later.
                return replace(self, held=(*self.held, Held(request.shipment_id, voided=True)))
            case Step.VOID if known is not None and not known.scans:
                return self._put(replace(known, voided=True))
        return self

    def scan(self, shipment_id: UUID, scan: TrackingEvent) -> "CarrierBooks":
        """Scan a parcel, if there is one."""
        known = self.of(shipment_id)
        if known is None or not known.is_parcel or scan in known.scans:
            return self
        return self._put(replace(known, scans=(*known.scans, scan)))

    def _put(self, changed: Held) -> "CarrierBooks":
        held = (changed if each.shipment_id == changed.shipment_id else each for each in self.held)
        return replace(self, held=tuple(held))


class Fate(StrEnum):
    """What becomes of a request."""

    ANSWERED = "answered"
    LOST = "answer lost"
    UNREACHED = "not reached"
    LINGERS = "no answer in time, done later"


_SIGNATURE = "signed by the carrier"
ESTIMATED = datetime(2026, 12, 1, 20, tzinfo=UTC)


@dataclass
class FakeCarrier:
    """A carrier that lives in memory: its books, and what becomes of each request on the way to it.

    The model check replaces `send`, and decides there what becomes of a request.
    """

    name: str
    books: CarrierBooks = field(default_factory=CarrierBooks)
    fate: Fate = Fate.ANSWERED
    """What becomes of the requests from now on."""

    refuses: str = ""
    """Why it does not carry what it is asked to; empty: it does."""

    asked: list[Request] = field(default_factory=list)
    _notices: dict[bytes, Notice] = field(default_factory=dict)

    async def book(self, shipment: Shipment) -> Label:
        """Book a shipment, once; it is not collected yet. Raises NotCarried, NoAnswer."""
        held = await self._ask(Step.BOOK, shipment)
        if self.refuses or held is None or held.voided:
            raise ports.NotCarried(self.refuses or "it was voided")
        number = f"{self.name}-{shipment.shipment_id.hex}"
        return Label(number, f"https://{self.name}.example/{number}", ESTIMATED)

    async def confirm(self, shipment: Shipment) -> None:
        """Let what was booked be collected. Raises NoAnswer."""
        held = await self._ask(Step.CONFIRM, shipment)
        if held is None or held.voided:
            raise ports.NoAnswer(f"{self.name} has no such booking")

    async def void(self, shipment: Shipment) -> None:
        """Make sure that nothing is collected; also if nothing was booked. Raises UnderWay, NoAnswer."""
        held = await self._ask(Step.VOID, shipment)
        if held is not None and held.scans:
            raise ports.UnderWay

    async def scans(self, shipment: Shipment) -> Sequence[TrackingEvent]:
        """Return what became of the parcel since it was collected, oldest first. Raises NoAnswer."""
        if self.fate is not Fate.ANSWERED:
            raise ports.NoAnswer(f"{self.name} did not answer")
        held = self.books.of(shipment.shipment_id)
        return held.scans if held else ()

    async def label(self, shipment: Shipment) -> bytes:
        """Return the label, a PDF. Raises NoAnswer."""
        if self.fate is not Fate.ANSWERED:
            raise ports.NoAnswer(f"{self.name} did not answer")
        return b"%PDF-1.4 " + str(shipment.shipment_id).encode()

    def notice(self, shipment_id: UUID | None, *scans: TrackingEvent) -> tuple[bytes, Mapping[str, str]]:
        """Make a notice of the carrier. Returns its body and its headers."""
        body = f"{self.name} {len(self._notices) + 1}".encode()
        self._notices[body] = Notice(shipment_id, scans)
        return body, {"signature": _SIGNATURE}

    def read_notice(self, body: bytes, headers: Mapping[str, str], now: datetime) -> Notice:
        """Return what a notice says. Raises BadSignature unless it comes from `notice`."""
        if body not in self._notices or headers.get("signature") != _SIGNATURE:
            raise BadSignature("the notice was not signed by the carrier")
        return self._notices[body]

    async def send(self, request: Request) -> bool:
        """Send a request; tell whether it is answered."""
        await asyncio.sleep(0)  # whatever else is going on goes on meanwhile
        if self.fate in (Fate.ANSWERED, Fate.LOST) and not (self.refuses and request.step is Step.BOOK):
            self.books = self.books.carry_out(request)
        if self.fate is Fate.LINGERS:
            self.books = replace(self.books, lingering=self.books.lingering | {request})
        return self.fate is Fate.ANSWERED

    def arrive(self) -> None:
        """Let the carrier carry out what was on its way to it."""
        for request in self.books.lingering:
            self.books = self.books.carry_out(request)
        self.books = replace(self.books, lingering=frozenset())

    async def _ask(self, step: Step, shipment: Shipment) -> Held | None:
        request = Request(step, shipment.shipment_id)
        self.asked.append(request)
        if not await self.send(request):
            raise ports.NoAnswer(f"{self.name} did not answer")
        return self.books.of(shipment.shipment_id)
