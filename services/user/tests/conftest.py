"""The use cases on a real database, at a time that a test can turn forward."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.migrations import service_migrations
from stoa_chassis.postgres import Database
from stoa_chassis.uow import UnitOfWork
from stoa_contracts.events import Payload
from stoa_events import UserProfileUpdated, UserRegistered
from stoa_user.model import LockoutPolicy, SessionPolicy, User
from stoa_user.passwords import Passwords
from stoa_user.repository import Addresses, Attempts, Tx, Users
from stoa_user.service import Accounts, AddressBooks, Sessions
from stoa_user.tokens import TokenIssuer

PASSWORD = "correct horse battery"


class TurnableClock:
    """A clock that goes on by itself and can be turned forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class UserService:
    """The user service without its network."""

    database: Database
    codec: EventCodec
    passwords: Passwords
    issuer: TokenIssuer
    clock: TurnableClock = field(default_factory=TurnableClock)

    def __post_init__(self) -> None:
        self.uow = UnitOfWork(self.database, self.codec, Tx.open, self.clock)
        users = Users(self.database)
        self.accounts = Accounts(self.uow, users, self.passwords, self.clock)
        self.books = AddressBooks(self.uow, Addresses(self.database), self.clock)
        self.sessions = Sessions(
            self.uow,
            users,
            Attempts(self.database),
            self.passwords,
            self.issuer,
            self.clock,
            SessionPolicy(),
            LockoutPolicy(),
        )

    async def register(self, email: str = "") -> User:
        """Open an account with an email of its own."""
        return await self.accounts.register(email or new_email(), PASSWORD, "Ann", "Lee")

    async def events(self, user_id: UUID) -> list[Event[Payload]]:
        """What was published of an account."""
        rows = await self.database.fetch(
            "SELECT topic, value FROM outbox WHERE key = $1 ORDER BY id", str(user_id)
        )
        return [await self.codec.decode(row["topic"], row["value"]) for row in rows]


def new_email() -> str:
    return f"Ann.{uuid4().hex}@Example.com"


@pytest.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    """The service's database, with its tables."""
    async with Database.connect(database_url, service_migrations("user")) as connected:
        yield connected


@pytest.fixture(scope="module")
async def codec(schema_registry_url: str) -> EventCodec:
    """The codec of the events that the service publishes."""
    loaded = EventCodec(schema_registry_url)
    await loaded.load(UserRegistered, UserProfileUpdated)
    return loaded


@pytest.fixture(scope="module")
async def passwords() -> AsyncIterator[Passwords]:
    """Password hashing that takes no time."""
    async with Passwords.open(threads=2, waiting=64, memory_kib=64, iterations=1, lanes=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def issuer() -> TokenIssuer:
    """An issuer with a key of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return TokenIssuer(pem, issuer="stoa", audience="stoa", lifetime=timedelta(minutes=15))


@pytest.fixture
def service(database: Database, codec: EventCodec, passwords: Passwords, issuer: TokenIssuer) -> UserService:
    """The use cases, with a clock that only this test turns."""
    return UserService(database, codec, passwords, issuer)
