"""Dead letters are listed, explained, replayed with effect, or dropped."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from stoa_chassis.kafka import Producer, replay_headers
from stoa_ops.dead_letters import DeadLetters
from stoa_ops.topics import TopicReader
from stoa_stack.instance import Instance
from stoa_stack.servers.postgres import superuser_url
from tests.e2e.shop import Shop, eventually
from tests.shell import ask, stoa


async def open_letters(key: str) -> list[Any]:
    """The open letters about a key."""
    return [letter for letter in await ask("dlq", "list") if letter["key"] == key]


@asynccontextmanager
async def inventory_refuses_to_release(at: Instance, order_id: str) -> AsyncIterator[None]:
    """While this lasts, a constraint that should not be there keeps inventory from releasing an order."""
    database = await asyncpg.connect(superuser_url(at, "inventory"))
    name = f"broken_{uuid4().hex}"
    try:
        await database.execute(
            f"""
            ALTER TABLE holds ADD CONSTRAINT {name}
            CHECK (order_id <> '{order_id}' OR status <> 'released') NOT VALID
            """
        )
        yield
    finally:
        await database.execute(f"ALTER TABLE holds DROP CONSTRAINT IF EXISTS {name}")
        await database.close()


async def test_garbage_in_a_topic_is_parked_listed_shown_and_dropped(at: Instance) -> None:
    key = str(uuid4())
    async with Producer(at.address("kafka")) as producer:
        await producer.send("order.placed", key, b"no event", {"correlation_id": "garbage-test"})

    async def both_parked() -> list[Any] | None:
        letters = await open_letters(key)
        return letters if {"cart", "inventory"} <= {letter["group"] for letter in letters} else None

    letters = await eventually(both_parked, within=60)
    assert {letter["topic"] for letter in letters} == {"order.placed"}
    code, shown = await stoa("dlq", "show", letters[0]["id"])
    assert code == 0, shown
    for part in ("garbage-test", "UndecodableMessage", b"no event".hex(" "), "Traceback"):
        assert part in shown

    ids = [letter["id"] for letter in letters]
    code, output = await stoa("dlq", "drop", *ids)
    assert code == 0, output
    assert not await open_letters(key)
    decided = {letter["id"]: letter["fate"] for letter in await ask("dlq", "list", "--decided")}
    assert {decided[letter_id] for letter_id in ids} == {"dropped"}
    _, again = await stoa("dlq", "replay", ids[0])
    assert "was dropped already" in again
    code, output = await stoa("audit", "--wait", "30")
    assert code == 0, output


@pytest.mark.slow
async def test_a_letter_whose_cause_is_mended_is_replayed_and_takes_effect_once(
    at: Instance, shop: Shop
) -> None:
    item = await shop.item(stock=5)
    ada = await shop.shopper()
    await ada.add(item, 2)
    order = await ada.settled(await ada.order())
    assert order["status"] == "confirmed"
    order_id = order["order_id"]
    async with inventory_refuses_to_release(at, order_id):
        await ada.cancel_order(order_id, reason="changed my mind")
        [letter] = await eventually(lambda: open_letters(order_id), within=90)
    assert (letter["group"], letter["topic"]) == ("inventory", "order.cancelled")
    assert "broken_" in letter["reason"]
    _, shown = await stoa("dlq", "show", letter["id"])
    assert "changed my mind" in shown
    assert await shop.stock(item) == (5, 2)
    code, output = await stoa("audit", "--wait", "0")
    assert code == 1
    assert "stoa dlq list --group inventory" in output

    code, output = await stoa("dlq", "replay", letter["id"])
    assert code == 0, output

    async def released() -> bool:
        return await shop.stock(item) == (5, 0)

    assert await eventually(released, within=60)
    assert not await open_letters(order_id)

    await replay_as_if_the_decision_had_been_lost(at, letter["id"])
    code, output = await stoa("audit", "--wait", "30")
    assert code == 0, output
    assert await shop.stock(item) == (5, 0)


async def replay_as_if_the_decision_had_been_lost(at: Instance, letter_id: str) -> None:
    """Publish a letter once more, as a replay does that died after this, and wait until it was consumed."""
    reader = TopicReader(at.address("kafka"))
    [letter] = [each for each in DeadLetters().read(reader) if each.letter_id == letter_id]
    reader.close()
    assert letter.origin is not None
    async with Producer(at.address("kafka")) as producer:
        headers = replay_headers(letter.headers, letter.group)
        await producer.send(letter.origin.topic, letter.key, letter.value, headers)

    async def consumed() -> bool:
        lag: int = (await ask("top", "--interval", "0.2"))["lag"]["inventory"]
        return lag == 0

    assert await eventually(consumed, within=60)


async def test_a_letter_that_is_not_there_is_not_decided_on() -> None:
    code, output = await stoa("dlq", "drop", "inventory.dlq/0/999999")
    assert code == 1
    assert "There is no dead letter inventory.dlq/0/999999" in output


async def test_replaying_nothing_in_particular_is_refused() -> None:
    code, output = await stoa("dlq", "replay")
    assert code == 2
    assert "--all" in output
