"""Shipping, as its contract says that order finds it: one parcel for an order that is confirmed and paid.

It sends when it has heard of both, in either order. Whoever stops it before the carrier's first scan keeps
the parcel from leaving, now or later; after it nobody does.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

from stoa_contracts.events import Payload
from stoa_events import (
    OrderCancelled,
    OrderConfirmed,
    PaymentSuccessful,
    ShipmentCreated,
    ShipmentStatusUpdated,
)
from stoa_order.model import ShipmentStatus
from tests.model.levelled import LONGEST_WAIT, NOW

CARRIER, TRACKING_ID = "ups", "1Z"
# When each scan was made: what is newer counts.
_SCANNED = {
    ShipmentStatus.IN_TRANSIT: NOW + LONGEST_WAIT,
    ShipmentStatus.STOPPED: NOW + LONGEST_WAIT,
    ShipmentStatus.DELIVERED: NOW + 2 * LONGEST_WAIT,
}


class Stopped(StrEnum):
    """What shipping says when it is asked to stop a parcel."""

    STOPPED = "stopped"
    UNDER_WAY = "SHIPMENT_UNDER_WAY"


@dataclass(frozen=True)
class Parcel:
    """What shipping has of an order; `status` is "" while no carrier has booked it."""

    confirmed: bool = False
    paid: bool = False
    stopped: bool = False
    status: str = ""
    exists: bool = True

    @property
    def has_left(self) -> bool:
        """Whether the carrier has it."""
        return self.status in (ShipmentStatus.IN_TRANSIT, ShipmentStatus.DELIVERED)

    def handle(self, payload: Payload, order_id: UUID, user_id: UUID) -> "tuple[Parcel, tuple[Payload, ...]]":
        """An event comes."""
        match payload:
            case OrderConfirmed():
                return replace(self, confirmed=True)._booked(order_id, user_id)
            case PaymentSuccessful():
                return replace(self, paid=True)._booked(order_id, user_id)
            case OrderCancelled():
                _, parcel, events = self.stop(order_id, user_id)
                return parcel, events
        return self, ()

    def stop(self, order_id: UUID, user_id: UUID) -> "tuple[Stopped, Parcel, tuple[Payload, ...]]":
        """Keep it from leaving, if it has not left."""
        if self.has_left:
            return Stopped.UNDER_WAY, self, ()
        if self.stopped or not self.status:
            return Stopped.STOPPED, replace(self, stopped=True), ()
        stopped = replace(self, stopped=True, status=ShipmentStatus.STOPPED)
        return Stopped.STOPPED, stopped, (stopped._told(order_id, user_id),)

    def scan(self, order_id: UUID, user_id: UUID) -> "tuple[Parcel, tuple[Payload, ...]]":
        """The carrier takes it, or delivers it."""
        following = {
            ShipmentStatus.CREATED: ShipmentStatus.IN_TRANSIT,
            ShipmentStatus.IN_TRANSIT: ShipmentStatus.DELIVERED,
        }
        scanned = replace(self, status=following[ShipmentStatus(self.status)])
        return scanned, (scanned._told(order_id, user_id),)

    def _booked(self, order_id: UUID, user_id: UUID) -> "tuple[Parcel, tuple[Payload, ...]]":
        if not (self.confirmed and self.paid) or self.stopped or self.status:
            return self, ()
        created = ShipmentCreated(
            shipment_id=order_id,
            order_id=order_id,
            user_id=user_id,
            carrier=CARRIER,
            tracking_id=TRACKING_ID,
            tracking_url="",
            shipping_method="standard",
            estimated_delivery=NOW,
        )
        return replace(self, status=ShipmentStatus.CREATED), (created,)

    def _told(self, order_id: UUID, user_id: UUID) -> Payload:
        return ShipmentStatusUpdated(
            shipment_id=order_id,
            order_id=order_id,
            user_id=user_id,
            carrier=CARRIER,
            tracking_id=TRACKING_ID,
            status=self.status,
            description="",
            location="",
            at=_SCANNED[ShipmentStatus(self.status)],
        )


NO_PARCEL = Parcel(exists=False)
"""Of a shop whose parcels are none of the scenario's concern: whatever is to be stopped is."""
