"""What adapters send, and make of bad answers: a tracking number is believed only with its check digit."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import reduce
from operator import getitem
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from stoa_chassis.testing import free_port
from stoa_shipping.model import Shipment
from stoa_shipping.peers import Account, Dhl, FedEx, Ups, dhl_number, fedex_number, ups_number
from stoa_shipping.ports import Carrier, NoAnswer, NotCarried, UnderWay

from .conftest import NOW, a_parcel

# As the carriers give them in their documents.
GENUINE = {
    fedex_number: ["986578788855", "477179081230", "799531274483"],
    ups_number: ["1Z999AA10123456784", "1Z5R89390357567127"],
    dhl_number: ["3318810025", "8487135506"],
}


@pytest.mark.parametrize(
    ("check", "number"), [(check, number) for check, numbers in GENUINE.items() for number in numbers]
)
def test_a_genuine_number_has_the_right_check_digit_and_one_digit_off_has_not(
    check: Callable[[str], str], number: str
) -> None:
    assert check(number) == number
    for wrong in (*(f"{number[:-1]}{digit}" for digit in range(10)), number[:-1], f"{number}0", "", "x" * 12):
        if wrong != number:
            with pytest.raises(ValueError, match="not a tracking number"):
                check(wrong)


def a_shipment() -> Shipment:
    shipment = Shipment.begin(uuid4(), "c", NOW)
    shipment.parcel = a_parcel()
    return shipment


@asynccontextmanager
async def answering(
    connect: Any, status: int, body: Any, sent: list[Any] | None = None
) -> AsyncIterator[Carrier]:
    """Connect to a carrier that answers everything like this, but gives tokens; keep what it is sent."""

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/oauth/token"):
            return web.json_response({"access_token": "t", "expires_in": 3600})
        if sent is not None:
            sent.append(await request.json())
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    account = Account(url=f"http://127.0.0.1:{port}", secret="s", webhook_secret="w")
    try:
        async with connect(account, timedelta(seconds=5)) as carrier:
            yield carrier
    finally:
        await runner.cleanup()


def fedex(number: str) -> Any:
    piece = {"trackingNumber": number, "deliveryDatestamp": "2026-12-01"}
    return {"output": {"transactionShipments": [{"pieceResponses": [piece]}]}}


def ups(number: str) -> Any:
    results = {"ShipmentIdentificationNumber": number, "ScheduledDeliveryDate": "20261201"}
    return {"ShipmentResponse": {"ShipmentResults": results}}


def dhl(number: str) -> Any:
    return {"items": [{"shipmentNo": number, "estimatedDeliveryDate": "2026-12-01"}]}


CARRIERS = [
    (FedEx.connect, fedex, "986578788855"),
    (Ups.connect, ups, "1Z999AA10123456784"),
    (Dhl.connect, dhl, "3318810025"),
]


@pytest.mark.parametrize(("connect", "body", "number"), CARRIERS)
async def test_a_label_is_taken_with_a_right_number_alone(connect: Any, body: Any, number: str) -> None:
    async with answering(connect, 200, body(number)) as carrier:
        label = await carrier.book(a_shipment())
    assert label.tracking_id == number
    assert number in label.tracking_url
    assert label.estimated_delivery.date().isoformat() == "2026-12-01"
    wrongs: list[Any] = [body(number[:-1] + str((int(number[-1]) + 1) % 10)), {}, [], "no"]
    for wrong in wrongs:
        async with answering(connect, 200, wrong) as carrier:
            with pytest.raises(NoAnswer):
                await carrier.book(a_shipment())


@pytest.mark.parametrize(("connect", "body", "number"), CARRIERS)
@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_what_is_no_outcome_is_no_answer(connect: Any, body: Any, number: str, status: int) -> None:
    async with answering(connect, status, {}) as carrier:
        for ask in (carrier.book, carrier.confirm, carrier.void):
            with pytest.raises(NoAnswer):
                await ask(a_shipment())


ADDRESSES: list[tuple[Any, Any, tuple[str | int, ...], Any]] = [
    (
        FedEx.connect,
        fedex("986578788855"),
        ("requestedShipment", "recipients", 0),
        {
            "contact": {"personName": "Ada Lovelace"},
            "address": {
                "streetLines": ["12 Main St", "Floor 2"],
                "city": "Austin",
                "stateOrProvinceCode": "TX",
                "postalCode": "78701",
                "countryCode": "US",
            },
        },
    ),
    (
        Ups.connect,
        ups("1Z999AA10123456784"),
        ("ShipmentRequest", "Shipment", "ShipTo"),
        {
            "Name": "Ada Lovelace",
            "Address": {
                "AddressLine": ["12 Main St", "Floor 2"],
                "City": "Austin",
                "StateProvinceCode": "TX",
                "PostalCode": "78701",
                "CountryCode": "US",
            },
        },
    ),
    (
        Dhl.connect,
        dhl("3318810025"),
        ("shipments", 0, "consignee"),
        {
            "name1": "Ada Lovelace",
            "addressStreet": "12 Main St",
            "additionalAddressInformation1": "Floor 2",
            "city": "Austin",
            "state": "TX",
            "postalCode": "78701",
            "country": "US",
        },
    ),
]


@pytest.mark.parametrize(("connect", "body", "place", "address"), ADDRESSES)
async def test_each_part_of_an_address_is_where_the_carrier_looks_for_it(
    connect: Any, body: Any, place: tuple[str | int, ...], address: Any
) -> None:
    sent: list[Any] = []
    async with answering(connect, 200, body, sent) as carrier:
        await carrier.book(a_shipment())
    assert [reduce(getitem, place, each) for each in sent] == [address]


REFUSALS = [
    (FedEx.connect, {"errors": [{"code": "X", "message": "not to there"}]}),
    (Ups.connect, {"response": {"errors": [{"code": "X", "message": "not to there"}]}}),
    (Dhl.connect, {"title": "Bad Request", "detail": "not to there"}),
]


@pytest.mark.parametrize(("connect", "body"), REFUSALS)
@pytest.mark.parametrize("status", [400, 409, 422])
async def test_a_refusal_says_why(connect: Any, body: Any, status: int) -> None:
    async with answering(connect, status, body) as carrier:
        with pytest.raises(NotCarried, match="not to there"):
            await carrier.book(a_shipment())


@pytest.mark.parametrize(
    ("connect", "status", "body"),
    [
        (FedEx.connect, 400, {"errors": [{"code": "SHIPMENT.ALREADY.TENDERED", "message": "gone"}]}),
        (Ups.connect, 400, {"response": {"errors": [{"code": "190117", "message": "gone"}]}}),
        (Dhl.connect, 409, {"detail": "gone"}),
    ],
)
async def test_what_was_collected_can_not_be_voided(connect: Any, status: int, body: Any) -> None:
    async with answering(connect, status, body) as carrier:
        with pytest.raises(UnderWay):
            await carrier.void(a_shipment())


@pytest.mark.parametrize(("connect", "body"), REFUSALS[:2])
async def test_another_refusal_to_void_is_no_outcome(connect: Any, body: Any) -> None:
    async with answering(connect, 400, body) as carrier:
        with pytest.raises(NoAnswer, match=r"^X$"):
            await carrier.void(a_shipment())


@pytest.mark.parametrize(("connect", "body", "number"), CARRIERS)
async def test_what_a_carrier_says_of_a_person_is_not_logged(connect: Any, body: Any, number: str) -> None:
    with capture_logs() as logged:
        async with answering(connect, 403, {"detail": "no such street as 1 Engine Row"}) as carrier:
            with pytest.raises(NoAnswer) as refused:
                await carrier.book(a_shipment())
    assert "a company refuses a request" in [entry["event"] for entry in logged]
    assert "Engine Row" not in f"{logged} {refused.value}"
