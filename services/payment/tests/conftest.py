"""The payment service on a real database and the mock gateway's own process."""

import asyncio
import hashlib
import hmac
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.migrations import service_migrations
from stoa_chassis.postgres import Database
from stoa_chassis.uow import UnitOfWork
from stoa_events import PaymentFailed, PaymentRefunded, PaymentSuccessful
from stoa_payment import repository
from stoa_payment.gateway import HttpGateway
from stoa_payment.model import RetryPolicy
from stoa_payment.service import Payments

API_KEY, SECRET = "test-key", "test-secret"


class Gateway:
    """The mock gateway, which tests may stop, start and disturb."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.AsyncClient(
            base_url=self.url, headers={"authorization": f"Bearer {API_KEY}"}, timeout=20
        )
        self._environment = {
            **os.environ,
            "GATEWAY_PORT": str(port),
            "GATEWAY_STATE": str(folder / "gateway.sqlite"),
            "GATEWAY_API_KEY": API_KEY,
            "GATEWAY_WEBHOOK_SECRET": SECRET,
            "GATEWAY_WEBHOOK_URL": "",
            "GATEWAY_TIMEOUT_ANSWER_SECONDS": "1",
            "GATEWAY_LATENCY_MS": "5",
        }

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "stoa_fakes.payment_gateway", env=self._environment
        )
        for _ in range(200):
            try:
                if (await self.client.get("/healthz")).is_success:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)
        raise AssertionError("the gateway did not start")

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def disturb(self, **faults: float) -> None:
        (await self.client.post("/admin/faults", json=faults)).raise_for_status()

    async def charge(self, order_id: UUID) -> dict[str, Any] | None:
        """Return the charge of an order, as the gateway's books have it."""
        answer = await self.client.get("/v1/charges", params={"idempotency_key": str(order_id)})
        return next(iter(answer.json()["data"]), None)

    async def refunds(self, order_id: UUID) -> list[int]:
        """Return the amounts, in cents, that were given back of an order's charge."""
        charge = await self.charge(order_id)
        entries: list[dict[str, Any]] = []
        more = True
        while more:
            after = entries[-1]["id"] if entries else ""
            page = (await self.client.get("/v1/ledger", params={"after": after, "limit": 1000})).json()
            entries += page["data"]
            more = page["has_more"]
        return [
            e["amount"] for e in entries if e["kind"] == "refund" and charge and e["charge"] == charge["id"]
        ]


class SettableClock:
    """Goes with the machine's clock, ahead by what a test sets."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Shop:
    """The use cases under test, with what tests look at behind them."""

    def __init__(
        self,
        database: Database,
        codec: EventCodec,
        payments: Payments,
        gateway: Gateway,
        clock: SettableClock,
    ) -> None:
        self.database = database
        self.payments = payments
        self.gateway = gateway
        self.clock = clock
        self._codec = codec

    async def events(self, order_id: UUID) -> list[Event[Any]]:
        """Return what was published of an order's payment, in order."""
        rows = await self.database.fetch(
            "SELECT topic, value FROM outbox WHERE key = $1 ORDER BY id", str(order_id)
        )
        return [await self._codec.decode(row["topic"], row["value"]) for row in rows]

    def signed(self, notice: dict[str, Any], *, secret: str = SECRET, age: float = 0) -> tuple[bytes, str]:
        """Return the body and the signature of a notice, as the gateway would send them."""
        body, timestamp = orjson.dumps(notice), int(time.time() - age)
        digest = hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()
        return body, f"t={timestamp},v1={digest}"

    async def topics(self, order_id: UUID) -> list[str]:
        return [event.topic for event in await self.events(order_id)]

    async def look_after_due(self) -> None:
        """Look once after all that is due."""
        await asyncio.gather(*(self.payments.look_after(due) for due in await self.payments.take_due(100)))

    async def reconciled(self, order_id: UUID, *, seconds: float = 15) -> list[str]:
        """Look after what is due until the order's payment and refunds are settled; return the topics."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self.look_after_due()
            open_ends = await self.database.fetchval(
                """
                SELECT count(*) FROM payments LEFT JOIN refunds USING (payment_id)
                WHERE order_id = $1 AND 'pending' IN (payments.status, refunds.status)
                """,
                order_id,
            )
            if not open_ends:
                return await self.topics(order_id)
            await asyncio.sleep(0.1)
        raise AssertionError("the payment was not settled")


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("gateway"))
    await gateway.start()
    yield gateway
    await gateway.kill()
    await gateway.client.aclose()


@pytest.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.connect(database_url, service_migrations("payment")) as database:
        yield database


@pytest.fixture(scope="module")
async def codec(schema_registry_url: str) -> EventCodec:
    codec = EventCodec(schema_registry_url)
    await codec.load(PaymentSuccessful, PaymentFailed, PaymentRefunded)
    return codec


@pytest.fixture
async def shop(database: Database, codec: EventCodec, gateway: Gateway) -> AsyncIterator[Shop]:
    clock = SettableClock()
    retry = RetryPolicy(
        first=timedelta(seconds=0.05),
        longest=timedelta(seconds=0.3),
        lease=timedelta(seconds=1.5),
        give_up_after=timedelta(hours=24),
    )
    async with AsyncExitStack() as stack:
        adapter = await stack.enter_async_context(
            HttpGateway.connect(gateway.url, API_KEY, SECRET, timedelta(seconds=0.6))
        )
        payments = Payments(
            UnitOfWork(database, codec, repository.Tx.open, clock),
            repository.Payments(database),
            repository.Refunds(database),
            adapter,
            clock,
            retry,
        )
        yield Shop(database, codec, payments, gateway, clock)
        await gateway.disturb()
