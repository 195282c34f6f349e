"""The mock payment gateway, as the process that the stack runs."""

import asyncio
import hashlib
import hmac
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stoa_chassis.testing import free_port
from stoa_fakes.payment_gateway.ledger import Ledger

API_KEY, SECRET = "test-key", "test-secret"
# Seconds after which a slow card is captured, and after which a notice is sent.
LATE, DELAY = 1.5, 0.1


class Arrival(NamedTuple):
    """A notice that was taken."""

    at: float
    signature: str
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content


class Receiver:
    """Takes notices, after refusing as many as it is told to."""

    def __init__(self) -> None:
        self.notices: list[Arrival] = []
        self.refuse = 0
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hook"

    async def take(self, request: Request) -> Response:
        body = await request.body()
        if self.refuse > 0:
            self.refuse -= 1
            return Response(status_code=503)
        self.notices.append(Arrival(time.time(), request.headers["x-gateway-signature"], body))
        return Response()

    async def about(self, resource_id: str) -> Arrival:
        """Wait for a notice about a charge or a refund."""
        for _ in range(200):
            for notice in self.notices:
                if notice.content["data"]["object"]["id"] == resource_id:
                    return notice
            await asyncio.sleep(0.05)
        raise AssertionError(f"no notice about {resource_id} came")


class Gateway:
    """The process under test."""

    def __init__(self, state: Path, webhook_url: str) -> None:
        self.port = free_port()
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"authorization": f"Bearer {API_KEY}"},
            timeout=20,
        )
        self._environment = {
            **os.environ,
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_STATE": str(state),
            "GATEWAY_API_KEY": API_KEY,
            "GATEWAY_WEBHOOK_SECRET": SECRET,
            "GATEWAY_WEBHOOK_URL": webhook_url,
            "GATEWAY_TIMEOUT_ANSWER_SECONDS": str(LATE),
            "GATEWAY_LATENCY_MS": "0",
            "GATEWAY_WEBHOOK_DELAY_MS": str(DELAY * 1000),
        }

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "stoa_fakes.payment_gateway", env=self._environment
        )
        for _ in range(200):
            try:
                if (await self.client.get("/healthz")).is_success:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)
        raise AssertionError("the gateway did not start")

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process.returncode is None:
            self.process.send_signal(how)
            await self.process.wait()

    async def charge(
        self, key: str, token: str = "tok_visa", amount: int = 1000, within: float = 20
    ) -> httpx.Response:
        return await self.client.post(
            "/v1/charges",
            json={"amount": amount, "currency": "USD", "token": token, "metadata": {"order_id": key}},
            headers={"idempotency-key": key},
            timeout=within,
        )

    async def refund(self, key: str, charge: str, amount: int) -> httpx.Response:
        body = {"charge": charge, "amount": amount}
        return await self.client.post("/v1/refunds", json=body, headers={"idempotency-key": key})


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = Starlette(routes=[Route("/hook", receiver.take, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=receiver.port, log_level="error"))
    serving = asyncio.create_task(server.serve())
    try:
        yield receiver
    finally:
        server.should_exit = True
        await serving


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
async def gateway(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("gateway") / "books" / "gateway.sqlite", receiver.url)
    await gateway.start()
    yield gateway
    await gateway.stop()
    await gateway.client.aclose()


def new_key() -> str:
    return f"order-{time.time_ns()}"


async def test_the_same_key_at_once_charges_once(gateway: Gateway) -> None:
    key = new_key()
    answers = await asyncio.gather(*(gateway.charge(key) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert answers[0].json()["card"] == {"brand": "visa", "last4": "4242"}


async def test_a_key_used_with_another_body_is_refused(gateway: Gateway) -> None:
    key = new_key()
    await gateway.charge(key)
    assert (await gateway.charge(key, amount=2000)).status_code == 409


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("tok_declined", "card_declined"),
        ("tok_insufficient_funds", "insufficient_funds"),
        ("tok_nobody_knows", "invalid_token"),
    ],
)
async def test_a_card_without_cover_is_declined_and_stays_so(gateway: Gateway, token: str, code: str) -> None:
    key = new_key()
    first, again = await gateway.charge(key, token), await gateway.charge(key, token)
    assert first.status_code == again.status_code == 402
    assert first.json() == again.json()
    assert first.json()["error"]["code"] == code
    found = (await gateway.client.get("/v1/charges", params={"idempotency_key": key})).json()["data"]
    assert [charge["status"] for charge in found] == ["failed"]


async def test_a_slow_card_is_pending_then_captured_after_the_caller_gave_up(
    gateway: Gateway, receiver: Receiver
) -> None:
    key, began = new_key(), time.time()
    with pytest.raises(httpx.ReadTimeout):
        await gateway.charge(key, "tok_timeout", within=0.5)
    (pending,) = (await gateway.client.get("/v1/charges", params={"idempotency_key": key})).json()["data"]
    assert pending["status"] == "pending"
    for _ in range(100):
        charge = (await gateway.client.get(f"/v1/charges/{pending['id']}")).json()
        if charge["status"] == "succeeded":
            break
        await asyncio.sleep(0.05)
    assert charge["status"] == "succeeded"
    assert (await receiver.about(charge["id"])).at - began >= LATE + DELAY


async def test_refunds_never_exceed_what_was_captured(gateway: Gateway) -> None:
    charge = (await gateway.charge(new_key())).json()["id"]
    answers = await asyncio.gather(*(gateway.refund(f"{charge}-{n}", charge, 300) for n in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 400, 400]
    assert (await gateway.client.get(f"/v1/charges/{charge}")).json()["amount_refunded"] == 900


async def test_what_is_held_is_captured_once_or_given_back_as_a_whole(gateway: Gateway) -> None:
    async def hold() -> str:
        body = {"amount": 1000, "currency": "USD", "token": "tok_visa", "capture": False}
        held = await gateway.client.post("/v1/charges", json=body, headers={"idempotency-key": new_key()})
        assert (held.json()["status"], held.json()["captured"]) == ("succeeded", False)
        return str(held.json()["id"])

    charge = await hold()
    for _ in range(2):
        captured = await gateway.client.post(f"/v1/charges/{charge}/capture")
        assert (captured.status_code, captured.json()["captured"]) == (200, True)
    charge = await hold()
    assert (await gateway.refund(new_key(), charge, 400)).json()["error"]["code"] == "charge_not_captured"
    assert (await gateway.refund(new_key(), charge, 1000)).is_success
    refused = await gateway.client.post(f"/v1/charges/{charge}/capture")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "charge_not_held")
    assert (await gateway.client.post("/v1/charges/ch_none/capture")).status_code == 404


def test_a_ledger_of_an_older_version_is_read(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "new.sqlite", sends_notices=False):
        pass
    with closing(sqlite3.connect(tmp_path / "new.sqlite")) as database:
        database.execute("alter table charges drop column captured")
    with Ledger.open(tmp_path / "new.sqlite", sends_notices=False) as ledger:
        charge = ledger.charge(
            "k", "f", amount=1, currency="USD", token="tok_visa", metadata={}, capture_after=0, capture=True
        )
        assert charge["captured"]


async def test_a_repeated_refund_gives_back_once(gateway: Gateway) -> None:
    charge = (await gateway.charge(new_key())).json()["id"]
    first, again = await gateway.refund(charge, charge, 400), await gateway.refund(charge, charge, 400)
    assert first.json() == again.json()
    assert (await gateway.client.get(f"/v1/charges/{charge}")).json()["amount_refunded"] == 400


async def test_a_declined_charge_is_not_refunded(gateway: Gateway) -> None:
    declined = (await gateway.charge(new_key(), "tok_declined")).json()["error"]["charge"]["id"]
    assert (await gateway.refund(new_key(), declined, 1)).json()["error"]["code"] == "charge_not_captured"


async def test_notices_are_signed_and_sent_until_they_are_taken(gateway: Gateway, receiver: Receiver) -> None:
    receiver.refuse = 2
    charge = (await gateway.charge(new_key())).json()
    notice = await receiver.about(charge["id"])
    assert receiver.refuse == 0
    assert notice.content["type"] == "charge.succeeded"
    assert notice.content["data"]["object"] == charge
    timestamp, digest = (part.split("=")[1] for part in notice.signature.split(","))
    expected = hmac.new(SECRET.encode(), timestamp.encode() + b"." + notice.body, hashlib.sha256).hexdigest()
    assert digest == expected
    assert abs(time.time() - int(timestamp)) < 10


async def test_a_notice_is_sent_a_moment_after_what_it_is_about(gateway: Gateway, receiver: Receiver) -> None:
    began = time.time()
    charge = (await gateway.charge(new_key())).json()["id"]
    assert (await receiver.about(charge)).at - began >= DELAY
    began = time.time()
    refund = (await gateway.refund(charge, charge, 100)).json()["id"]
    assert (await receiver.about(refund)).at - began >= DELAY


async def test_notices_can_be_made_to_come_late_and_more_than_once(
    gateway: Gateway, receiver: Receiver
) -> None:
    await gateway.client.post("/admin/faults", json={"delay_webhooks_ms": 800, "duplicate_webhooks": 2})
    try:
        began = time.time()
        charge = (await gateway.charge(new_key())).json()["id"]
        first = await receiver.about(charge)
        assert first.at - began >= 0.8
        for _ in range(200):
            if [notice.body for notice in receiver.notices].count(first.body) == 3:
                break
            await asyncio.sleep(0.05)
        assert [notice.body for notice in receiver.notices].count(first.body) == 3
    finally:
        await gateway.client.post("/admin/faults", json={})


async def test_the_ledger_lists_every_movement_page_by_page(gateway: Gateway) -> None:
    charge = (await gateway.charge(new_key())).json()["id"]
    await gateway.refund(charge, charge, 250)
    entries: list[dict[str, Any]] = []
    more = True
    while more:
        after = entries[-1]["id"] if entries else ""
        page = (await gateway.client.get("/v1/ledger", params={"after": after, "limit": 2})).json()
        entries += page["data"]
        more = page["has_more"]
    assert len({entry["id"] for entry in entries}) == len(entries)
    of_charge = [(entry["kind"], entry["amount"]) for entry in entries if entry["charge"] == charge]
    assert of_charge == [("charge", 1000), ("refund", 250)]


@pytest.mark.parametrize(
    "body",
    [{}, {"amount": 1.5}, {"amount": 0}, {"amount": -1}, {"currency": "dollars"}, {"surprise": 1}],
)
async def test_a_bad_body_is_refused_with_the_field(gateway: Gateway, body: dict[str, Any]) -> None:
    whole = {"amount": 100, "currency": "USD", "token": "tok_visa"} | body if body else {}
    answer = await gateway.client.post("/v1/charges", json=whole, headers={"idempotency-key": new_key()})
    assert answer.status_code == 400
    assert next(iter(body), "amount") in answer.json()["error"]["message"]


async def test_nothing_is_done_without_the_key_of_the_account(gateway: Gateway) -> None:
    for path in ("/v1/ledger", "/v1/charges/ch_1", "/admin/faults"):
        answer = await gateway.client.get(path, headers={"authorization": "Bearer wrong"})
        assert answer.status_code == 401


async def test_a_lost_answer_was_carried_out(gateway: Gateway) -> None:
    key = new_key()
    await gateway.client.post("/admin/faults", json={"lost_answer_rate": 1})
    try:
        assert (await gateway.charge(key)).status_code == 500
    finally:
        await gateway.client.post("/admin/faults", json={})
    assert (await gateway.charge(key)).json()["status"] == "succeeded"


async def test_what_was_answered_survives_kill_9_and_what_was_due_is_done_after(tmp_path: Path) -> None:
    async with receiving() as receiver:
        receiver.refuse = 1000
        gateway = Gateway(tmp_path / "gateway.sqlite", receiver.url)
        await gateway.start()
        assert (await gateway.charge("paid")).status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            await gateway.charge("slow", "tok_timeout", within=0.3)
        await gateway.stop(signal.SIGKILL)
        receiver.refuse = 0
        await gateway.start()
        try:
            ledger = (await gateway.client.get("/v1/ledger")).json()["data"]
            assert [entry["idempotency_key"] for entry in ledger] == ["paid", "slow"]
            assert (await gateway.charge("slow", "tok_timeout")).json()["status"] == "succeeded"
            for _ in range(200):
                if len({notice.body for notice in receiver.notices}) == 2:
                    break
                await asyncio.sleep(0.05)
            assert len({notice.body for notice in receiver.notices}) == 2
        finally:
            await gateway.stop()
            await gateway.client.aclose()
