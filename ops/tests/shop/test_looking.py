"""What waits, and what the shop does at this moment, is there to be seen."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient

from stoa_chassis.kafka import Producer, replay_headers
from stoa_services import SERVICES
from stoa_stack.instance import Instance
from tests.e2e.shop import Shop, eventually
from tests.shell import ask, stoa


@pytest.mark.slow
async def test_an_order_that_waits_for_its_payment_is_shown_until_it_gives_up(shop: Shop) -> None:
    ada = await shop.shopper()
    await ada.add(await shop.item(stock=1))
    order = await ada.order("tok_timeout")

    async def waiting() -> list[Any] | None:
        rows = [row for row in await ask("sagas") if row["order_id"] == order["order_id"]]
        return rows if {"charge", "the gateway: charge"} <= {row["waits_for"] for row in rows} else None

    rows = await eventually(waiting, within=60)
    assert next(row["deadline"] for row in rows if row["waits_for"] == "charge")
    code, output = await stoa("sagas")
    assert code == 0
    assert order["order_id"] in output
    assert (await ada.settled(order, within=100))["status"] == "cancelled"

    async def settled() -> bool:
        return all(row["order_id"] != order["order_id"] for row in await ask("sagas"))

    assert await eventually(settled, within=60)


async def test_every_outbox_has_a_relay() -> None:
    outboxes = {outbox["service"]: outbox for outbox in await ask("outbox")}
    assert outboxes.keys() == {service.name for service in SERVICES.values() if service.publishes}
    assert all(outbox["relay"] for outbox in outboxes.values())
    code, output = await stoa("outbox")
    assert code == 0, output


async def test_top_counts_what_shoppers_do(shop: Shop) -> None:
    async def browse() -> None:
        while True:
            await shop.nobody().list_products(page_size=2)
            await asyncio.sleep(0.02)

    browsing = asyncio.create_task(browse())
    try:
        activity = await ask("top", "--interval", "1")
    finally:
        browsing.cancel()
    listing = next(rpc for rpc in activity["rpcs"] if rpc["method"].endswith("ListProducts"))
    assert listing["service"] == "catalog"
    assert listing["per_second"] > 1
    parts = {part["part"]: part for part in activity["parts"]}
    assert parts["catalog"]["memory_mb"] > 10
    assert "inventory" in activity["lag"]
    assert not activity["silent"]


@pytest.mark.slow
async def test_a_group_that_stands_still_is_shown_with_what_to_do(at: Instance) -> None:
    kafka, key = at.address("kafka"), str(uuid4())
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.delete_topics(["order.dlq"])["order.dlq"].result()
    async with Producer(kafka) as producer:  # only order gets it, and has nowhere to park it
        await producer.send("inventory.reserved", key, b"no event", replay_headers({}, "order"))

    async def stands_still() -> list[Any] | None:
        standing = (await ask("top", "--interval", "2"))["standing"]
        return [each for each in standing if "stands still" in each["problem"]]

    try:
        [standstill] = await eventually(stands_still, within=100)
        code, listed = await stoa("dlq", "list")
    finally:
        assert (await stoa("deploy"))[0] == 0
    assert standstill["group"] == "order"
    assert "inventory.reserved/" in standstill["problem"]
    assert "stoa logs order" in standstill["cure"]
    assert code == 0
    assert "order: its topic order.dlq is missing" in listed
    assert "stoa deploy" in listed

    async def parked() -> list[Any]:
        return [letter for letter in await ask("dlq", "list") if letter["key"] == key]

    [letter] = await eventually(parked, within=60)
    assert (await stoa("dlq", "drop", letter["id"]))[0] == 0
    assert not (await ask("top", "--interval", "2"))["standing"]
