"""What `App` opens: stores that keep the shop's currency, and consumers that have where to park messages."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # re-exported silently

from stoa_chassis.app import App, StartError
from stoa_chassis.avro import Event, EventCodec, new_event
from stoa_chassis.clock import SystemClock
from stoa_chassis.currency import OtherCurrency, keep_in_mongo, keep_in_redis
from stoa_chassis.kafka import DeadLetterTopicMissing, Producer, check_topics
from stoa_chassis.mongo import connect as connect_mongo
from stoa_chassis.redis import connect as connect_redis
from stoa_chassis.settings import PostgresSettings, ServiceSettings
from stoa_chassis.testing import eventually

pytestmark = pytest.mark.stack
Compose = Callable[[App[Any]], Awaitable[None]]


@asynccontextmanager
async def running(app: App[Any], compose: Compose) -> AsyncIterator[None]:
    stop, composed = asyncio.Event(), asyncio.Event()

    async def compose_all(app: App[Any]) -> None:
        await compose(app)
        composed.set()

    run = asyncio.create_task(app.run(compose_all, stop, None))
    done, _ = await asyncio.wait((run, asyncio.ensure_future(composed.wait())), return_when="FIRST_COMPLETED")
    try:
        if run in done:
            run.result()
        yield
    finally:
        stop.set()
        await run


async def ready(app: App[Any]) -> bool:
    return all([await check() is not False for check in app._readiness._checks.values()])


async def test_a_database_keeps_the_currency_of_its_first_start(
    empty_database: str, kafka_bootstrap: str, no_migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoa_chassis.migrations.service_migrations", lambda _: no_migrations)

    def app(currency: str) -> App[PostgresSettings]:
        settings = PostgresSettings(
            database_url=empty_database, kafka_bootstrap=kafka_bootstrap, currency=currency
        )
        return App("example", settings)

    async def compose(app: App[PostgresSettings]) -> None:
        await app.postgres(lambda connection, outbox: (connection, outbox))

    async with running(first := app("USD"), compose):
        await eventually(lambda: ready(first))
    with pytest.raises(StartError, match="keeps amounts in USD, but the currency is set to EUR"):
        async with running(app("EUR"), compose):
            pass
    async with running(app("USD"), compose):
        pass


async def test_the_other_stores_keep_it_as_well(mongo_url: str, redis_url: str) -> None:
    name = f"test_{uuid4().hex}"
    async with connect_mongo(mongo_url) as mongo, connect_redis(redis_url) as redis:
        await keep_in_mongo(mongo[name], "USD")
        await keep_in_mongo(mongo[name], "USD")
        with pytest.raises(OtherCurrency):
            await keep_in_mongo(mongo[name], "EUR")
        await keep_in_redis(redis, name, "USD")
        with pytest.raises(OtherCurrency):
            await keep_in_redis(redis, name, "EUR")
        await mongo.drop_database(name)
        await redis.delete(f"{name}:currency")


async def test_a_consumer_waits_for_its_dead_letter_topic_and_is_not_ready_without(
    notes: Any, codec: EventCodec, producer: Producer
) -> None:
    group = f"{notes.group}-late"
    with pytest.raises(DeadLetterTopicMissing, match=rf"{group} has no topic {group}\.dlq"):
        await check_topics(notes.bootstrap, [notes.topic], group)
    seen: list[int] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.payload.line)

    settings = ServiceSettings(kafka_bootstrap=notes.bootstrap, schema_registry_url=notes.registry_url)
    app = App(group, settings)
    async with running(app, lambda app: app.consume({notes.payload: handle})):
        event = new_event(notes.payload(uuid4(), 1), SystemClock(), "c")
        await producer.send(notes.topic, event.payload.key, codec.encode(event))
        await asyncio.sleep(2)
        assert not seen
        assert not await ready(app)
        admin = AdminClient({"bootstrap.servers": notes.bootstrap})
        for created in admin.create_topics([NewTopic(f"{group}.dlq", 1, 1)]).values():
            created.result()
        try:
            await eventually(lambda: seen == [1], within=40)
            assert await ready(app)
        finally:
            for deleted in admin.delete_topics([f"{group}.dlq"]).values():
                deleted.result()
