"""An audit of a running shop whose books were falsified says so; put right again, it is content."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg
import httpx
import orjson
import pytest

from stoa_chassis.avro import EventCodec, new_event
from stoa_chassis.clock import SystemClock
from stoa_events import UserProfileUpdated
from stoa_stack.companies import PAYMENT_GATEWAY
from stoa_stack.instance import Instance
from stoa_stack.servers.postgres import superuser_url
from tests.e2e.shop import Shop
from tests.shell import stoa


@pytest.fixture
async def gateway(at: Instance) -> AsyncIterator[httpx.AsyncClient]:
    """The payment gateway, as somebody who has its API key."""
    api_key = PAYMENT_GATEWAY.secret(at, PAYMENT_GATEWAY.api_key)
    headers = {"authorization": f"Bearer {api_key}", "idempotency-key": str(uuid4())}
    async with httpx.AsyncClient(base_url=f"http://{at.address('gateway')}", headers=headers) as client:
        yield client


@asynccontextmanager
async def connected(at: Instance, database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a service's database, as somebody who may do anything there."""
    connection = await asyncpg.connect(superuser_url(at, database))
    try:
        yield connection
    finally:
        await connection.close()


async def balanced() -> None:
    code, output = await stoa("audit", "--wait", "30")
    assert code == 0, output


async def test_a_stock_row_changed_by_hand_is_found(at: Instance, shop: Shop) -> None:
    variant_id = (await shop.item(stock=3)).variant_id
    await balanced()
    change = "UPDATE inventory SET stock_count = stock_count + $2 WHERE variant_id = $1"
    async with connected(at, "inventory") as database:
        await database.execute(change, variant_id, 1)
        try:
            code, output = await stoa("audit", "--wait", "1")
        finally:
            await database.execute(change, variant_id, -1)
    assert code == 1
    assert f"stock is the sum of its movements: variant {variant_id}" in output
    assert "look at: " in output
    await balanced()


async def test_a_charge_without_an_order_is_found_until_it_is_given_back(gateway: httpx.AsyncClient) -> None:
    order_id = str(uuid4())
    charge = await gateway.post(
        "/v1/charges",
        json={
            "amount": 1250,
            "currency": "USD",
            "token": "tok_visa",
            "metadata": {"order_id": order_id},
        },
    )
    charge_id = charge.raise_for_status().json()["id"]
    try:
        code, output = await stoa("audit", "--wait", "1")
    finally:
        refund = await gateway.post("/v1/refunds", json={"charge": charge_id, "amount": 1250})
        refund.raise_for_status()
    assert code == 1
    assert f"the gateway's ledger agrees: charge {charge_id} of order {order_id}" in output
    await balanced()


async def test_an_event_that_kafka_lost_is_found_and_published_again(at: Instance) -> None:
    codec = EventCodec(at.registry_url)
    await codec.load(UserProfileUpdated)
    payload = UserProfileUpdated(
        user_id=uuid4(), email="ada@example.com", first_name="Ada", last_name="Lovelace"
    )
    event = new_event(payload, SystemClock(), "lost-event-test")
    async with connected(at, "user") as database:
        await database.execute(
            """
            INSERT INTO outbox (event_id, topic, key, value, headers, published_at)
            VALUES ($1, $2, $3, $4, $5, now())
            """,
            event.event_id,
            event.topic,
            payload.key,
            codec.encode(event),
            orjson.dumps({"correlation_id": "lost-event-test"}).decode(),
        )
        try:
            code, output = await stoa("audit", "--wait", "1")
        finally:
            await database.execute(
                "UPDATE outbox SET published_at = NULL WHERE event_id = $1", event.event_id
            )
            await database.execute("NOTIFY outbox")
    assert code == 1
    assert f"published events are in their topics: event {event.event_id} of user.profile_updated" in output
    await balanced()


async def test_an_event_whose_effect_is_not_noted_is_found(at: Instance, shop: Shop) -> None:
    await shop.item()
    await balanced()
    async with connected(at, "inventory") as database:
        latest = (
            "SELECT event_id FROM inbox WHERE topic = 'product.created' ORDER BY received_at DESC LIMIT 1"
        )
        event_id: UUID = await database.fetchval(latest)
        await database.execute("DELETE FROM inbox WHERE event_id = $1", event_id)
        try:
            code, output = await stoa("audit", "--wait", "1")
        finally:
            await database.execute(
                "INSERT INTO inbox (event_id, topic) VALUES ($1, 'product.created')", event_id
            )
    assert code == 1
    assert f"consumed events took effect: event {event_id} of product.created at inventory" in output
    await balanced()
