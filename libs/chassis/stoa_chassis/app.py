"""The frame of every service: settings, logs, server, clients, stores, background work, and a clean end.

A service's `__main__.py` is its composition root:

    async def compose(app: App[Settings]) -> None:
        store = await app.postgres(Tx.open)
        catalog = Catalog(app.client(CatalogServiceStub, "catalog"))
        orders = Orders(store.uow, OrderReader(store.database), catalog, app.clock)
        app.serve(add_OrderServiceServicer_to_server, OrderServicer(orders))
        await app.consume(handlers(orders))

    if __name__ == "__main__":
        run("order", Settings, compose)

Each of these asks for what it needs itself, and brings the readiness check and the relay that belong to it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
import uvloop
from pydantic import ValidationError

from stoa_chassis import currency, paging, telemetry
from stoa_chassis.auth import (
    Authorizer,
    ContractError,
    PeerIdentity,
    certificate_identity,
    no_identity,
    sidecar_identity,
)
from stoa_chassis.background import Work, cancelled, periodic, supervised
from stoa_chassis.clients import ClientChannel
from stoa_chassis.clock import Clock, SystemClock
from stoa_chassis.declared import declaration, default_port
from stoa_chassis.readiness import Check, Readiness
from stoa_chassis.server import RpcServer
from stoa_chassis.settings import (
    MongoSettings,
    OpenSearchSettings,
    PostgresSettings,
    RedisSettings,
    ServiceSettings,
)
from stoa_chassis.tls import CertificateFolder, TlsError
from stoa_chassis.tokens import RemoteKeys, TokenVerifier
from stoa_chassis.workers import WorkerSide, supervise

# A service loads the libraries of its own store alone: the others are some ten megabytes in each process.
if TYPE_CHECKING:
    import asyncpg
    from opensearchpy import AsyncOpenSearch
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.asynchronous.database import AsyncDatabase
    from redis.asyncio import Redis

    from stoa_chassis.avro import EventCodec
    from stoa_chassis.errors import Aborted
    from stoa_chassis.kafka import Handler, Producer
    from stoa_chassis.mongo import Document
    from stoa_chassis.mongo_uow import MongoTransaction
    from stoa_chassis.outbox import Outbox
    from stoa_chassis.postgres import Database
    from stoa_chassis.postgres_replica import Replica
    from stoa_chassis.redis_uow import RedisTransaction
    from stoa_chassis.uow import UnitOfWork
    from stoa_contracts.events import Payload

S = TypeVar("S", bound=ServiceSettings)
P = TypeVar("P", bound=PostgresSettings)
M = TypeVar("M", bound=MongoSettings)
R = TypeVar("R", bound=RedisSettings)
E = TypeVar("E", bound=OpenSearchSettings)
T = TypeVar("T")
Tx = TypeVar("Tx")
Stub = TypeVar("Stub")

_log = telemetry.get_logger(__name__)


class StartError(Exception):
    """The service can't start; the message says why, and needs no stack trace to be understood."""


@dataclass(frozen=True, slots=True)
class Postgres(Generic[Tx]):
    """The database of a service: for reading, and for use cases that run in its transactions."""

    database: Database
    uow: UnitOfWork[Tx]


@dataclass(frozen=True, slots=True)
class Mongo(Generic[Tx]):
    """The documents of a service: for reading, and for use cases that write one at a time."""

    collection: AsyncCollection[Document]
    uow: UnitOfWork[Tx]


@dataclass(frozen=True, slots=True)
class RedisStore(Generic[Tx]):
    """The key-value store of a service: for reading, and for use cases that write one key at a time."""

    redis: Redis
    uow: UnitOfWork[Tx]


class App(Generic[S]):
    """What a composition root works with."""

    def __init__(self, name: str, settings: S) -> None:
        self.name = name
        self.settings = settings
        self.clock: Clock = SystemClock()
        self._declared = declaration(name)
        self._resources = AsyncExitStack()
        self._certificates = CertificateFolder(Path(settings.tls_dir)) if settings.tls_dir else None
        verifier = TokenVerifier(RemoteKeys(settings.jwks_url), settings.jwt_issuer, settings.jwt_audience)
        self._server = RpcServer(
            Authorizer(_peer_identity(settings), verifier),
            max_concurrent_rpcs=settings.max_concurrent_rpcs,
            reuse_port=settings.workers > 1,
        )
        self._channels: dict[str, ClientChannel] = {}
        self._background: list[tuple[str, Work]] = []
        self._readiness = Readiness()
        self._codec: EventCodec | None = None
        self._producer: Producer | None = None

    # ------------------------------------------------------------------------------------------ the frame

    async def enter(self, resource: AbstractAsyncContextManager[T]) -> T:
        """Open something that is closed at the end, after all that was opened later."""
        return await self._resources.enter_async_context(resource)

    def client(self, stub_type: Callable[[grpc.aio.Channel], Stub], service: str) -> Stub:
        """Return a stub for another service. Its calls raise RemoteError.

        `STOA_CATALOG_TARGET` says where the catalog is (host:port); else it is where its declaration says, on
        this machine. Raises StartError for a service that this one is not granted to call.
        """
        if self._declared is not None and service not in self._declared.calls:
            raise StartError(f"no policy lets {self.name} call {service}")
        if service not in self._channels:
            channel = ClientChannel(service, _target(service), self._certificates)
            self._channels[service] = channel
            self._resources.push_async_callback(channel.close)
        return self._channels[service].stub(stub_type)

    def serve(self, add_to_server: Callable[[Any, grpc.aio.Server], None], servicer: object) -> None:
        """Serve a servicer.

        Raises ContractError if a method can't be served as its proto declares it, and PageTokenKeyMissing.
        """
        self._server.add(add_to_server, servicer)
        if self._server.has_pages:
            paging.check_key()

    def background(self, name: str, work: Work) -> None:
        """Run `work()` beside the server: again if it fails, and cancelled once the server has drained."""
        self._background.append((name, work))

    def every(self, name: str, seconds: float, work: Work) -> None:
        """Run `work()` now and `seconds` after each of its ends, under a correlation id of its own each time.

        It is tried again soon after it met an outage, and less and less often after another error.
        """
        self.background(name, periodic(seconds, work))

    def ready(self, name: str, check: Check) -> None:
        """Be healthy only while `check()` neither raises nor returns False."""
        self._readiness.add(name, check)

    # -------------------------------------------------------------------------------------------- events

    async def events(self) -> EventCodec:
        """Return the codec, which knows how to encode all that the declaration says this service publishes.

        Waits while the schema registry can't be reached. Raises SchemaNotRegistered.
        """
        if self._codec is None:
            from stoa_chassis.avro import EventCodec
            from stoa_events import PAYLOADS

            self._codec = EventCodec(self.settings.schema_registry_url)
            published = self._declared.publishes if self._declared else ()
            await self._codec.load(*(PAYLOADS[topic] for topic in published))
        return self._codec

    async def producer(self) -> Producer:
        """Return the producer; this process is not ready until the broker was reached once."""
        if self._producer is None:
            from stoa_chassis.kafka import Producer

            self._producer = await self.enter(Producer(self.settings.kafka_bootstrap))
            self._when_topics("broker", (), "", _nothing)
        return self._producer

    async def consume(self, handlers: Mapping[type[Payload], Handler], *, at_once: int = 1) -> None:
        """Handle events in the background, as the consumer group that is named like the service.

        Of handlers that don't mind the order of events, `at_once` are called at the same time in each
        partition: what they write can share a request to the store. A group without its dead-letter topic
        does not run (DeadLetterTopicMissing in the log), and this process is not ready until it does. Raises
        StartError if the handlers are not for what is declared.
        """
        from stoa_chassis.kafka import Consumer, Membership

        topics = sorted(payload.TOPIC for payload in handlers)
        if self._declared is not None and topics != sorted(self._declared.consumes):
            raise StartError(
                f"{self.name} has handlers for {topics}, which is not what it declares as consumes"
            )
        settings = self.settings
        consumer = Consumer(
            self.name,
            settings.kafka_bootstrap,
            handlers,
            await self.events(),
            await self.producer(),
            membership=Membership(settings.group_instance_id, settings.group_session_seconds),
            at_once=at_once,
        )
        self._when_topics("consumer", topics, self.name, consumer.run)

    def _when_topics(self, name: str, topics: Collection[str], group: str, work: Work) -> None:
        """Run work in the background once the broker has what it needs, and be ready only then."""
        found = False

        async def start() -> None:
            from stoa_chassis.kafka import check_topics

            nonlocal found
            await check_topics(self.settings.kafka_bootstrap, topics, group)
            found = True
            await work()

        async def check() -> bool:
            return found

        self.background(name, start)
        self.ready(name, check)

    # -------------------------------------------------------------------------------------------- stores

    async def postgres(
        self: App[P], open_tx: Callable[[asyncpg.Connection, Outbox], Tx], *, required: bool = True
    ) -> Postgres[Tx]:
        """Open the database, its schema up to date, with units of work that publish their events.

        `open_tx` puts the repositories on a connection and its outbox. Unless it is `required`, this process
        is ready without it. Raises Unavailable, MigrationError, and StartError if it keeps another currency.
        """
        from stoa_chassis.postgres_relay import OutboxRelay
        from stoa_chassis.postgres_uow import postgres_unit_of_work

        settings = self.settings
        database = await self._database()
        await self._keep(currency.keep_in_postgres(database, settings.currency))
        uow = postgres_unit_of_work(database, await self.events(), open_tx, self.clock)
        self.background("outbox relay", OutboxRelay(database, await self.producer()).run)
        if required:
            self.ready("database", database.check)
        return Postgres(database, uow)

    async def postgres_read_model(self: App[P]) -> Database:
        """Open a database that reads are answered from, its schema up to date.

        What it has is a copy of what another store keeps: no unit of work publishes events from it, and this
        process is ready without it. Raises Unavailable, MigrationError.
        """
        return await self._database()

    async def _database(self: App[P]) -> Database:
        from stoa_chassis.migrations import service_migrations
        from stoa_chassis.postgres import Database

        settings = self.settings
        return await self.enter(
            Database.connect(
                settings.database_url,
                service_migrations(self.name),
                settings.database_pool_size,
                settings.connect_timeout_seconds,
                migrating=settings.migrate == "at_start",
            )
        )

    async def replica(self: App[P], primary: Database) -> Database | Replica:
        """Return what answers reads that may lag: a replica if the settings name one, else the primary.

        For readers that can do with what was true some seconds ago, and for nobody who must see what he has
        just written. Neither start nor readiness wait for the replica.
        """
        settings = self.settings
        if not settings.database_replica_url:
            return primary
        from stoa_chassis.postgres_replica import Replica

        replica = await self.enter(
            Replica.connect(
                primary,
                settings.database_replica_url,
                settings.database_pool_size,
                settings.database_replica_max_lag_seconds,
            )
        )
        self.background("replica", replica.watch)
        return replica

    async def mongo(
        self: App[M],
        open_collection: Callable[[AsyncDatabase[Document]], Awaitable[AsyncCollection[Document]]],
        open_tx: Callable[[MongoTransaction], Tx],
        *,
        required: bool = True,
    ) -> Mongo[Tx]:
        """Open a collection, with units of work that each write one document and publish its events.

        `open_collection` makes sure of its indexes; `open_tx` puts the repository on a transaction. Unless it
        is `required`, this process is ready without the store. Raises Unavailable, and StartError if it keeps
        another currency.
        """
        from stoa_chassis.mongo import MongoOutbox, connect
        from stoa_chassis.mongo_uow import mongo_unit_of_work

        settings = self.settings
        client = await self.enter(connect(settings.mongo_url, settings.connect_timeout_seconds))
        database = client[settings.mongo_database or self.name]
        await self._keep(currency.keep_in_mongo(database, settings.currency))
        collection = await open_collection(database)
        outbox = MongoOutbox(collection, await self.events(), await self.producer(), self.clock)
        self.background("outbox relay", outbox.run)
        if required:
            self.ready("document store", lambda: database.command("ping"))
        return Mongo(collection, mongo_unit_of_work(collection, outbox, open_tx))

    async def redis(
        self: App[R],
        open_tx: Callable[[RedisTransaction], Tx],
        *,
        busy: type[Aborted] | None = None,
        required: bool = True,
    ) -> RedisStore[Tx]:
        """Open the key-value store, with units of work that each write one key and publish its events.

        `open_tx` puts the repository on a transaction; `busy` is raised by use cases that lose again and
        again. Unless it is `required`, this process is ready without the store. Raises Unavailable, and
        StartError if it keeps another currency.
        """
        from stoa_chassis.redis import connect
        from stoa_chassis.redis_outbox import RedisOutbox
        from stoa_chassis.redis_uow import redis_unit_of_work
        from stoa_chassis.uow import Busy

        settings = self.settings
        redis = await self.enter(connect(settings.redis_url, settings.connect_timeout_seconds))
        await self._keep(currency.keep_in_redis(redis, self.name, settings.currency))
        outbox = RedisOutbox(
            redis, f"{self.name}:outbox", await self.events(), await self.producer(), self.clock
        )
        self.background("outbox relay", outbox.run)
        if required:
            self.ready("key-value store", redis.ping)
        return RedisStore(
            redis, redis_unit_of_work(redis, outbox, f"{self.name}:inbox", open_tx, busy or Busy)
        )

    async def opensearch(self: App[E], *, required: bool = True) -> AsyncOpenSearch:
        """Open a client of the search engine, which has no transactions and so no units of work.

        Unless it is `required`, this process starts and is ready without it. Raises EngineUnavailable.
        """
        from stoa_chassis.opensearch import connect

        settings = self.settings
        client = await self.enter(
            connect(settings.opensearch_url, settings.connect_timeout_seconds if required else 0)
        )
        if required:
            self.ready("search engine", client.cluster.health)
        return client

    async def _keep(self, keeping: Awaitable[None]) -> None:
        try:
            await keeping
        except currency.OtherCurrency as error:
            raise StartError(str(error)) from error

    # -------------------------------------------------------------------------------------------- running

    async def run(self, compose: Compose[S], stop: asyncio.Event, worker: WorkerSide | None) -> None:
        """Compose, serve until `stop`, drain, close. Raises StartError, or whatever `compose` raised."""
        began = time.perf_counter()
        async with self._resources:
            if not await _unless(stop, compose(self)):
                return
            port = await self._listen()
            jobs = [asyncio.create_task(supervised(name, work), name=name) for name, work in self._background]
            jobs.append(asyncio.create_task(self._readiness.watch(self._server.set_ready), name="readiness"))
            _log.info(
                "serving",
                port=port,
                tls=self._certificates is not None,
                services=self._server.services,
                background=[name for name, _ in self._background],
                seconds=round(time.perf_counter() - began, 3),
            )
            if worker is not None:
                worker.report_ready()
            await stop.wait()
            _log.info("draining")
            await self._server.drain(self.settings.drain_seconds)
            await cancelled(jobs)
        _log.info("stopped")

    async def _listen(self) -> int:
        settings = self.settings
        credentials = self._certificates.server_credentials() if self._certificates else None
        try:
            port = await self._server.start(f"{settings.host}:{settings.port}", credentials)
            if settings.health_port:
                await self._server.serve_health(f"{settings.host}:{settings.health_port}")
        except RuntimeError as error:
            raise StartError(f"{settings.host}:{settings.port} can't be listened on: {error}") from error
        return port


Compose = Callable[[App[S]], Awaitable[None]]


def run(name: str, settings_type: type[S], compose: Compose[S]) -> None:
    """Run a service until SIGTERM or SIGINT; exit with 1, and the cause in the log, if it can't start.

    With `settings.workers` > 1 this process only starts and watches that many workers, which share the port.
    """
    telemetry.configure_logging(name)
    try:
        settings = settings_type.load(name)
        telemetry.configure_logging(name, settings.log_level)
        metrics = settings.metrics_host, settings.metrics_port
        worker = WorkerSide.of_this_process()
        if worker is None:
            _refuse_taken_port(settings)
        if settings.workers > 1 and worker is None:
            sys.exit(supervise(name, settings.workers, metrics, settings.drain_seconds))
        if worker is not None:
            settings.become_worker(worker.index)
        telemetry.configure_tracing(name, settings.otlp_endpoint)
        if worker is None:
            telemetry.serve_metrics(*metrics)
        uvloop.run(_main(name, settings, compose, worker))
    except (StartError, ContractError, TlsError, paging.PageTokenKeyMissing) as error:
        _exit(str(error))
    except ValidationError as error:
        _exit("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    except Exception as error:
        _exit(str(error), error)


async def _main(name: str, settings: S, compose: Compose[S], worker: WorkerSide | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if worker is not None:
        worker.when_parent_ends(stop.set)
    await App(name, settings).run(compose, stop, worker)


def _exit(reason: str, error: Exception | None = None) -> None:
    _log.error("start failed", reason=reason, exc_info=error)
    sys.exit(1)


def _target(service: str) -> str:
    if target := os.environ.get(f"STOA_{service.upper()}_TARGET"):
        return target
    if (declared := declaration(service)) is None:
        raise StartError(
            f"STOA_{service.upper()}_TARGET is not set, and no declaration says where {service} is"
        )
    return f"127.0.0.1:{default_port(declared)}"


def _peer_identity(settings: ServiceSettings) -> PeerIdentity:
    if settings.sidecar_mtls:
        _refuse_others_than_the_sidecar(settings)
        return sidecar_identity(settings.spiffe_prefix)
    return certificate_identity(settings.spiffe_prefix) if settings.tls_dir else no_identity


def _refuse_others_than_the_sidecar(settings: ServiceSettings) -> None:
    """Raise StartError if another than our sidecar could connect, and write into the header who it is."""
    for name in ("host", "metrics_host"):
        if not _is_loopback(host := getattr(settings, name)):
            raise StartError(
                f"STOA_SIDECAR_MTLS takes the word of whoever connects for who is calling, so nobody but the "
                f"sidecar may: STOA_{name.upper()} must be 127.0.0.1, and is {host}"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name: what it leads to is for others to say
        return False


def _refuse_taken_port(settings: ServiceSettings) -> None:
    """Raise StartError if somebody listens: with SO_REUSEPORT gRPC would silently share with a stranger."""
    for host, port in (
        (settings.host, settings.port),
        (settings.host, settings.health_port),
        (settings.metrics_host, settings.metrics_port),
    ):
        if port == 0:
            continue
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise StartError(f"{host}:{port} is taken: {os.strerror(error.errno or 0)}") from None


async def _unless(stop: asyncio.Event, work: Awaitable[None]) -> bool:
    """Finish the work and return True, or give it up and return False when `stop` comes first."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        task.result()
        return True
    await cancelled([task])
    return False


async def _nothing() -> None:
    """Do nothing more."""
