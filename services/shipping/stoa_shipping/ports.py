"""What the use cases of shipping need from outside."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from stoa_shipping.model import Label, Notice, Shipment, Status, TrackingEvent


class Shipments(Protocol):
    """The shipments, in a transaction; one for an order."""

    async def begin(self, shipment: Shipment) -> Shipment:
        """Store a new shipment unless its order has one, and return the one that it has.

        Nobody else may change that until the transaction ends. It is erased if the account of the user of the
        new one was.
        """
        ...

    async def lock(self, shipment_id: UUID) -> Shipment:
        """Read a shipment that nobody else may change until the transaction ends. Raises ShipmentNotFound."""
        ...

    async def of_user(self, user_id: UUID) -> Sequence[Shipment]:
        """Read a user's shipments, which nobody else may change until the transaction ends."""
        ...

    async def save(self, shipment: Shipment) -> None:
        """Store a changed shipment, and publish its events."""
        ...

    async def save_unless_changed(self, shipment: Shipment) -> bool:
        """Do what `save` does, unless somebody else has changed it since it was read or stored.

        Tell whether it was stored: it may have been read by another transaction, or without a lock.
        """
        ...


class Weights(Protocol):
    """What variants weigh, as far as the catalogue has told."""

    async def of(self, variant_ids: Iterable[UUID]) -> Mapping[UUID, int]:
        """Return the grams of those that were weighed."""
        ...

    async def learn(self, grams: Mapping[UUID, int], version: int) -> None:
        """Keep what a product's variants weigh, unless a later version of the product was heard of."""
        ...


class ErasedUsers(Protocol):
    """Whose accounts were erased."""

    async def add(self, user_id: UUID, now: datetime) -> None:
        """Keep that an account was erased; again is fine."""
        ...


@dataclass(frozen=True, slots=True)
class Tx:
    """What a use case sees of a transaction."""

    shipments: Shipments
    weights: Weights
    erased_users: ErasedUsers


class ShipmentReader(Protocol):
    """The shipments, outside of a transaction."""

    async def get(self, shipment_id: UUID) -> Shipment | None:
        """Read a shipment, if there is one of that id."""
        ...

    async def of_order(self, order_id: UUID) -> Shipment | None:
        """Read an order's shipment, if it has one."""
        ...

    async def list(self, status: Status | None, before: UUID | None, limit: int) -> Sequence[Shipment]:
        """Read shipments, the newest first; `before`: only older than this one.

        Those that still wait for their order to be confirmed and paid are left out, and so is what was
        stopped before it was.
        """
        ...


class Unfinished(Protocol):
    """Shipments for which something is to be done. They fall due until it is (`stoa_chassis.due`)."""

    async def claim_due(self, now: datetime, limit: int) -> Sequence[Shipment]:
        """Take at most `limit` that are due, so that nobody else takes them meanwhile."""
        ...

    async def next_due(self) -> datetime | None:
        """Return when the next falls due; None if nothing is to be done."""
        ...

    async def put_off(self, work: Shipment, until: datetime) -> None:
        """Let one fall due at another time, unless it was finished meanwhile."""
        ...


class NoAnswer(Exception):
    """The carrier did not say what became of a request: it may or may not have been carried out."""


class NotCarried(Exception):
    """The carrier does not carry this parcel; the text says why, for people."""


class UnderWay(Exception):
    """The carrier has collected the parcel."""


class Carrier(Protocol):
    """A company that carries parcels. Requests name the shipment, so that any of them may be repeated.

    All of them raise NoAnswer.
    """

    async def book(self, shipment: Shipment) -> Label:
        """Book a shipment, once; it is not collected yet. Raises NotCarried."""
        ...

    async def confirm(self, shipment: Shipment) -> None:
        """Let what was booked be collected."""
        ...

    async def void(self, shipment: Shipment) -> None:
        """Make sure that nothing is collected; also if nothing was booked. Raises UnderWay."""
        ...

    async def scans(self, shipment: Shipment) -> Sequence[TrackingEvent]:
        """Return what became of the parcel since it was collected, oldest first."""
        ...

    async def label(self, shipment: Shipment) -> bytes:
        """Return the label, a PDF."""
        ...

    def read_notice(self, body: bytes, headers: Mapping[str, str], now: datetime) -> Notice:
        """Return what a notice says. Raises InvalidArgument, and BadSignature unless the carrier signed
        it."""
        ...
