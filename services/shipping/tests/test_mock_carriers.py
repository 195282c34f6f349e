"""The adapters and the use cases against the mock carriers' process, which dies, hangs and loses answers."""

import asyncio
import base64
import hashlib
import hmac
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stoa_chassis.clock import SystemClock
from stoa_chassis.due import Backoff
from stoa_chassis.errors import InvalidArgument
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.testing import eventually, free_port
from stoa_events import ShipmentCreated, ShipmentStatusUpdated
from stoa_shipping import testing
from stoa_shipping.model import BadSignature, CarrierSilent, Label, Method, RetryPolicy, Shipment, Status
from stoa_shipping.peers import Account, Dhl, FedEx, Ups
from stoa_shipping.ports import Carrier, NoAnswer, NotCarried, UnderWay
from stoa_shipping.service import Shipments

from .conftest import ADDRESS, CARRIERS, NOW, SCALE, TARIFF, AnOrder, a_parcel

TIMEOUT = timedelta(seconds=0.6)
RETRY = RetryPolicy(timedelta(seconds=1.5), timedelta(seconds=1), timedelta(seconds=1))
BACKOFF = Backoff(timedelta(seconds=0.05), timedelta(seconds=0.3))
SECRETS = {
    "fedex_client_secret": "s1",
    "fedex_webhook_secret": "w1",
    "ups_access_key": "s2",
    "ups_webhook_secret": "w2",
    "dhl_api_key": "s3",
    "dhl_webhook_secret": "w3",
}
CONNECT: dict[str, Callable[[Account, timedelta], AbstractAsyncContextManager[Carrier]]] = {
    "fedex": FedEx.connect,
    "ups": Ups.connect,
    "dhl": Dhl.connect,
}


def account(name: str, url: str) -> Account:
    number = [*CONNECT].index(name) + 1
    return Account(url=f"{url}/{name}", secret=f"s{number}", webhook_secret=f"w{number}")


class MockCarriers:
    """The process, which tests may stop, start and disturb."""

    def __init__(self, folder: Path, webhook_url: str, **settings: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._client = httpx.AsyncClient(
            base_url=self.url, headers={"authorization": "Bearer operator"}, timeout=20
        )
        self._environment = {
            **os.environ,
            **{f"CARRIERS_{name.upper()}": value for name, value in SECRETS.items()},
            "CARRIERS_PORT": str(port),
            "CARRIERS_STATE": str(folder / "carriers.sqlite"),
            "CARRIERS_API_KEY": "operator",
            "CARRIERS_WEBHOOK_URL": webhook_url,
            "CARRIERS_LATENCY_MS": "5",
            "CARRIERS_FIRST_SCAN_SECONDS": "3600",
            "CARRIERS_DELIVERY_SECONDS": "7200",
            **settings,
        }

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "stoa_fakes.carriers", env=self._environment
        )
        await eventually(self._is_up, within=60, despite=(httpx.TransportError,))

    async def _is_up(self) -> bool:
        return (await self._client.get("/healthz")).is_success

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def aclose(self) -> None:
        await self.kill()
        await self._client.aclose()

    async def disturb(self, **faults: dict[str, float]) -> None:
        (await self._client.post("/admin/faults", json=faults)).raise_for_status()

    async def advance(self, label: Label, scans: int = 1) -> None:
        body = {"tracking_id": label.tracking_id, "scans": scans}
        (await self._client.post("/admin/advance", json=body)).raise_for_status()

    async def entries(self, shipment: Shipment) -> dict[str, str]:
        """Return what the carriers' books say of a shipment, by carrier."""
        found = (await self._client.get("/v1/ledger", params={"limit": 1000})).json()["data"]
        return {
            each["carrier"]: each["status"]
            for each in found
            if each["reference"] == str(shipment.shipment_id)
        }


class Receiver:
    """Takes the carriers' notices and keeps them."""

    def __init__(self) -> None:
        self.port = free_port()
        self.notices: list[tuple[str, bytes, dict[str, str]]] = []

    async def take(self, request: Request) -> Response:
        headers = dict(request.headers)
        self.notices.append((request.path_params["carrier"], await request.body(), headers))
        return Response()


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = Starlette(routes=[Route("/{carrier}", receiver.take, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=receiver.port, log_level="error"))
    serving = asyncio.create_task(server.serve())
    yield receiver
    server.should_exit = True
    await serving


@pytest.fixture(scope="module")
async def mock(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MockCarriers]:
    url = f"http://127.0.0.1:{receiver.port}"
    async with aclosing(MockCarriers(tmp_path_factory.mktemp("carriers"), url)) as mock:
        await mock.start()
        yield mock


@pytest.fixture
async def carriers(mock: MockCarriers) -> AsyncIterator[dict[str, Carrier]]:
    await mock.disturb()
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(connect(account(name, mock.url), TIMEOUT))
            for name, connect in CONNECT.items()
        }


@pytest.fixture(params=[*CONNECT])
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def carrier(carriers: dict[str, Carrier], name: str) -> Carrier:
    return carriers[name]


def a_shipment(method: Method = Method.STANDARD, line2: str = "") -> Shipment:
    shipment = Shipment.begin(AnOrder().order_id, "c", NOW)
    shipment.parcel = a_parcel(replace(ADDRESS, line2=line2, recipient="Zoë (Ada) Ωmega"), method)
    return shipment


async def booked(carrier: Carrier, shipment: Shipment) -> Shipment:
    shipment.label = await carrier.book(shipment)
    return shipment


@pytest.mark.parametrize("method", list(Method))
async def test_a_booking_has_a_number_and_is_made_once(
    carrier: Carrier, name: str, method: Method, mock: MockCarriers
) -> None:
    shipment = a_shipment(method)
    labels = await asyncio.gather(*(carrier.book(shipment) for _ in range(5)))
    assert len(set(labels)) == 1
    (label, *_) = labels
    length = {"fedex": 12, "ups": 18, "dhl": 10}[name]
    assert len(label.tracking_id) == length
    assert label.tracking_id in label.tracking_url
    assert label.estimated_delivery > datetime.now(UTC)
    assert await mock.entries(shipment) == {name: "booked"}


async def test_what_was_booked_is_confirmed_voided_or_collected(
    carrier: Carrier, name: str, mock: MockCarriers
) -> None:
    for _ in range(2):
        voided = await booked(carrier, a_shipment())
    await carrier.confirm(voided)
    await carrier.confirm(voided)
    assert await mock.entries(voided) == {name: "confirmed"}
    await carrier.void(voided)
    await carrier.void(voided)
    assert await mock.entries(voided) == {name: "voided"}
    with pytest.raises(NoAnswer):
        await carrier.confirm(voided)
    with pytest.raises(NotCarried):
        await carrier.book(voided)
    collected = await booked(carrier, a_shipment())
    await carrier.confirm(collected)
    assert collected.label is not None
    await mock.advance(collected.label)
    with pytest.raises(UnderWay):
        await carrier.void(collected)
    assert await mock.entries(collected) == {name: "confirmed"}


async def test_what_was_never_booked_is_voided_for_good(
    carrier: Carrier, name: str, mock: MockCarriers
) -> None:
    shipment = a_shipment()
    await carrier.void(shipment)
    with pytest.raises(NotCarried):
        await carrier.book(shipment)
    assert await mock.entries(shipment) == {name: "voided"}


async def test_what_a_carrier_does_not_carry_it_says_in_words(carrier: Carrier) -> None:
    with pytest.raises(NotCarried, match=r"served|unavailable"):
        await carrier.book(a_shipment(line2="SIMULATE NOT SERVED"))


async def test_the_label_is_a_pdf_with_the_number_on_it(carrier: Carrier) -> None:
    shipment = await booked(carrier, a_shipment())
    assert shipment.label is not None
    label = await carrier.label(shipment)
    assert label.startswith(b"%PDF-1.4")
    assert label.rstrip().endswith(b"%%EOF")
    assert shipment.label.tracking_id.encode() in label
    start = int(label.rsplit(b"startxref", 1)[1].split()[0])
    assert label[start:].startswith(b"xref\n0 6")
    first = int(label[start:].split(b"\n")[3].split()[0])
    assert label[first:].startswith(b"1 0 obj")


async def test_scans_are_told_and_can_be_asked_for_and_say_the_same(
    carrier: Carrier, name: str, mock: MockCarriers, receiver: Receiver
) -> None:
    shipment = await booked(carrier, a_shipment())
    assert await carrier.scans(shipment) == ()
    await carrier.confirm(shipment)
    assert shipment.label is not None
    await mock.advance(shipment.label)
    await mock.advance(shipment.label, 2)
    told: list[Any] = []

    async def all_told() -> bool:
        told.clear()
        for carrier_name, body, headers in receiver.notices:
            if carrier_name == name:
                notice = carrier.read_notice(body, headers, datetime.now(UTC))
                told.extend(notice.scans if notice.shipment_id == shipment.shipment_id else ())
        return len(set(told)) == 3

    await eventually(all_told)
    asked = await carrier.scans(shipment)
    assert [each.status for each in asked] == [
        Status.IN_TRANSIT,
        Status.OUT_FOR_DELIVERY,
        Status.DELIVERED,
    ]
    assert set(asked) == set(told)
    assert all(each.description and each.location for each in asked)


@pytest.mark.parametrize(
    ("wish", "statuses"),
    [
        ("SIMULATE DELAY", [Status.IN_TRANSIT, Status.EXCEPTION, Status.OUT_FOR_DELIVERY, Status.DELIVERED]),
        ("simulate return", [Status.IN_TRANSIT, Status.OUT_FOR_DELIVERY, Status.RETURNED]),
    ],
)
async def test_trouble_on_the_way_is_told_in_our_words(
    carrier: Carrier, mock: MockCarriers, wish: str, statuses: list[Status]
) -> None:
    shipment = await booked(carrier, a_shipment(line2=wish))
    await carrier.confirm(shipment)
    assert shipment.label is not None
    await mock.advance(shipment.label, 10)
    assert [each.status for each in await carrier.scans(shipment)] == statuses


async def test_a_notice_that_was_changed_or_is_none_is_refused(
    carrier: Carrier, name: str, mock: MockCarriers, receiver: Receiver
) -> None:
    shipment = await booked(carrier, a_shipment())
    await carrier.confirm(shipment)
    assert shipment.label is not None
    before = len(receiver.notices)
    await mock.advance(shipment.label)
    await eventually(lambda: len(receiver.notices) > before)
    _, body, headers = next(each for each in receiver.notices if each[0] == name)
    now = datetime.now(UTC)
    with pytest.raises(BadSignature):
        carrier.read_notice(body + b" ", headers, now)
    with pytest.raises(BadSignature):
        carrier.read_notice(body, {}, now)
    if name == "dhl":
        with pytest.raises(BadSignature):
            carrier.read_notice(body, headers, now + timedelta(minutes=6))
        for stamp in ("t=abc,v1=x", "t=٣,v1=x", "v1=x", "t"):
            with pytest.raises(BadSignature):
                carrier.read_notice(body, {"dhl-signature": stamp}, now)


@pytest.mark.parametrize("fault", ["error_rate", "lost_answer_rate", "latency_ms"])
async def test_a_carrier_that_is_down_or_slow_gives_no_answer(
    carrier: Carrier, name: str, mock: MockCarriers, fault: str
) -> None:
    shipment = await booked(carrier, a_shipment())
    wrong: dict[str, float] = {fault: 1000 if fault == "latency_ms" else 1}
    await mock.disturb(**{name: wrong})
    for request in (carrier.book, carrier.confirm, carrier.void, carrier.scans, carrier.label):
        with pytest.raises(NoAnswer):
            await request(shipment)


async def test_a_wrong_secret_is_no_outcome(mock: MockCarriers, name: str) -> None:
    await mock.disturb()
    wrong = replace(account(name, mock.url), secret="wrong")
    async with CONNECT[name](wrong, TIMEOUT) as carrier:
        with pytest.raises(NoAnswer):
            await carrier.book(a_shipment())


async def test_tokens_that_expire_or_are_forgotten_are_renewed(receiver: Receiver, tmp_path: Path) -> None:
    async with aclosing(MockCarriers(tmp_path, "", CARRIERS_TOKEN_SECONDS="0.2")) as mock:
        await mock.start()
        async with FedEx.connect(account("fedex", mock.url), TIMEOUT) as carrier:
            await carrier.book(a_shipment())
            await asyncio.sleep(0.3)
            shipment = await booked(carrier, a_shipment())
            await mock.kill()
            with pytest.raises(NoAnswer):
                await carrier.confirm(shipment)
            await mock.start()
            await carrier.confirm(shipment)
            assert await mock.entries(shipment) == {"fedex": "confirmed"}


def shipments_on(
    store: MemoryStore[testing.Rows], carriers: dict[str, Carrier], polling: Backoff = BACKOFF
) -> Shipments:
    clock = SystemClock()
    return Shipments(
        memory_unit_of_work(lambda: store, testing.open_tx, clock),
        testing.ShipmentReader(lambda: store),
        testing.Unfinished(lambda: store, BACKOFF, RETRY.lease),
        carriers,
        TARIFF,
        SCALE,
        clock,
        RETRY,
        BACKOFF,
        polling,
    )


async def test_parcels_are_sent_once_while_carriers_die_lose_answers_and_come_back(
    mock: MockCarriers, carriers: dict[str, Carrier]
) -> None:
    store = MemoryStore(testing.Rows())
    shipments = shipments_on(store, carriers)
    working = asyncio.create_task(shipments.unfinished.run())
    orders = [AnOrder(method="express" if number % 2 else "standard") for number in range(20)]
    await mock.disturb(**{name: {"lost_answer_rate": 0.5, "error_rate": 0.2} for name in CARRIERS})
    for order in orders:
        await shipments.on_payment_successful(order.paid)
        await shipments.on_order_confirmed(order.confirmed)
    await mock.kill()
    await asyncio.sleep(0.5)
    await mock.start()
    await mock.disturb(ups={"error_rate": 1}, fedex={"lost_answer_rate": 0.7})
    await asyncio.sleep(2)
    stopped = orders[:5]
    await mock.disturb()

    async def stop(order: AnOrder) -> bool:
        await shipments.stop(order.order_id)
        return True

    for order in stopped:
        await eventually(partial(stop, order), despite=(CarrierSilent,))
    entities = {each.order_id: each for each in map(testing.shipment_of, store.rows.shipments)}

    async def settled() -> bool:
        entities.update({each.order_id: each for each in map(testing.shipment_of, store.rows.shipments)})
        return not any(each.to_void or each.asking or each.to_confirm for each in entities.values())

    await eventually(settled, within=20)
    working.cancel()
    for order in orders:
        books = await mock.entries(entities[order.order_id])
        confirmed = [name for name, status in books.items() if status == "confirmed"]
        assert set(books.values()) <= {"confirmed", "voided"}
        assert confirmed == ([] if order in stopped else [entities[order.order_id].carrier])
    created = [each.order_id for each in store.payloads(ShipmentCreated)]
    assert len(created) == len(set(created))


async def test_a_parcel_arrives_though_no_notice_does(
    mock: MockCarriers, carriers: dict[str, Carrier]
) -> None:
    store = MemoryStore(testing.Rows())
    shipments = shipments_on(store, carriers)
    working = asyncio.create_task(shipments.unfinished.run())
    order = AnOrder()
    await shipments.on_payment_successful(order.paid)
    await shipments.on_order_confirmed(order.confirmed)
    await eventually(lambda: bool(store.payloads(ShipmentCreated)))
    (created,) = store.payloads(ShipmentCreated)
    label = Label(created.tracking_id, "", NOW)

    async def advanced() -> bool:
        await mock.advance(label, 3)
        return True

    await eventually(advanced, despite=(httpx.HTTPStatusError,))  # it may not be confirmed yet
    await eventually(lambda: len(store.payloads(ShipmentStatusUpdated)) == 3)
    working.cancel()
    assert [each.status for each in store.payloads(ShipmentStatusUpdated)] == [
        "in_transit",
        "out_for_delivery",
        "delivered",
    ]


async def test_a_signed_notice_of_another_shape_is_refused(name: str) -> None:
    at = account(name, "http://127.0.0.1:1")
    secret = at.webhook_secret.encode()
    async with CONNECT[name](at, TIMEOUT) as carrier:
        for body in (b"", b"[]", b"{}", orjson.dumps({"refNo": "x", "index": 1, "events": [{}]})):
            digest = hmac.new(secret, body, hashlib.sha256)
            timed = hmac.new(secret, b"%d." % NOW.timestamp() + body, hashlib.sha256).hexdigest()
            headers = {
                "fdx-signature": digest.hexdigest(),
                "x-ups-signature": base64.b64encode(digest.digest()).decode(),
                "dhl-signature": f"t={int(NOW.timestamp())},v1={timed}",
            }
            with pytest.raises(InvalidArgument):
                carrier.read_notice(body, headers, NOW)
