"""Events survive the wire as the classes that services use."""

import dataclasses
import io
import json
import random
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from fastavro.utils import generate_one

from stoa_contracts.events import Payload
from stoa_events import PAYLOADS, TOPICS
from stoa_stack.instance import CHECKOUT
from stoa_tools.gen import events
from stoa_tools.gen.errors import GenerationFailed

SCHEMAS = sorted((CHECKOUT / "events").glob("*.avsc"))


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
    assert list(PAYLOADS) == [path.stem for path in SCHEMAS]
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
        assert json.loads(payload.SCHEMA) == json.loads(
            (CHECKOUT / f"events/{payload.TOPIC}.avsc").read_text()
        )

    def test_is_keyed_by_the_aggregate(self, payload: type[Payload]) -> None:
        schema = json.loads(payload.SCHEMA)
        field = next(field["type"]["stoa.key"] for field in schema["fields"] if field["name"] == "payload")
        event = payload.from_dict(sample(fastavro.parse_schema(schema))["payload"])
        assert event.key == str(getattr(event, field))

    def test_cannot_be_changed(self, payload: type[Payload]) -> None:
        assert dataclasses.is_dataclass(payload)
        assert payload.__dataclass_params__.frozen


def envelope(**payload: Any) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((CHECKOUT / "events/user.registered.avsc").read_text())
    schema["fields"][-1]["type"].update(payload)
    return schema


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (envelope(**{"stoa.key": "nobody"}), "stoa.key"),
        (envelope(name="SomethingElse"), "must name the envelope"),
        (envelope(doc=""), "must say in `doc`"),
        (
            envelope(fields=[{"name": "user_id", "type": {"type": "fixed", "name": "F", "size": 4}}]),
            "may not",
        ),
        ({**envelope(), "namespace": "elsewhere"}, "namespace"),
        ({**envelope(), "fields": envelope()["fields"][1:]}, "must have the fields"),
    ],
)
def test_a_schema_that_breaks_the_conventions_is_refused(
    schema: dict[str, Any], complaint: str, tmp_path: Any
) -> None:
    (tmp_path / "user.registered.avsc").write_text(json.dumps(schema))
    with pytest.raises(GenerationFailed, match=complaint):
        events.generate(tmp_path, tmp_path / "out")


def test_two_topics_cannot_declare_the_same_class(tmp_path: Any) -> None:
    for topic in ("user.registered", "user.again"):
        (tmp_path / f"{topic}.avsc").write_text(json.dumps(envelope()))
    with pytest.raises(GenerationFailed, match="UserRegistered"):
        events.generate(tmp_path, tmp_path / "out")
