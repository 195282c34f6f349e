"""The composition root of the user service."""

import asyncio
from datetime import timedelta

from stoa.user.v1.user_pb2_grpc import add_AuthServiceServicer_to_server, add_UserServiceServicer_to_server
from stoa_chassis.app import App, run
from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.kafka import Producer
from stoa_chassis.migrations import service_migrations
from stoa_chassis.outbox import OutboxRelay
from stoa_chassis.postgres import Database
from stoa_chassis.uow import UnitOfWork
from stoa_events import UserProfileUpdated, UserRegistered
from stoa_user.api import AuthServicer, UserServicer
from stoa_user.passwords import Passwords
from stoa_user.repository import Addresses, Attempts, Tx, Users
from stoa_user.service import Accounts, AddressBooks, Sessions
from stoa_user.settings import Settings
from stoa_user.tokens import TokenIssuer

_PRUNE_EVERY = 3600.0  # seconds


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    settings, clock = app.settings, SystemClock()
    issuer = TokenIssuer(
        settings.signing_key,
        settings.previous_public_keys,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        lifetime=timedelta(seconds=settings.access_token_seconds),
    )
    passwords = await app.enter(
        Passwords.open(
            threads=settings.password_threads,
            waiting=settings.password_queue,
            memory_kib=settings.argon2_memory_kib,
            iterations=settings.argon2_iterations,
            lanes=settings.argon2_lanes,
        )
    )
    database = await app.enter(
        Database.connect(settings.database_url, service_migrations("user"), settings.database_pool_size)
    )
    codec = EventCodec(settings.schema_registry_url)
    await codec.load(UserRegistered, UserProfileUpdated)
    producer = await app.enter(Producer(settings.kafka_bootstrap))

    uow = UnitOfWork(database, codec, Tx.open, clock)
    users = Users(database)
    accounts = Accounts(uow, users, passwords, clock)
    books = AddressBooks(uow, Addresses(database), clock)
    sessions = Sessions(
        uow, users, Attempts(database), passwords, issuer, clock, settings.sessions, settings.lockout
    )
    if settings.staff_email and settings.staff_password:
        await accounts.ensure_staff(settings.staff_email, settings.staff_password)

    async def prune() -> None:
        while True:
            await sessions.prune()
            await asyncio.sleep(_PRUNE_EVERY)

    app.serve(add_UserServiceServicer_to_server, UserServicer(accounts, books))
    app.serve(add_AuthServiceServicer_to_server, AuthServicer(sessions, issuer))
    app.background("outbox relay", OutboxRelay(database, producer).run)
    app.background("prune", prune)


if __name__ == "__main__":
    run("user", Settings, compose)
