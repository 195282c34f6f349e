"""Events survive the wire as the classes that services use."""

import dataclasses
import io
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest
from fastavro.utils import generate_one

from stoa_contracts.events import Payload
from stoa_events import PAYLOADS, TOPICS
from stoa_stack.instance import CHECKOUT
from stoa_tools.gen import events, schemas
from stoa_tools.gen.errors import GenerationFailed

EVENTS = schemas.read_folder(CHECKOUT / "events")


def write(schema: Any, record: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, record)
    return buffer.getvalue()


def read(schema: Any, value: bytes) -> Any:
    return fastavro.schemaless_reader(io.BytesIO(value), schema, None)


def sample(schema: Any) -> Any:
    """A random record of a schema; what it has of money is money, as no other bytes are an amount."""
    return with_money(read(schema, write(schema, generate_one(schema))))


def with_money(value: Any) -> Any:
    match value:
        case {"currency_code": _, "amount": _}:
            return {"currency_code": "USD", "amount": Decimal(random.randrange(10**12)).scaleb(-2)}
        case dict():
            return {name: with_money(inner) for name, inner in value.items()}
        case list():
            return [with_money(item) for item in value]
    return value


def test_every_topic_has_a_payload() -> None:
    assert list(PAYLOADS) == list(EVENTS.payloads)
    assert tuple(PAYLOADS.values()) == TOPICS


@pytest.mark.parametrize("payload", TOPICS, ids=lambda payload: payload.TOPIC)
class TestPayload:
    def test_comes_back_from_the_wire_as_it_went(self, payload: type[Payload]) -> None:
        schema = fastavro.parse_schema(json.loads(payload.SCHEMA))
        for _ in range(20):
            envelope = sample(schema)
            event = payload.from_dict(envelope["payload"])
            again = read(schema, write(schema, {**envelope, "payload": event.to_dict()}))
            assert payload.from_dict(again["payload"]) == event

    def test_has_the_schema_of_its_topic(self, payload: type[Payload]) -> None:
        registered = json.loads((CHECKOUT / f"gen/avro/{payload.TOPIC}.avsc").read_text())
        assert json.loads(payload.SCHEMA) == registered == EVENTS.registered(payload.TOPIC)

    def test_is_keyed_by_the_aggregate(self, payload: type[Payload]) -> None:
        schema = json.loads(payload.SCHEMA)
        field = next(field["type"]["stoa.key"] for field in schema["fields"] if field["name"] == "payload")
        event = payload.from_dict(sample(fastavro.parse_schema(schema))["payload"])
        assert event.key == str(getattr(event, field))

    def test_cannot_be_changed(self, payload: type[Payload]) -> None:
        assert dataclasses.is_dataclass(payload)
        assert payload.__dataclass_params__.frozen


ENVELOPE = """{
  "type": "record", "name": "${Payload}Event", "namespace": "stoa.events", "doc": "${topic}.",
  "fields": [
    {"name": "event_id", "type": "string"},
    {"name": "event_type", "type": "string", "doc": "Always ${topic}."},
    {"name": "event_version", "type": "int"},
    {"name": "timestamp", "type": "long"},
    {"name": "correlation_id", "type": "string"},
    {"name": "payload", "type": "${Payload}"}
  ]
}"""


def record(name: str, *fields: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "doc": "A thing.", "fields": list(fields), **attributes}


ID = {"name": "id", "type": "string"}
MAKER = record("Maker", ID)
PART = record("Part", {"name": "maker", "type": "Maker"})
SHARED = {"types/Part.avsc": PART, "types/Maker.avsc": MAKER}


def made(**changes: Any) -> dict[str, Any]:
    """The payload of thing.made, of which a test needs something else."""
    fields: list[dict[str, Any]] = [
        ID,
        {"name": "maker", "type": "Maker"},
        {"name": "parts", "type": {"type": "array", "items": {"type": "Part", "stoa.as": "ThingPart"}}},
        {"name": "spare", "type": ["null", {"type": "Part", "stoa.as": "ThingPart"}], "default": None},
    ]
    return record("ThingMade", *fields, **{"stoa.key": "id"}) | changes


def sources(payload: Any = None, **files: Any) -> schemas.Sources:
    texts = {"thing.made.avsc": payload or made(), **SHARED, **files}
    return schemas.read(
        {"envelope.avsc": ENVELOPE, **{path: json.dumps(text) for path, text in texts.items()}}
    )


def test_a_schema_has_each_shared_record_where_it_is_first_used_under_its_registered_name() -> None:
    schema = sources().registered("thing.made")
    assert (schema["name"], schema["doc"]) == ("ThingMadeEvent", "thing.made.")
    assert schema["fields"][1]["doc"] == "Always thing.made."
    payload = schema["fields"][-1]["type"]
    _, maker, parts, spare = payload["fields"]
    assert maker == {"name": "maker", "type": MAKER}
    assert parts["type"]["items"] == {
        **PART,
        "name": "ThingPart",
        "fields": [{"name": "maker", "type": "Maker"}],
    }
    assert spare == {"name": "spare", "type": ["null", "ThingPart"], "default": None}
    assert {**payload, "fields": None} == {**made(), "fields": None}
    fastavro.parse_schema(dict(schema))


def test_a_shared_record_is_one_class_whatever_its_registered_name(tmp_path: Path) -> None:
    other = made(
        name="ThingSold", fields=[{"name": "id", "type": "string"}, {"name": "part", "type": "Part"}]
    )
    events.generate(sources(**{"thing.sold.avsc": other}), tmp_path / "python", tmp_path / "avro")
    assert "class Part:" in (tmp_path / "python/types.py").read_text()
    for module, line in {"thing_made": "parts: tuple[Part, ...]", "thing_sold": "part: Part"}.items():
        source = (tmp_path / f"python/{module}.py").read_text()
        assert line in source
        assert source.count("@dataclass") == 1
    assert json.loads((tmp_path / "avro/thing.sold.avsc").read_text())["name"] == "ThingSoldEvent"


def test_a_secret_of_an_event_is_not_shown_by_its_class(tmp_path: Path) -> None:
    secrets = [
        {"name": "token", "type": "string", "stoa.secret": True},
        {"name": "hint", "type": "string", "default": "none", "stoa.secret": True},
    ]
    events.generate(sources(made(fields=[ID, *secrets])), tmp_path / "python", tmp_path / "avro")
    source = (tmp_path / "python/thing_made.py").read_text()
    assert "from dataclasses import dataclass, field\n" in source
    assert "    id: str\n" in source
    assert "    token: str = field(repr=False)\n" in source
    assert "    hint: str = field(default='none', repr=False)\n" in source
    compile(source, "thing_made.py", "exec")


WHOLE = made(fields=[ID, {"name": "maker", "type": MAKER}])
LOOP = {**MAKER, "fields": [{"name": "parts", "type": {"type": "array", "items": "Part"}}]}
FIXED = [{"name": "id", "type": {"type": "fixed", "name": "F", "size": 4}}]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"payload": made(**{"stoa.key": "nobody"})}, "thing.made.avsc must name .* in stoa.key"),
        ({"payload": made(doc="")}, "thing.made.avsc must say in `doc`"),
        ({"payload": made(fields=FIXED)}, "thing.made.avsc uses a type that events may not"),
        ({"payload": {"type": "string"}}, "thing.made.avsc must hold a record"),
        ({"payload": WHOLE}, "declared twice: Maker"),
        ({"thing.again.avsc": made()}, "declared twice: ThingMade"),
        ({"types/Part.avsc": MAKER}, "types/Part.avsc must hold the record Part"),
        ({"types/Part.avsc": {**PART, "doc": ""}}, "types/Part.avsc must say in `doc`"),
        ({"types/Maker.avsc": LOOP}, "contains itself"),
        ({"types/Money.avsc": {**MAKER, "name": "Money"}}, "types/Money.avsc must have the fields"),
        ({"payload": made(fields=[{"name": "id", "type": "Nobody"}])}, "may not: .*Nobody"),
    ],
)
def test_what_breaks_the_conventions_is_refused(files: Any, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(GenerationFailed, match=complaint):
        events.generate(sources(**files), tmp_path / "python", tmp_path / "avro")


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "no envelope.avsc"),
        ({"envelope.avsc": ENVELOPE.replace("event_id", "id")}, "must have the fields"),
        ({"envelope.avsc": ENVELOPE, "thing.made.avsc": "{"}, "thing.made.avsc is not JSON"),
    ],
)
def test_what_cannot_be_read_is_refused(files: dict[str, str], complaint: str) -> None:
    with pytest.raises(GenerationFailed, match=complaint):
        schemas.read(files)
