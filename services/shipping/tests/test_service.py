"""Sending, following and stopping, with things going wrong in between."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import permutations
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from stoa_chassis.auth import Principal
from stoa_chassis.avro import Event, new_event
from stoa_chassis.clock import SystemClock
from stoa_chassis.context import bound
from stoa_chassis.errors import Unavailable
from stoa_contracts.money import Money
from stoa_events import OrderBuyerChanged, ProductUpdated, UserErased
from stoa_events.types import ProductVariant
from stoa_shipping.model import (
    BadSignature,
    CarrierSilent,
    NoLabel,
    ShipmentNotFound,
    ShipmentUnderWay,
    Status,
)
from stoa_shipping.service import Item
from stoa_shipping.testing import Fate, Request, Step

from .conftest import ADDRESS, CARRIERS, FIRST, NOW, SECOND, THIRD, AnOrder, Shop, make_shop, scan

JOURNEY = (Status.IN_TRANSIT, Status.OUT_FOR_DELIVERY, Status.DELIVERED)


async def test_a_parcel_is_sent_once_its_order_is_confirmed_and_paid(shop: Shop) -> None:
    order = AnOrder()
    await shop.shipments.on_order_confirmed(order.confirmed)
    assert await shop.work() == 0
    await shop.shipments.on_payment_successful(order.paid)
    assert await shop.work() == 1
    assert shop.told(order) == ["created"]
    assert shop.parcels(order) == [FIRST]


async def test_an_order_that_is_not_paid_is_never_sent(shop: Shop) -> None:
    order = AnOrder()
    await shop.shipments.on_order_confirmed(order.confirmed)
    assert await shop.work(days=30) == 0
    assert shop.told(order) == []
    with pytest.raises(ShipmentNotFound):
        await shop.shipments.get(order.order_id, Principal(str(order.user_id)))


@pytest.mark.parametrize("arrival", list(permutations(range(3))))
async def test_events_that_come_twice_and_in_any_order_send_one_parcel(
    shop: Shop, arrival: tuple[int, ...]
) -> None:
    order = AnOrder()
    again = replace(order.paid)
    told = [
        lambda: shop.shipments.on_order_confirmed(order.confirmed),
        lambda: shop.shipments.on_payment_successful(again),
        lambda: shop.shipments.on_order_confirmed(order.confirmed),
    ]
    for at in arrival:
        await told[at]()
        await shop.work()
    assert shop.told(order) == ["created"]
    assert shop.parcels(order) == [FIRST]
    assert len(shop.all()) == 1


async def test_both_events_at_once_send_one_parcel(shop: Shop) -> None:
    order = AnOrder()
    await asyncio.gather(
        shop.shipments.on_order_confirmed(order.confirmed), shop.shipments.on_payment_successful(order.paid)
    )
    await shop.work()
    assert shop.told(order) == ["created"]


async def test_what_a_parcel_does_is_told_and_can_be_read(shop: Shop) -> None:
    order = await shop.created()
    for minute, status in enumerate(JOURNEY, 1):
        await shop.tell(FIRST, order, scan(status, minute))
    assert shop.told(order) == ["created", *JOURNEY]
    shipment = await shop.shipments.get(order.order_id, Principal(str(order.user_id)))
    assert [each.status for each in shipment.history] == [Status.CREATED, *JOURNEY]
    assert shipment.due_at is None


async def test_another_buyer_sees_nothing_and_staff_all(shop: Shop) -> None:
    order = await shop.created()
    with pytest.raises(ShipmentNotFound):
        await shop.shipments.get(order.order_id, Principal(str(uuid4())))
    staff = Principal(str(uuid4()), frozenset({"staff"}), acts_as_staff=True)
    assert (await shop.shipments.get(order.order_id, staff)).order_id == order.order_id


async def test_what_it_does_goes_back_to_the_request_that_caused_it(shop: Shop) -> None:
    order = AnOrder()
    with bound("the request"):
        await shop.ready(order)
    await shop.work()
    with bound("a notice"):
        await shop.tell(FIRST, order, scan(Status.IN_TRANSIT))
    assert {event.correlation_id for event in shop.store.published} == {"the request"}


# ----------------------------------------------------------------------------------------- carriers that fail


@pytest.mark.parametrize("step", [Step.BOOK, Step.CONFIRM])
@pytest.mark.parametrize("fate", [Fate.LOST, Fate.LINGERS, Fate.UNREACHED])
async def test_a_request_without_an_answer_is_repeated_and_doubles_nothing(
    shop: Shop, step: Step, fate: Fate
) -> None:
    carrier = shop.carriers[FIRST]
    send = carrier.send

    async def disturbed(request: Request) -> bool:
        carrier.fate = fate if request.step is step else Fate.ANSWERED
        return await send(request)

    carrier.send = disturbed  # type: ignore[method-assign]
    order = await shop.ready()
    await shop.work()
    carrier.send = send  # type: ignore[method-assign]
    carrier.fate = Fate.ANSWERED
    carrier.arrive()
    await shop.finish()
    assert shop.told(order) == ["created"]
    assert shop.parcels(order) == [FIRST]
    assert len(carrier.books.held) == 1


async def test_an_order_waits_while_its_carrier_is_down_for_a_short_while(shop: Shop) -> None:
    shop.carriers[FIRST].fate = Fate.UNREACHED
    order = await shop.ready()
    for _ in range(3):
        await shop.work(seconds=17)
    assert shop.of(order).status is Status.PENDING
    assert {each.carrier for each in shop.of(order).bookings} == {FIRST}
    shop.carriers[FIRST].fate = Fate.ANSWERED
    await shop.work(seconds=8.5)
    assert shop.parcels(order) == [FIRST]


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.LINGERS, Fate.UNREACHED])
async def test_another_carrier_takes_over_and_the_first_ones_booking_is_voided(
    shop: Shop, fate: Fate
) -> None:
    first = shop.carriers[FIRST]
    first.fate = fate
    order = await shop.ready()
    for _ in range(6):
        await shop.work(seconds=17)
    shipment = shop.of(order)
    assert (shipment.status, shipment.carrier) == (Status.CREATED, SECOND)
    assert shipment.to_void == [FIRST]
    # The first one is back, carries out late what it was asked, and scans whatever it may.
    first.fate = Fate.ANSWERED
    first.arrive()
    first.books = first.books.scan(shipment.shipment_id, scan(Status.IN_TRANSIT))
    await shop.finish()
    assert shop.parcels(order) == [SECOND]
    assert shop.told(order) == ["created"]
    held = first.books.of(shipment.shipment_id)
    assert held is not None
    assert held.voided
    assert not held.scans


async def test_a_carrier_is_not_blamed_for_our_own_outage(shop: Shop) -> None:
    order = await shop.ready()
    await shop.work(hours=2)
    assert shop.parcels(order) == [FIRST]


async def test_a_late_booking_that_arrives_after_it_was_voided_is_not_made(shop: Shop) -> None:
    first = shop.carriers[FIRST]
    first.fate = Fate.LINGERS
    order = await shop.ready()
    for _ in range(6):
        await shop.work(seconds=17)
    lingering = first.books.lingering
    first.books = replace(first.books, lingering=frozenset())
    first.fate = Fate.ANSWERED
    await shop.finish()
    first.books = replace(first.books, lingering=lingering)
    first.arrive()
    held = first.books.of(shop.of(order).shipment_id)
    assert held is not None
    assert held.voided


async def test_the_first_that_answers_wins_also_if_another_is_asked_by_then(shop: Shop) -> None:
    for name in CARRIERS:
        shop.carriers[name].fate = Fate.UNREACHED
    order = await shop.ready()
    for _ in range(10):
        await shop.work(seconds=17)
    assert {each.carrier for each in shop.of(order).bookings} == {*CARRIERS}
    for name in CARRIERS:
        shop.carriers[name].fate = Fate.ANSWERED
    await shop.finish()
    assert len(shop.parcels(order)) == 1
    assert shop.told(order) == ["created"]


async def test_once_booked_no_other_carrier_takes_over(shop: Shop) -> None:
    first = shop.carriers[FIRST]
    send = first.send

    async def silent_about_confirmations(request: Request) -> bool:
        return await send(request) and request.step is not Step.CONFIRM

    first.send = silent_about_confirmations  # type: ignore[method-assign]
    order = await shop.ready()
    for _ in range(20):
        await shop.work(seconds=31)
    assert [name for name in CARRIERS if shop.carriers[name].asked] == [FIRST]
    first.send = send  # type: ignore[method-assign]
    await shop.finish()
    assert shop.parcels(order) == [FIRST]


async def test_what_a_carrier_refuses_another_carries(shop: Shop) -> None:
    shop.carriers[FIRST].refuses = "too far"
    order = await shop.ready()
    with capture_logs() as logged:
        await shop.work()
    assert (shop.of(order).problem, shop.of(order).asking) == ("ups: too far", SECOND)
    assert "a parcel is refused" in [entry["event"] for entry in logged]
    assert "too far" not in str(logged), "it may quote the address"
    await shop.finish()
    assert shop.parcels(order) == [SECOND]


async def test_what_all_refuse_waits_for_staff_and_is_tried_again_an_hour_later(shop: Shop) -> None:
    for name in CARRIERS:
        shop.carriers[name].refuses = "too far"
    order = await shop.ready()
    for _ in range(5):
        await shop.work(seconds=17)
    assert shop.of(order).problem == "dhl: too far"
    assert sum(len(shop.carriers[name].asked) for name in CARRIERS) == 3
    (listed,) = await shop.shipments.list(Status.PENDING, None, 10)
    assert listed.problem == "dhl: too far"
    shop.carriers[FIRST].refuses = ""
    await shop.work(hours=1)
    await shop.finish()
    assert shop.parcels(order) == [FIRST]


async def test_a_process_that_dies_leaves_the_rest_to_another(shop: Shop) -> None:
    order = await shop.ready()
    (claimed,) = await shop.shipments.unfinished._store.claim_due(shop.clock.now(), 10)
    await shop.carriers[FIRST].book(claimed)
    assert await shop.work() == 0
    await shop.finish()
    assert shop.told(order) == ["created"]
    assert len(shop.carriers[FIRST].books.held) == 1


# -------------------------------------------------------------------------------------------------- stopping


async def test_a_stopped_order_is_not_sent_and_says_so_once(shop: Shop) -> None:
    order = await shop.created()
    for _ in range(2):
        await shop.shipments.stop(order.order_id)
    assert shop.told(order) == ["created", "stopped"]
    assert shop.parcels(order) == []
    assert await shop.work(days=1) == 0


async def test_one_that_no_carrier_has_booked_is_stopped_without_asking(shop: Shop) -> None:
    shop.carriers[FIRST].fate = Fate.LINGERS
    order = await shop.ready()
    await shop.work()
    await shop.shipments.stop(order.order_id)
    assert shop.of(order).status is Status.STOPPED
    shop.carriers[FIRST].fate = Fate.ANSWERED
    shop.carriers[FIRST].arrive()
    await shop.finish()
    assert shop.parcels(order) == []
    assert shop.told(order) == []


async def test_stopping_an_order_of_which_nothing_was_heard_keeps_it_from_being_sent_later(
    shop: Shop,
) -> None:
    order = AnOrder()
    await shop.shipments.stop(order.order_id)
    await shop.ready(order)
    assert await shop.work() == 0
    assert shop.told(order) == []
    with pytest.raises(ShipmentNotFound):
        await shop.shipments.get(order.order_id, Principal(str(order.user_id)))
    assert await shop.shipments.list(None, None, 10) == []


async def test_one_that_is_under_way_is_not_stopped(shop: Shop) -> None:
    order = await shop.created()
    await shop.tell(FIRST, order, scan(Status.IN_TRANSIT))
    with pytest.raises(ShipmentUnderWay):
        await shop.shipments.stop(order.order_id)
    assert shop.parcels(order) == [FIRST]


async def test_the_carrier_knows_of_a_scan_before_we_do(shop: Shop) -> None:
    order = await shop.created()
    first = shop.carriers[FIRST]
    first.books = first.books.scan(shop.of(order).shipment_id, scan(Status.IN_TRANSIT))
    with pytest.raises(ShipmentUnderWay):
        await shop.shipments.stop(order.order_id)
    await shop.work()
    assert shop.told(order) == ["created", "in_transit"]


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.LINGERS, Fate.UNREACHED])
async def test_a_silent_carrier_is_asked_on_and_the_outcome_told(shop: Shop, fate: Fate) -> None:
    order = await shop.created()
    first = shop.carriers[FIRST]
    first.fate = fate
    with pytest.raises(CarrierSilent):
        await shop.shipments.stop(order.order_id)
    assert isinstance(CarrierSilent(), Unavailable)
    assert shop.told(order) == ["created"]
    first.fate = Fate.ANSWERED
    first.arrive()
    await shop.finish()
    assert shop.told(order) == ["created", "stopped"]
    await shop.shipments.stop(order.order_id)
    assert shop.parcels(order) == []


async def test_another_carrier_that_is_silent_does_not_keep_it_from_being_stopped(shop: Shop) -> None:
    shop.carriers[FIRST].fate = Fate.UNREACHED
    orders = [await shop.ready(), await shop.ready()]
    for _ in range(6):
        await shop.work(seconds=17)
    for order in orders:
        assert (shop.of(order).carrier, shop.of(order).to_void) == (SECOND, [FIRST])
    await shop.shipments.stop(orders[0].order_id)
    await shop.shipments.on_order_cancelled(orders[1].cancelled)
    await shop.work()
    for order in orders:
        assert shop.told(order) == ["created", "stopped"]
        assert shop.parcels(order) == []


async def test_a_scan_that_comes_while_the_carrier_is_silent_wins(shop: Shop) -> None:
    order = await shop.created()
    first = shop.carriers[FIRST]
    first.fate = Fate.UNREACHED
    with pytest.raises(CarrierSilent):
        await shop.shipments.stop(order.order_id)
    first.fate = Fate.ANSWERED
    await shop.tell(FIRST, order, scan(Status.IN_TRANSIT))
    await shop.finish()
    assert shop.told(order) == ["created", "in_transit"]
    with pytest.raises(ShipmentUnderWay):
        await shop.shipments.stop(order.order_id)


async def test_stopped_between_booking_and_confirming_it_is_not_sent(shop: Shop) -> None:
    order = await shop.ready()
    first = shop.carriers[FIRST]
    confirm = first.confirm

    async def stopped_first(shipment: object) -> None:
        await shop.shipments.stop(order.order_id)
        await confirm(shop.of(order))

    first.confirm = stopped_first  # type: ignore[method-assign]
    await shop.work()
    first.confirm = confirm  # type: ignore[method-assign]
    await shop.finish()
    assert shop.told(order) == ["created", "stopped"]
    assert shop.parcels(order) == []


async def test_many_who_stop_it_at_once_void_it_once(shop: Shop) -> None:
    order = await shop.created()
    await asyncio.gather(*(shop.shipments.stop(order.order_id) for _ in range(5)))
    assert shop.told(order) == ["created", "stopped"]


@pytest.mark.parametrize("arrival", list(permutations(range(3))))
async def test_a_cancelled_order_is_not_sent_whenever_that_is_heard(
    shop: Shop, arrival: tuple[int, ...]
) -> None:
    order = AnOrder()
    told = [
        lambda: shop.shipments.on_order_confirmed(order.confirmed),
        lambda: shop.shipments.on_payment_successful(order.paid),
        lambda: shop.shipments.on_order_cancelled(order.cancelled),
    ]
    for at in arrival:
        await told[at]()
        await shop.work()
    await shop.finish()
    assert shop.parcels(order) == []
    assert shop.of(order).status is Status.STOPPED


async def test_the_cancellation_of_an_order_that_is_under_way_changes_nothing(shop: Shop) -> None:
    order = await shop.created()
    await shop.tell(FIRST, order, scan(Status.IN_TRANSIT))
    await shop.shipments.on_order_cancelled(order.cancelled)
    assert shop.of(order).status is Status.IN_TRANSIT


# ------------------------------------------------------------------------------------------------- following


async def test_scans_that_were_not_told_are_asked_for(shop: Shop) -> None:
    order = await shop.created()
    first = shop.carriers[FIRST]
    shipment_id = shop.of(order).shipment_id
    for minute, status in enumerate(JOURNEY, 1):
        first.books = first.books.scan(shipment_id, scan(status, minute))
        await shop.work(minutes=30)
    assert shop.told(order) == ["created", *JOURNEY]
    assert await shop.work(days=1) == 0


async def test_without_news_it_is_asked_for_less_and_less_often(shop: Shop) -> None:
    order = await shop.created()
    pauses = []
    for _ in range(8):
        before = shop.clock.now()
        due = shop.of(order).due_at
        assert due is not None
        shop.clock.at = due
        await shop.work()
        pauses.append((due - before).total_seconds())
    assert pauses[0] <= 60
    assert 600 <= pauses[-1] <= 900


async def test_a_carrier_that_is_down_does_not_stop_the_rest(shop: Shop) -> None:
    first = await shop.created()
    express = await shop.created(AnOrder(method="express"))
    assert shop.of(express).carrier == SECOND
    shop.carriers[FIRST].fate = Fate.UNREACHED
    shop.carriers[SECOND].books = shop.carriers[SECOND].books.scan(
        shop.of(express).shipment_id, scan(Status.DELIVERED)
    )
    await shop.work(minutes=2)
    assert shop.told(express) == ["created", "delivered"]
    assert shop.of(first).due_at is not None


async def test_a_notice_of_what_is_not_ours_is_taken_and_ignored(shop: Shop) -> None:
    for shipment_id in (None, uuid4()):
        body, headers = shop.carriers[FIRST].notice(shipment_id, scan(Status.IN_TRANSIT))
        await shop.shipments.receive_notice(FIRST, body, headers)
    assert shop.all() == []


async def test_a_notice_that_nobody_signed_changes_nothing(shop: Shop) -> None:
    order = await shop.created()
    body, _ = shop.carriers[FIRST].notice(shop.of(order).shipment_id, scan(Status.DELIVERED))
    with pytest.raises(BadSignature):
        await shop.shipments.receive_notice(FIRST, body, {"signature": "mine"})
    assert shop.told(order) == ["created"]


async def test_a_scan_of_the_future_does_not_hold_the_parcel(shop: Shop) -> None:
    order = await shop.created()
    future = scan(Status.EXCEPTION, minutes=500_000)
    await shop.tell(FIRST, order, future)
    await shop.tell(FIRST, order, scan(Status.DELIVERED), future)
    assert shop.told(order) == ["created", "delivered"]


async def test_a_carrier_tells_nothing_of_anothers_parcel(shop: Shop) -> None:
    order = await shop.created()
    await shop.tell(SECOND, order, scan(Status.DELIVERED))
    assert shop.told(order) == ["created"]


# ------------------------------------------------------------------------------------ labels, weights, quotes


async def test_the_label_is_that_of_the_carrier(shop: Shop) -> None:
    order = await shop.ready()
    with pytest.raises(NoLabel):
        await shop.shipments.label(order.order_id)
    await shop.work()
    assert (await shop.shipments.label(order.order_id)).startswith(b"%PDF")
    shop.carriers[FIRST].fate = Fate.UNREACHED
    with pytest.raises(CarrierSilent):
        await shop.shipments.label(order.order_id)
    shop.carriers[FIRST].fate = Fate.ANSWERED
    await shop.shipments.stop(order.order_id)
    with pytest.raises(NoLabel):
        await shop.shipments.label(order.order_id)
    with pytest.raises(ShipmentNotFound):
        await shop.shipments.label(uuid4())


def product(version: int, weights: Mapping[UUID, int]) -> Event[ProductUpdated]:
    price = Money(Decimal("20.00"), "USD")
    changed = ProductUpdated(
        product_id=uuid4(),
        version=version,
        name="Lamp",
        description="",
        category="home",
        subcategory="",
        brand="",
        tags=(),
        specifications={},
        created_at=NOW,
        updated_at=NOW,
        variants=tuple(
            ProductVariant(
                variant_id=variant_id,
                sku=str(variant_id),
                attributes={},
                price=price,
                images=(),
                weight_grams=grams,
            )
            for variant_id, grams in weights.items()
        ),
    )
    return new_event(changed, SystemClock(), "c")


async def test_a_parcel_weighs_what_is_in_it_and_what_nobody_has_weighed_counts_as_usual(shop: Shop) -> None:
    known, unknown, unweighed = uuid4(), uuid4(), uuid4()
    await shop.shipments.on_product_changed(product(1, {known: 1200, unweighed: 0}))
    items = [Item(known, 2), Item(unknown, 1), Item(unweighed, 1), Item(known, 1)]
    (standard, _) = await shop.quotes.quote(items, ADDRESS)
    # 3.6 kg and twice half a kilogram: three kilograms are begun beyond the two that are included.
    assert str(standard.amount) == "6.70 USD"
    order = await shop.created(AnOrder(variant_id=known, quantity=3))
    parcel = shop.of(order).parcel
    assert parcel is not None
    assert parcel.weight_grams == 3600


@pytest.mark.parametrize("versions", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 3, 3)])
async def test_the_latest_version_says_what_a_variant_weighs(shop: Shop, versions: tuple[int, ...]) -> None:
    variant_id = uuid4()
    for version in versions:
        await shop.shipments.on_product_changed(product(version, {variant_id: version * 1000}))
    (weight,) = shop.store.rows.weights
    assert weight.grams == 3000


async def test_a_quote_needs_no_carrier(shop: Shop) -> None:
    for name in CARRIERS:
        shop.carriers[name].fate = Fate.UNREACHED
    assert len(await shop.quotes.quote([Item(uuid4(), 1)], ADDRESS)) == 2


async def test_the_method_and_the_destination_choose_the_carrier(shop: Shop) -> None:
    assert shop.of(await shop.created(AnOrder(method="express"))).carrier == SECOND
    abroad = make_shop(lambda tariff: replace(tariff, origin=replace(tariff.origin, country="DE")))
    assert abroad.of(await abroad.created()).carrier == THIRD


async def test_a_guest_who_has_an_account_now_sees_her_parcel_there(shop: Shop) -> None:
    order, account = await shop.created(), uuid4()
    changed = OrderBuyerChanged(order_id=order.order_id, guest_id=order.user_id, user_id=account)
    await shop.shipments.on_buyer_changed(new_event(changed, SystemClock(), "c"))
    assert (await shop.shipments.get(order.order_id, Principal(str(account)))).user_id == account
    with pytest.raises(ShipmentNotFound):
        await shop.shipments.get(order.order_id, Principal(str(order.user_id)))


async def test_where_the_parcels_of_an_erased_account_went_is_forgotten_also_of_later_ones(
    shop: Shop,
) -> None:
    order, other = await shop.created(), await shop.created()
    later = AnOrder(user_id=order.user_id)
    erased = UserErased(user_id=order.user_id)
    await shop.shipments.on_user_erased(new_event(erased, SystemClock(), "c"))
    await shop.created(later)
    for each in (order, later, other):
        await shop.tell(FIRST, each, scan(Status.DELIVERED, 1))
    places = {each.order_id: each.parcel and each.parcel.destination.line1 for each in shop.all()}
    assert places == {order.order_id: "", later.order_id: "", other.order_id: "12 Main St"}
