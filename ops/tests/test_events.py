"""Events are shown as they were written, but for their secrets."""

import io
import struct
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import uuid4

import fastavro
import orjson

from stoa_contracts.events import Payload
from stoa_events import UserEmailVerified, UserPasswordResetRequested
from stoa_ops.events import EventReader

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def written(payload: Payload) -> bytes:
    """An event as it lies in its topic, with the schema 1."""
    envelope = {
        "event_id": uuid4(),
        "event_type": payload.TOPIC,
        "event_version": 1,
        "timestamp": NOW,
        "correlation_id": "request-1",
        "payload": payload.to_dict(),
    }
    out = io.BytesIO(struct.pack(">bI", 0, 1))
    out.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(out, fastavro.parse_schema(orjson.loads(payload.SCHEMA)), envelope)
    return out.getvalue()


def reader(of: type[Payload] | SimpleNamespace) -> EventReader:
    """A reader whose registry knows one schema."""
    events = EventReader("http://127.0.0.1:1")
    events._registry = SimpleNamespace(  # type: ignore[assignment]
        get_schema=lambda _: SimpleNamespace(schema_str=of.SCHEMA)
    )
    return events


def test_the_token_of_a_mail_is_shown_to_nobody() -> None:
    event = UserPasswordResetRequested(
        user_id=uuid4(),
        email="ann@example.com",
        first_name="Ann",
        locale="en",
        token="the secret",
        expires_at=NOW,
    )
    shown = reader(UserPasswordResetRequested).read(written(event))
    assert shown["payload"] == event.to_dict() | {"token": "(a secret)"}
    assert shown["correlation_id"] == "request-1"
    assert "the secret" not in repr(event)


def test_a_secret_is_shown_to_nobody_however_deep_it_lies() -> None:
    secret = {"name": "code", "type": "string", "stoa.secret": True}
    of_a_card = {"type": "record", "name": "Card", "fields": [{"name": "brand", "type": "string"}, secret]}
    schema = {
        "type": "record",
        "name": "BoughtEvent",
        "namespace": "stoa.events",
        "fields": [
            {"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {
                "name": "payload",
                "type": {
                    "type": "record",
                    "name": "Bought",
                    "fields": [
                        {"name": "first", "type": ["null", of_a_card]},
                        {"name": "others", "type": {"type": "array", "items": "Card"}},
                        {"name": "by_name", "type": {"type": "map", "values": ["null", "Card"]}},
                        {"name": "keys", "type": {"type": "array", "items": "string"}, "stoa.secret": True},
                    ],
                },
            },
        ],
    }
    card = {"brand": "visa", "code": "the secret"}
    payload = {"first": card, "others": [card, card], "by_name": {"ann": card, "bob": None}, "keys": ["one"]}
    out = io.BytesIO(struct.pack(">bI", 0, 1))
    out.seek(0, io.SEEK_END)
    event = {"event_id": uuid4(), "timestamp": NOW, "payload": payload}
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), event)
    shown = reader(SimpleNamespace(SCHEMA=orjson.dumps(schema).decode())).read(out.getvalue())
    hidden = {"brand": "visa", "code": "(a secret)"}
    assert shown == event | {
        "payload": {
            "first": hidden,
            "others": [hidden, hidden],
            "by_name": {"ann": hidden, "bob": None},
            "keys": "(a secret)",
        }
    }


def test_an_event_without_secrets_is_shown_as_it_is() -> None:
    event = UserEmailVerified(user_id=uuid4(), email="ann@example.com")
    assert reader(UserEmailVerified).read(written(event))["payload"] == event.to_dict()
