"""The use cases on a store in memory or on PostgreSQL, at a time that a test can turn forward."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_chassis.testing import SettableClock
from stoa_chassis.uow import UnitOfWork
from stoa_contracts.events import Payload
from stoa_contracts.roles import STAFF
from stoa_events import UserEmailVerificationRequested, UserPasswordResetRequested
from stoa_user import ports, repository, testing
from stoa_user.model import (
    Address,
    AddressKind,
    InvalidCredentials,
    Limited,
    MailPolicy,
    PostalAddress,
    ProfileChange,
    Purpose,
    Quota,
    SessionPolicy,
    SignInPolicy,
    User,
)
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
    Requester,
    Sessions,
    SignedIn,
    StaffRoles,
)
from stoa_user.tokens import JwtIssuer

PASSWORD = "correct horse battery"
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SOMEWHERE = PostalAddress(
    recipient="Ann Lee", line1="1 Elm Street", city="Boston", postal_code="02108", country="US"
)
QUOTAS = {Limited.GUEST: Quota(5), Limited.PASSWORD_RESET: Quota(5)}
T = TypeVar("T")


@dataclass(frozen=True)
class Store:
    """One of the stores, behind the ports."""

    uow: UnitOfWork[ports.Tx]
    users: ports.Users
    profiles: ports.Profiles
    addresses: ports.Addresses
    attempts: ports.Attempts
    sessions: ports.Sessions
    mailed: ports.MailedTokens
    published: Callable[[UUID], Awaitable[list[Event[Payload]]]]
    """What was published of an account, oldest first."""


@dataclass
class UserService:
    """The user service without its network."""

    store: Store
    passwords: ports.Passwords
    issuer: ports.TokenIssuer
    clock: SettableClock = field(default_factory=SettableClock)

    def __post_init__(self) -> None:
        store = self.store
        self.authenticator = Authenticator(
            store.uow, store.users, store.attempts, self.passwords, self.clock, SignInPolicy()
        )
        self.limits = OriginLimits(self.clock, QUOTAS)
        self.mailing = Mailing(self.clock, MailPolicy())
        self.guests = Guests(store.uow, self.issuer, self.clock, SessionPolicy(), self.limits)
        self.accounts = Accounts(
            store.uow,
            store.users,
            store.profiles,
            self.passwords,
            self.authenticator,
            self.guests,
            self.mailing,
            self.clock,
        )
        self.books = AddressBooks(store.uow, store.addresses, self.clock)
        self.sessions = Sessions(
            store.uow,
            store.sessions,
            self.authenticator,
            self.guests,
            self.issuer,
            self.clock,
            SessionPolicy(),
        )
        self.recovery = Recovery(
            store.uow,
            store.mailed,
            self.passwords,
            self.authenticator,
            self.mailing,
            self.limits,
            self.clock,
            timedelta(),
        )
        self.roles = StaffRoles(store.uow, store.profiles, self.clock)
        self.privacy = Privacy(store.uow, self.authenticator, self.clock)

    async def register(self, email: str = "") -> User:
        """Open an account with an email of its own."""
        return await self.accounts.register(email or new_email(), PASSWORD, "Ann", "Lee")

    async def staff(self, *roles: str) -> User:
        """Open an account of staff with these roles."""
        user = await self.register()
        return (await self.roles.set(user.user_id, frozenset(roles), "hired", uuid4()))[0]

    async def mailed(self, user_id: UUID, purpose: Purpose) -> list[str]:
        """The tokens that were mailed to the owner of an account for this, oldest first."""
        payloads = [event.payload for event in await self.store.published(user_id)]
        if purpose is Purpose.RESET_PASSWORD:
            return [each.token for each in payloads if isinstance(each, UserPasswordResetRequested)]
        return [each.token for each in payloads if isinstance(each, UserEmailVerificationRequested)]

    async def confirm_email(self, user_id: UUID) -> None:
        """Do what the newest mail asks for that is to confirm an address."""
        await self.accounts.confirm_email((await self.mailed(user_id, Purpose.CONFIRM_EMAIL))[-1])

    async def fail(self, email: str, times: int, address: str = "") -> None:
        """Try to sign in with a wrong password, which is found to be wrong each time."""
        for _ in range(times):
            with pytest.raises(InvalidCredentials):
                await self.sessions.sign_in(email, "wrong", address)

    async def change_email(
        self,
        user_id: UUID,
        email: str,
        *,
        password: str = PASSWORD,
        by: UUID | None = None,
        session_id: UUID | None = None,
        address: str = "",
    ) -> User:
        """Name another email for an account, by its owner if nobody else is named."""
        requester = Requester(by or user_id, session_id, address)
        return await self.accounts.change_profile(user_id, ProfileChange(email=email), requester, password)

    async def move(self, user_id: UUID, email: str, **by: Any) -> User:
        """Change the email of an account, and confirm it."""
        await self.change_email(user_id, email, **by)
        await self.confirm_email(user_id)
        return await self.accounts.get(user_id)


def new_email() -> str:
    return f"Ann.{uuid4().hex}@Example.com"


def session_of(signed_in: SignedIn) -> UUID:
    """The session that an access token belongs to."""
    return UUID(jwt.decode(signed_in.access_token, options={"verify_signature": False})["sid"])


def subject_of(signed_in: SignedIn) -> UUID:
    """Whose an access token is."""
    return UUID(jwt.decode(signed_in.access_token, options={"verify_signature": False})["sub"])


def roles(access_token: str) -> list[str]:
    """The roles in a token."""
    found: list[str] = jwt.decode(access_token, options={"verify_signature": False})["roles"]
    return found


async def outcomes(*calls: Awaitable[T]) -> list[T | type[BaseException]]:
    """Run calls at the same moment; a call that raised counts as the type of its error."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    return [type(each) if isinstance(each, BaseException) else each for each in done]


def a_user() -> User:
    """An account of which every field has a value of its own."""
    return User(
        user_id=uuid4(),
        email=new_email(),
        password_hash="$argon2id$v=19$hash",
        first_name="Ann",
        last_name="Lee",
        locale="de",
        verified_email="ann@before.example",
        pending_email="ann@later.example",
        roles=frozenset({STAFF, "support"}),
        created_at=NOW,
        updated_at=NOW + timedelta(days=1),
    )


def an_address() -> Address:
    """An address of which every field has a value of its own."""
    return Address(
        address_id=uuid4(),
        kind=AddressKind.BILLING,
        is_default=True,
        postal=PostalAddress(
            recipient="Ann Lee",
            line1="1 Elm Street",
            line2="Third flat",
            city="Boston",
            region="MA",
            postal_code="02108",
            country="US",
        ),
        created_at=NOW,
        updated_at=NOW + timedelta(days=1),
    )


@pytest.fixture
def memory() -> MemoryStore[testing.Rows]:
    """An empty store in memory."""
    return MemoryStore(testing.Rows())


@pytest.fixture
def in_memory(memory: MemoryStore[testing.Rows]) -> Store:
    """The ports on that store."""

    async def published(user_id: UUID) -> list[Event[Payload]]:
        return [event for event in memory.published if event.payload.key == str(user_id)]

    return Store(
        memory_unit_of_work(lambda: memory, testing.open_tx),
        testing.Users(lambda: memory),
        testing.Profiles(lambda: memory),
        testing.Addresses(lambda: memory),
        testing.Attempts(lambda: memory),
        testing.Sessions(lambda: memory),
        testing.MailedTokens(lambda: memory),
        published,
    )


@pytest.fixture
def in_postgres(database: Database, codec: EventCodec) -> Store:
    """The ports on that database, which the tests of a module share."""

    async def published(user_id: UUID) -> list[Event[Payload]]:
        rows = await database.fetch(
            "SELECT topic, value FROM outbox WHERE key = $1 ORDER BY id", str(user_id)
        )
        return [await codec.decode(row["topic"], row["value"]) for row in rows]

    return Store(
        postgres_unit_of_work(database, codec, repository.open_tx, SystemClock()),
        repository.Users(database),
        repository.Profiles(database),
        repository.Addresses(database),
        repository.Attempts(database),
        repository.Sessions(database),
        repository.MailedTokens(database),
        published,
    )


@pytest.fixture(params=["in_memory", pytest.param("in_postgres", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    """The ports, on one store and on the other."""
    chosen: Store = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(scope="module")
async def passwords() -> AsyncIterator[Argon2Passwords]:
    """Password hashing that takes no time."""
    async with Argon2Passwords.open(threads=2, waiting=64, memory_kib=64, iterations=1, lanes=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def issuer() -> JwtIssuer:
    """An issuer with a key of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return JwtIssuer(pem, issuer="stoa", audience="stoa", lifetime=timedelta(minutes=15))


@pytest.fixture
def service(in_memory: Store, passwords: Argon2Passwords, issuer: JwtIssuer) -> UserService:
    """The use cases in memory, with a clock that only this test turns."""
    return UserService(in_memory, passwords, issuer)


@pytest.fixture
def service_on_each(store: Store, passwords: Argon2Passwords, issuer: JwtIssuer) -> UserService:
    """The use cases on one store and on the other."""
    return UserService(store, passwords, issuer)
