"""The shipping service over gRPC: who may call, what is refused, what the messages say."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from stoa.shipping.v1.shipping_pb2 import (
    GetShipmentLabelRequest,
    GetTrackingRequest,
    ListShipmentsRequest,
    QuoteShippingRequest,
    ReceiveCarrierNoticeRequest,
    StopShipmentRequest,
)
from stoa.shipping.v1.shipping_pb2_grpc import ShippingServiceStub, add_ShippingServiceServicer_to_server
from stoa.types.v1.address_pb2 import Address
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.testing import InProcessServer, serve_in_process
from stoa_chassis.timestamps import to_timestamp
from stoa_shipping.api import ShippingServicer
from stoa_shipping.model import Status
from stoa_shipping.testing import ESTIMATED, Fate

from .conftest import CARRIERS, FIRST, AnOrder, Shop, scan

ADDRESS = {
    "recipient": "Ada Lovelace",
    "line1": "12 Main St",
    "line2": "Floor 2",
    "city": "Austin",
    "region": "TX",
    "postal_code": "78701",
    "country": "US",
}


@pytest.fixture
async def server(shop: Shop) -> AsyncIterator[InProcessServer]:
    servicer = ShippingServicer(shop.quotes, shop.shipments)
    async with serve_in_process(add_ShippingServiceServicer_to_server, servicer, name="shipping") as running:
        yield running


@pytest.fixture
def order(server: InProcessServer) -> ShippingServiceStub:
    return server.stub(ShippingServiceStub, as_service="order")


@pytest.fixture
def staff(server: InProcessServer) -> ShippingServiceStub:
    return server.stub(ShippingServiceStub, as_user=uuid4(), staff=True)


@pytest.fixture
def customer(server: InProcessServer) -> ShippingServiceStub:
    return server.stub(ShippingServiceStub, as_user=uuid4())


def a_request(**changes: Any) -> QuoteShippingRequest:
    item = QuoteShippingRequest.Item(variant_id=str(uuid4()), quantity=1)
    fields: dict[str, Any] = {"items": [item], "address": Address(**ADDRESS)}
    return QuoteShippingRequest(**(fields | changes))


def every_field(message: Message) -> bool:
    return {field.name for field, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name)


async def test_customers_and_the_order_service_get_quotes(
    customer: ShippingServiceStub, order: ShippingServiceStub
) -> None:
    for caller in (customer, order):
        quotes = (await caller.QuoteShipping(a_request())).quotes
        assert [each.shipping_method for each in quotes] == ["standard", "express"]
        assert all(map(every_field, quotes))
    assert (quotes[0].carrier, quotes[0].amount.units, quotes[0].amount.nanos) == ("ups", 4, 900_000_000)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"items": []}, "items"),
        ({"items": [QuoteShippingRequest.Item(variant_id="lamp", quantity=1)]}, "items[0].variant_id"),
        ({"items": [QuoteShippingRequest.Item(variant_id=str(uuid4()))]}, "items[0].quantity"),
        ({"items": [QuoteShippingRequest.Item(variant_id=str(uuid4()), quantity=0)]}, "items[0].quantity"),
        ({"address": None}, "address"),
        ({"address": Address(**ADDRESS | {"country": "us"})}, "address.country"),
        ({"address": Address(**ADDRESS | {"postal_code": "x"})}, "address.postal_code"),
        ({"address": Address(**ADDRESS | {"city": ""})}, "address.city"),
    ],
)
async def test_what_is_wrong_with_a_request_is_named(
    customer: ShippingServiceStub, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(RemoteError) as refused:
        await customer.QuoteShipping(a_request(**changes))
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_what_is_too_heavy_is_refused_in_words(customer: ShippingServiceStub) -> None:
    heavy = QuoteShippingRequest.Item(variant_id=str(uuid4()), quantity=1_000_000)
    with pytest.raises(RemoteError) as refused:
        await customer.QuoteShipping(a_request(items=[heavy] * 200))
    assert (refused.value.code, refused.value.reason) == (Code.FAILED_PRECONDITION, "TOO_HEAVY")


async def test_nothing_of_a_parcel_is_left_out(
    shop: Shop, server: InProcessServer, staff: ShippingServiceStub
) -> None:
    sent = await shop.created(AnOrder(line2="Floor 2"))
    await shop.tell(FIRST, sent, scan(Status.IN_TRANSIT, 1))
    shipment = shop.of(sent)
    buyer = server.stub(ShippingServiceStub, as_user=sent.user_id)
    tracking = (await buyer.GetTracking(GetTrackingRequest(order_id=str(sent.order_id)))).tracking
    assert every_field(tracking)
    assert every_field(tracking.events[-1])
    assert [each.status for each in tracking.events] == ["created", "in_transit"]
    assert tracking.shipment_id == str(shipment.shipment_id)
    assert (tracking.carrier, tracking.status) == (FIRST, "in_transit")
    assert tracking.estimated_delivery == to_timestamp(ESTIMATED)
    (listed,) = (await staff.ListShipments(ListShipmentsRequest(status="in_transit"))).shipments
    assert {field.name for field, _ in listed.ListFields()} == set(listed.DESCRIPTOR.fields_by_name) - {
        "problem"
    }
    assert listed.destination == Address(**ADDRESS)
    assert (listed.weight_grams, listed.user_id) == (1000, str(sent.user_id))


async def test_one_that_no_carrier_has_yet_says_why(shop: Shop, staff: ShippingServiceStub) -> None:
    for name in CARRIERS:
        shop.carriers[name].refuses = "too far"
    sent = await shop.ready()
    for _ in range(3):
        await shop.work()
    tracking = (await staff.GetTracking(GetTrackingRequest(order_id=str(sent.order_id)))).tracking
    assert (tracking.status, tracking.carrier, tracking.tracking_id) == ("pending", "", "")
    assert not tracking.HasField("estimated_delivery")
    (listed,) = (await staff.ListShipments(ListShipmentsRequest(status="pending"))).shipments
    assert listed.problem == "dhl: too far"


async def test_shipments_are_listed_page_by_page(shop: Shop, staff: ShippingServiceStub) -> None:
    sent = [str((await shop.created()).order_id) for _ in range(3)]
    first = await staff.ListShipments(ListShipmentsRequest(page_size=2))
    assert [each.order_id for each in first.shipments] == [sent[2], sent[1]]
    rest = await staff.ListShipments(ListShipmentsRequest(page_token=first.next_page_token))
    assert ([each.order_id for each in rest.shipments], rest.next_page_token) == ([sent[0]], "")
    with pytest.raises(RemoteError) as refused:
        await staff.ListShipments(ListShipmentsRequest(status="created", page_token=first.next_page_token))
    assert [violation.field for violation in refused.value.violations] == ["page_token"]


async def test_the_label_is_a_pdf(shop: Shop, staff: ShippingServiceStub) -> None:
    sent = await shop.created()
    request = GetShipmentLabelRequest(order_id=str(sent.order_id))
    label = (await staff.GetShipmentLabel(request)).label
    assert label.content_type == "application/pdf"
    assert label.data.startswith(b"%PDF")
    shop.carriers[FIRST].fate = Fate.UNREACHED
    with pytest.raises(RemoteError) as refused:
        await staff.GetShipmentLabel(request)
    assert (refused.value.code, refused.value.reason) == (Code.UNAVAILABLE, "CARRIER_SILENT")


async def test_the_order_service_stops_in_time_or_is_told_that_it_is_too_late(
    shop: Shop, order: ShippingServiceStub
) -> None:
    early, late = await shop.created(), await shop.created()
    await shop.tell(FIRST, late, scan(Status.IN_TRANSIT))
    for _ in range(2):
        await order.StopShipment(StopShipmentRequest(order_id=str(early.order_id)))
    with pytest.raises(RemoteError) as refused:
        await order.StopShipment(StopShipmentRequest(order_id=str(late.order_id)))
    assert (refused.value.code, refused.value.reason) == (Code.FAILED_PRECONDITION, "SHIPMENT_UNDER_WAY")
    assert shop.of(early).status is Status.STOPPED
    assert shop.of(late).status is Status.IN_TRANSIT


async def test_a_silent_carrier_can_be_asked_again(shop: Shop, order: ShippingServiceStub) -> None:
    sent = await shop.created()
    shop.carriers[FIRST].fate = Fate.UNREACHED
    with pytest.raises(RemoteError) as refused:
        await order.StopShipment(StopShipmentRequest(order_id=str(sent.order_id)))
    assert (refused.value.code, refused.value.reason) == (Code.UNAVAILABLE, "CARRIER_SILENT")


async def test_a_carriers_notice_needs_no_token_but_its_signature(
    shop: Shop, server: InProcessServer
) -> None:
    sent = await shop.created()
    carrier = server.stub(ShippingServiceStub)
    body, headers = shop.carriers[FIRST].notice(shop.of(sent).shipment_id, scan(Status.IN_TRANSIT))
    request = ReceiveCarrierNoticeRequest(carrier=FIRST, body=HttpBody(data=body))
    with pytest.raises(RemoteError) as refused:
        await carrier.ReceiveCarrierNotice(request)
    assert (refused.value.code, refused.value.reason) == (Code.UNAUTHENTICATED, "BAD_SIGNATURE")
    await carrier.ReceiveCarrierNotice(request, metadata=tuple(headers.items()))
    assert shop.told(sent) == ["created", "in_transit"]


async def test_others_may_not(server: InProcessServer, customer: ShippingServiceStub, shop: Shop) -> None:
    sent = await shop.created()
    of_order = {"order_id": str(sent.order_id)}
    refusals: list[tuple[Any, Message, str]] = [
        (customer.GetTracking, GetTrackingRequest(**of_order), "SHIPMENT_NOT_FOUND"),
        (customer.ListShipments, ListShipmentsRequest(), "STAFF_ONLY"),
        (customer.GetShipmentLabel, GetShipmentLabelRequest(**of_order), "STAFF_ONLY"),
        (customer.StopShipment, StopShipmentRequest(**of_order), "SERVICES_ONLY"),
        (server.stub(ShippingServiceStub).QuoteShipping, a_request(), "TOKEN_MISSING"),
    ]
    for call, request, reason in refusals:
        with pytest.raises(RemoteError) as refused:
            await call(request)
        assert refused.value.reason == reason
