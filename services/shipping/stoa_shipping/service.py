"""The use cases of shipping."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from stoa_chassis.auth import Principal
from stoa_chassis.avro import Event
from stoa_chassis.clock import Clock
from stoa_chassis.context import bound, correlation_id, deadline
from stoa_chassis.due import Backoff, DueWork
from stoa_chassis.ids import new_id
from stoa_chassis.telemetry import get_logger
from stoa_chassis.uow import UnitOfWork, transactional
from stoa_events import (
    OrderBuyerChanged,
    OrderCancelled,
    OrderConfirmed,
    PaymentSuccessful,
    ProductCreated,
    ProductUpdated,
    UserErased,
)
from stoa_shipping.model import (
    Address,
    CarrierSilent,
    Label,
    Method,
    NoLabel,
    Parcel,
    RetryPolicy,
    Shipment,
    ShipmentNotFound,
    ShipmentUnderWay,
    Status,
    TrackingEvent,
    credible,
)
from stoa_shipping.ports import (
    Carrier,
    NoAnswer,
    NotCarried,
    ShipmentReader,
    Tx,
    UnderWay,
    Unfinished,
    Weights,
)
from stoa_shipping.tariff import Quote, Tariff

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """Some of a variant."""

    variant_id: UUID
    quantity: int


@dataclass(frozen=True, slots=True)
class Scale:
    """What things weigh: what the catalogue says, else `default_grams` each."""

    default_grams: int

    async def weigh(self, weights: Weights, items: Sequence[Item]) -> int:
        """Return what all of it weighs, in grams."""
        counted = Counter[UUID]()
        for item in items:
            counted[item.variant_id] += item.quantity
        known = await weights.of(counted)
        return sum(known.get(variant_id, self.default_grams) * n for variant_id, n in counted.items())


class Quotes:
    """What it would cost to send something. No carrier is asked."""

    def __init__(self, weights: Weights, scale: Scale, tariff: Tariff, clock: Clock) -> None:
        """`weights` is the store outside of a transaction."""
        self._weights = weights
        self._scale = scale
        self._tariff = tariff
        self._clock = clock

    async def quote(self, items: Sequence[Item], destination: Address) -> Sequence[Quote]:
        """Price what is to be sent with each method, the cheapest first. Raises TooHeavy."""
        grams = await self._scale.weigh(self._weights, items)
        return self._tariff.quotes(grams, destination, self._clock.now())


class Shipments:
    """Sending what was ordered, following it, and stopping it in time.

    What a carrier is asked is written down before, and what it answers after: whatever dies in between falls
    due, and the carrier is asked again. No transaction is open while one is waited for.
    """

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        reader: ShipmentReader,
        unfinished: Unfinished,
        carriers: Mapping[str, Carrier],
        tariff: Tariff,
        scale: Scale,
        clock: Clock,
        retry: RetryPolicy,
        backoff: Backoff,
        polling: Backoff,
    ) -> None:
        """`backoff` is for what a carrier has not answered, `polling` for news that it has not told."""
        self._uow = uow
        self._reader = reader
        self._store = unfinished
        self._carriers = carriers
        self._tariff = tariff
        self._scale = scale
        self._clock = clock
        self._retry = retry
        self._polling = polling
        self.unfinished = DueWork(unfinished, self.bring_on, backoff, clock)
        """Takes up what is not finished."""

    # ------------------------------------------------------------------------------------------- reading

    async def get(self, order_id: UUID, caller: Principal) -> Shipment:
        """Read the shipment of an order that is the caller's, or of any if the caller is staff.

        Raises ShipmentNotFound also for another's: the two look alike, so that ids can't be probed.
        """
        shipment = await self._visible(order_id)
        if shipment.user_id is None or not caller.may_act_for(str(shipment.user_id)):
            raise ShipmentNotFound("the order has no shipment")
        return shipment

    async def list(self, status: Status | None, before: UUID | None, limit: int) -> Sequence[Shipment]:
        """Read shipments, the newest first; `before`: only older than this one."""
        return await self._reader.list(status, before, limit)

    async def label(self, order_id: UUID) -> bytes:
        """Read the label of an order's parcel from its carrier, a PDF.

        Raises ShipmentNotFound, NoLabel, CarrierSilent.
        """
        shipment = await self._visible(order_id)
        if shipment.label is None or shipment.status is Status.STOPPED:
            raise NoLabel(f"the parcel is {shipment.status}", metadata={"status": shipment.status})
        try:
            return await self._carriers[shipment.carrier].label(shipment)
        except NoAnswer as error:
            raise CarrierSilent(f"{shipment.carrier} does not answer") from error

    async def _visible(self, order_id: UUID) -> Shipment:
        shipment = await self._reader.of_order(order_id)
        if shipment is None or not shipment.is_visible:
            raise ShipmentNotFound("the order has no shipment")
        return shipment

    # ------------------------------------------------------------------------------------ what orders say

    async def on_order_confirmed(self, event: Event[OrderConfirmed]) -> None:
        """Send what was ordered, once it is paid too."""
        self._take_up(*await self._note_confirmed(event))

    async def on_payment_successful(self, event: Event[PaymentSuccessful]) -> None:
        """Send what was paid, once it is confirmed too."""
        self._take_up(*await self._note_paid(event))

    async def on_order_cancelled(self, event: Event[OrderCancelled]) -> None:
        """Send nothing of an order that was cancelled."""
        self._take_up(*await self._note_cancelled(event))

    @transactional
    async def on_buyer_changed(self, tx: Tx, event: Event[OrderBuyerChanged]) -> None:
        """Show a guest's parcel to the account that her order belongs to now."""
        user_id = event.payload.user_id
        await self._change(
            tx, event.payload.order_id, lambda shipment: shipment.on_buyer_changed(user_id, self._clock.now())
        )

    @transactional
    async def on_user_erased(self, tx: Tx, event: Event[UserErased]) -> None:
        """Forget where a person's parcels went, once they are there; also of those that are told later."""
        user_id, now = event.payload.user_id, self._clock.now()
        await tx.erased_users.add(user_id, now)
        for shipment in await tx.shipments.of_user(user_id):
            shipment.on_user_erased(now)
            await tx.shipments.save(shipment)

    @transactional
    async def on_product_changed(self, tx: Tx, event: Event[ProductCreated] | Event[ProductUpdated]) -> None:
        """Know what a product's variants weigh."""
        product = event.payload
        grams = {each.variant_id: each.weight_grams for each in product.variants}
        await tx.weights.learn(grams, product.version)

    async def stop(self, order_id: UUID) -> None:
        """Send nothing of an order, now or later; again is fine.

        Raises:
            ShipmentUnderWay: its carrier has it.
            CarrierSilent: its carrier may have it. It is asked on, and the outcome published.
        """
        shipment = await self._want_stopped(order_id)
        try:
            if shipment.stopping:
                shipment = await self._void(shipment, shipment.carrier)
        except NoAnswer as error:
            await self._put_off(shipment, error)
            raise CarrierSilent(f"{shipment.carrier} does not say whether it has the parcel") from error
        self._take_up(shipment, claimed=False)
        if shipment.status is not Status.STOPPED:
            raise ShipmentUnderWay("the carrier has the parcel", metadata={"status": shipment.status})

    # ---------------------------------------------------------------------------------- what carriers say

    async def receive_notice(self, carrier: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Take over what a carrier tells us unasked; what we know already changes nothing.

        Raises BadSignature, InvalidArgument.
        """
        notice = self._carriers[carrier].read_notice(body, headers, self._clock.now())
        shipment = notice.shipment_id and await self._reader.get(notice.shipment_id)
        if shipment:
            with bound(shipment.correlation_id, deadline()):
                await self._note_scanned(shipment, carrier, credible(notice.scans, self._clock.now()))

    async def bring_on(self, shipment: Shipment) -> None:
        """Bring a shipment on as far as its carriers let us.

        Raises Unavailable if the store can't be reached.
        """
        try:
            if carrier := shipment.asking:
                shipment = await self._book(shipment, carrier)
            elif shipment.is_followed:
                shipment = await self._look(shipment)
            if shipment.to_confirm:
                await self._carriers[shipment.carrier].confirm(shipment)
                shipment = await self._note_collectable(shipment, shipment.carrier)
            for carrier in shipment.to_void:
                shipment = await self._void(shipment, carrier)
        except NoAnswer as error:
            await self._put_off(shipment, error)

    async def _book(self, shipment: Shipment, carrier: str) -> Shipment:
        if shipment.is_overdue(self._retry, self._clock.now()):
            shipment = await self._ask_next(shipment)
            carrier = shipment.asking or carrier
        try:
            label = await self._carriers[carrier].book(shipment)
        except NotCarried as error:
            # Why is kept with the shipment, for staff: it may quote the address.
            _log.warning("a parcel is refused", carrier=carrier, order_id=shipment.order_id)
            return await self._note_refused(shipment, carrier, str(error))
        return await self._note_booked(shipment, carrier, label)

    async def _look(self, shipment: Shipment) -> Shipment:
        """Ask the carrier for news, in case that its notices got lost."""
        scans = credible(await self._carriers[shipment.carrier].scans(shipment), self._clock.now())
        if set(scans) <= set(shipment.history):
            await self._store.put_off(shipment, self._clock.now() + self._polling.after(shipment.attempts))
            return shipment
        return await self._note_scanned(shipment, shipment.carrier, scans)

    async def _void(self, shipment: Shipment, carrier: str) -> Shipment:
        try:
            await self._carriers[carrier].void(shipment)
        except UnderWay:
            _log.warning("a carrier has the parcel", carrier=carrier, order_id=shipment.order_id)
            return await self._note_under_way(shipment, carrier)
        return await self._note_voided(shipment, carrier)

    async def _put_off(self, shipment: Shipment, error: NoAnswer) -> None:
        _log.info("a carrier does not answer", order_id=shipment.order_id, cause=str(error))
        await self.unfinished.put_off(shipment)

    def _take_up(self, shipment: Shipment, claimed: bool) -> None:
        """Go on with what was stored as claimed; have it claimed if something else is to be done."""
        if claimed:
            self.unfinished.take_up(shipment)
        elif shipment.due_at is not None:
            self.unfinished.wake()

    def _next_look(self) -> datetime:
        return self._clock.now() + self._polling.after(0)

    # ------------------------------------------------------------------------------------ in transactions

    @transactional
    async def _note_confirmed(self, tx: Tx, event: Event[OrderConfirmed]) -> tuple[Shipment, bool]:
        order = event.payload
        parcel = Parcel(
            Method(order.shipping_method),
            Address(**order.shipping_address.to_dict()),
            await self._scale.weigh(
                tx.weights, [Item(each.variant_id, each.quantity) for each in order.items]
            ),
            order.total_amount,
        )
        carriers = self._tariff.carriers(parcel.method, parcel.destination)

        def confirm(shipment: Shipment) -> None:
            shipment.on_order_confirmed(order.user_id, parcel, carriers, self._clock.now())

        return await self._change_and_claim(tx, order.order_id, confirm)

    @transactional
    async def _note_paid(self, tx: Tx, event: Event[PaymentSuccessful]) -> tuple[Shipment, bool]:
        def pay(shipment: Shipment) -> None:
            shipment.on_payment_successful(self._carriers_of(shipment), self._clock.now())

        return await self._change_and_claim(tx, event.payload.order_id, pay)

    @transactional
    async def _note_cancelled(self, tx: Tx, event: Event[OrderCancelled]) -> tuple[Shipment, bool]:
        def stop(shipment: Shipment) -> None:
            try:
                shipment.stop(self._clock.now())
            except ShipmentUnderWay:
                # The order service asks before it cancels: should it have not, a person has to look.
                _log.error("an order was cancelled whose parcel is under way", order_id=shipment.order_id)

        return await self._change_and_claim(tx, event.payload.order_id, stop)

    @transactional
    async def _want_stopped(self, tx: Tx, order_id: UUID) -> Shipment:
        return await self._change(tx, order_id, lambda shipment: shipment.stop(self._clock.now()))

    @transactional
    async def _ask_next(self, tx: Tx, known: Shipment) -> Shipment:
        shipment, now = await tx.shipments.lock(known.shipment_id), self._clock.now()
        if shipment.asking and shipment.is_overdue(self._retry, now):
            silent = shipment.asking
            shipment.ask_next(self._carriers_of(shipment), now)
            _log.warning("another carrier is asked", order_id=shipment.order_id, silent=silent)
            await tx.shipments.save(shipment)
        return shipment

    @transactional
    async def _note_booked(self, tx: Tx, known: Shipment, carrier: str, label: Label) -> Shipment:
        def book(shipment: Shipment) -> None:
            shipment.on_booked(carrier, label, self._retry, self._clock.now())

        return await self._update(tx, known, book)

    @transactional
    async def _note_refused(self, tx: Tx, known: Shipment, carrier: str, why: str) -> Shipment:
        def refuse(shipment: Shipment) -> None:
            shipment.on_refused(carrier, why, self._carriers_of(shipment), self._retry, self._clock.now())

        return await self._update(tx, known, refuse)

    @transactional
    async def _note_collectable(self, tx: Tx, known: Shipment, carrier: str) -> Shipment:
        def confirm(shipment: Shipment) -> None:
            shipment.on_confirmed(carrier, self._next_look(), self._clock.now())

        return await self._update(tx, known, confirm)

    @transactional
    async def _note_voided(self, tx: Tx, known: Shipment, carrier: str) -> Shipment:
        return await self._update(tx, known, lambda shipment: shipment.on_voided(carrier, self._clock.now()))

    @transactional
    async def _note_under_way(self, tx: Tx, known: Shipment, carrier: str) -> Shipment:
        return await self._update(
            tx, known, lambda shipment: shipment.on_under_way(carrier, self._clock.now())
        )

    @transactional
    async def _note_scanned(
        self, tx: Tx, known: Shipment, carrier: str, scans: Sequence[TrackingEvent]
    ) -> Shipment:
        # What is known already can't become unknown: then there is nothing to store.
        return await self._update(
            tx,
            known,
            lambda shipment: shipment.on_scanned(carrier, scans, self._next_look(), self._clock.now()),
        )

    async def _change(self, tx: Tx, order_id: UUID, change: Callable[[Shipment], object]) -> Shipment:
        """Change the shipment of an order; it begins with what is heard first of it."""
        begun = Shipment.begin(order_id, correlation_id() or str(new_id()), self._clock.now())
        change(begun)
        shipment = await tx.shipments.begin(begun)
        if shipment.shipment_id != begun.shipment_id:
            change(shipment)
            await tx.shipments.save(shipment)
        return shipment

    async def _change_and_claim(
        self, tx: Tx, order_id: UUID, change: Callable[[Shipment], object]
    ) -> tuple[Shipment, bool]:
        """Do what `_change` does, and claim what is to be done if there is room; tell whether it was."""
        claimed = False

        def change_and_claim(shipment: Shipment) -> None:
            nonlocal claimed
            change(shipment)
            claimed = self.unfinished.has_room and shipment.claim(self._retry, self._clock.now())

        return await self._change(tx, order_id, change_and_claim), claimed

    async def _update(self, tx: Tx, known: Shipment, change: Callable[[Shipment], bool | None]) -> Shipment:
        """Change a shipment as it is known, which spares reading it; anew if somebody else has changed it.

        It is left as it is if the change says that it is none.
        """
        shipment = replace(known, events=[])
        if change(shipment) is not False and not await tx.shipments.save_unless_changed(shipment):
            shipment = await tx.shipments.lock(known.shipment_id)
            if change(shipment) is not False:
                await tx.shipments.save(shipment)
        return shipment

    def _carriers_of(self, shipment: Shipment) -> Sequence[str]:
        if shipment.parcel is None:
            return ()
        return self._tariff.carriers(shipment.parcel.method, shipment.parcel.destination)
