"""An audit of a running shop whose books were falsified says so; put right again, it is content."""

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import httpx
import pytest

from stoa_stack.instance import Instance
from stoa_stack.servers.postgres import superuser_url
from stoa_stack.services import gateway_secrets
from tests.e2e.shop import Shop
from tests.operations.shell import stoa


@pytest.fixture
async def gateway(at: Instance) -> AsyncIterator[httpx.AsyncClient]:
    """The payment gateway, as somebody who has its API key."""
    api_key, _ = gateway_secrets(at)
    headers = {"authorization": f"Bearer {api_key}", "idempotency-key": str(uuid4())}
    async with httpx.AsyncClient(base_url=f"http://{at.address('gateway')}", headers=headers) as client:
        yield client


async def balanced() -> None:
    code, output = await stoa("audit", "--wait", "30")
    assert code == 0, output


async def test_a_stock_row_changed_by_hand_is_found(at: Instance, shop: Shop) -> None:
    variant_id = (await shop.variant(stock=3))["variant_id"]
    await balanced()
    database = await asyncpg.connect(superuser_url(at, "inventory"))
    change = "UPDATE inventory SET stock_count = stock_count + $2 WHERE variant_id = $1"
    try:
        await database.execute(change, variant_id, 1)
        try:
            code, output = await stoa("audit", "--wait", "1")
        finally:
            await database.execute(change, variant_id, -1)
    finally:
        await database.close()
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
