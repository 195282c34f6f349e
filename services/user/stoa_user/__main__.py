"""The composition root of the user service."""

from datetime import timedelta

from stoa.user.v1.user_pb2_grpc import add_AuthServiceServicer_to_server, add_UserServiceServicer_to_server
from stoa_chassis.app import App, StartError, run
from stoa_chassis.errors import InvalidArgument
from stoa_user import repository
from stoa_user.api import AuthServicer, UserServicer
from stoa_user.passwords import Argon2Passwords
from stoa_user.service import (
    Accounts,
    AddressBooks,
    Authenticator,
    Guests,
    Mailing,
    OriginLimits,
    Privacy,
    Recovery,
    Sessions,
    StaffRoles,
)
from stoa_user.settings import Settings
from stoa_user.tokens import JwtIssuer

_PRUNE_EVERY_SECONDS = 3600.0


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    settings = app.settings
    issuer = JwtIssuer(
        settings.signing_key,
        settings.previous_public_keys,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        lifetime=timedelta(seconds=settings.access_token_seconds),
    )
    passwords = await app.enter(
        Argon2Passwords.open(
            threads=settings.password_threads,
            waiting=settings.password_queue,
            memory_kib=settings.argon2_memory_kib,
            iterations=settings.argon2_iterations,
            lanes=settings.argon2_lanes,
        )
    )
    clock = app.clock
    store = await app.postgres(repository.open_tx)
    users, attempts = repository.Users(store.database), repository.Attempts(store.database)
    profiles = repository.Profiles(await app.replica(store.database))
    mailed, stored_sessions = repository.MailedTokens(store.database), repository.Sessions(store.database)
    limits, mailing = OriginLimits(clock, settings.quotas), Mailing(clock, settings.mails)
    authenticator = Authenticator(store.uow, users, attempts, passwords, clock, settings.sign_in)
    guests = Guests(store.uow, issuer, clock, settings.sessions, limits)
    accounts = Accounts(store.uow, users, profiles, passwords, authenticator, guests, mailing, clock)
    books = AddressBooks(store.uow, repository.Addresses(store.database), clock)
    sessions = Sessions(store.uow, stored_sessions, authenticator, guests, issuer, clock, settings.sessions)
    recovery = Recovery(
        store.uow, mailed, passwords, authenticator, mailing, limits, clock, settings.reset_answer_after
    )
    roles = StaffRoles(store.uow, profiles, clock)
    privacy = Privacy(store.uow, authenticator, clock)
    if settings.staff_email and settings.staff_password:
        try:
            await accounts.ensure_staff(settings.staff_email, settings.staff_password)
        except InvalidArgument as error:
            raise StartError(f"the staff account of the settings: {error.message}") from None
    app.serve(add_UserServiceServicer_to_server, UserServicer(accounts, books, sessions, roles, privacy))
    app.serve(add_AuthServiceServicer_to_server, AuthServicer(accounts, sessions, guests, recovery))
    app.every("prune-sessions", _PRUNE_EVERY_SECONDS, sessions.prune)
    app.every("prune-attempts", _PRUNE_EVERY_SECONDS, authenticator.prune)
    app.every("prune-guests", _PRUNE_EVERY_SECONDS, guests.prune)
    app.every("prune-mails", _PRUNE_EVERY_SECONDS, recovery.prune)


if __name__ == "__main__":
    run("user", Settings, compose)
