import asyncio
import io
import struct
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any
from uuid import uuid4

import fastavro
import orjson
import pytest

from stoa_chassis.avro import EventCodec, SchemaNotRegistered, UndecodableMessage, new_event
from stoa_chassis.clock import SystemClock
from stoa_chassis.errors import Unavailable
from stoa_contracts.money import Money
from stoa_events import OrderItem, OrderPlaced

pytestmark = pytest.mark.stack


async def test_an_event_survives_the_way_through_its_bytes(schema_registry_url: str) -> None:
    codec = EventCodec(schema_registry_url)
    await codec.load(OrderPlaced)
    price = Money(Decimal("19.90"), "USD")
    item = OrderItem(product_id=uuid4(), variant_id=uuid4(), quantity=2, price=price)
    order = OrderPlaced(order_id=uuid4(), user_id=uuid4(), items=(item,), total_amount=price)
    event = new_event(order, SystemClock(), "request-1")
    assert await codec.decode("order.placed", codec.encode(event)) == event


async def test_a_newer_writer_is_understood_by_an_older_reader(notes: Any, codec: EventCodec) -> None:
    newer = orjson.loads(notes.payload.SCHEMA)
    fields = newer["fields"][-1]["type"]["fields"]
    fields.append({"name": "mood", "type": "string", "default": ""})
    schema_id = await notes.register(orjson.dumps(newer).decode())
    event = new_event(notes.payload(uuid4(), 1, "text"), SystemClock(), "c")
    record = {name: getattr(event, name) for name in ("event_id", "event_type", "event_version", "timestamp")}
    record |= {"correlation_id": "c", "payload": event.payload.to_dict() | {"mood": "happy"}}
    buffer = io.BytesIO(struct.pack(">bI", 0, schema_id))
    buffer.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(newer), record)
    decoded = await codec.decode(notes.topic, buffer.getvalue())
    assert decoded.payload == event.payload


async def test_an_older_writer_is_understood_by_a_newer_reader(notes: Any, codec: EventCodec) -> None:
    event = new_event(notes.payload(uuid4(), 1, "text"), SystemClock(), "c")
    newer = orjson.loads(notes.payload.SCHEMA)
    newer["fields"][-1]["type"]["fields"].append({"name": "mood", "type": "string", "default": "calm"})
    moody = type("Noted", (notes.payload,), {"SCHEMA": orjson.dumps(newer).decode()})
    reader = EventCodec(notes.registry_url)
    reader.read(moody)
    decoded = await reader.decode(notes.topic, codec.encode(event))
    assert decoded.payload == moody(event.payload.book, 1, "text")


async def test_a_schema_that_no_deploy_step_registered_is_named(schema_registry_url: str, notes: Any) -> None:
    other = type("Noted", (notes.payload,), {"TOPIC": "test.never"})
    with pytest.raises(SchemaNotRegistered, match=r"test\.never-value"):
        await EventCodec(schema_registry_url).load(other)


async def test_loading_waits_for_a_registry_that_is_not_up_yet(
    notes: Any, proxy: Callable[[str], Awaitable[Any]]
) -> None:
    address = notes.registry_url.split("/")[2]
    network = await proxy(address)
    await network.cut()
    codec = EventCodec(notes.registry_url.replace(address, network.address))
    loading = asyncio.ensure_future(codec.load(notes.payload))
    await asyncio.sleep(0.5)
    assert not loading.done()
    await network.restore()
    await asyncio.wait_for(loading, 20)


async def test_a_registry_that_is_down_is_an_outage_and_not_the_message_s_fault(
    notes: Any, codec: EventCodec, proxy: Callable[[str], Awaitable[Any]]
) -> None:
    address = notes.registry_url.split("/")[2]
    network = await proxy(address)
    reader = EventCodec(notes.registry_url.replace(address, network.address))
    reader.read(notes.payload)
    event = new_event(notes.payload(uuid4(), 1), SystemClock(), "c")
    await network.cut()
    with pytest.raises(Unavailable):
        await reader.decode(notes.topic, codec.encode(event))
    await network.restore()
    assert await reader.decode(notes.topic, codec.encode(event)) == event


async def test_an_event_cut_short_or_too_long_is_undecodable(notes: Any, codec: EventCodec) -> None:
    data = codec.encode(new_event(notes.payload(uuid4(), 1, "text"), SystemClock(), "c"))
    for broken in (*(data[:end] for end in range(len(data))), data + b"\x00"):
        with pytest.raises(UndecodableMessage):
            await codec.decode(notes.topic, broken)


def test_an_event_that_was_not_loaded_is_refused_with_what_to_do() -> None:
    order = OrderPlaced(order_id=uuid4(), user_id=uuid4(), items=(), total_amount=Money(Decimal(1), "USD"))
    what_to_do = r"OrderPlaced was not loaded: name order\.placed under `publishes` .*run `stoa gen`"
    with pytest.raises(LookupError, match=what_to_do):
        EventCodec("http://127.0.0.1:9").encode(new_event(order, SystemClock(), "c"))
