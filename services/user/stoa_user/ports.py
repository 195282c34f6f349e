"""What the use cases of accounts need from outside."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol
from uuid import UUID

from stoa_user.model import (
    Address,
    AddressBook,
    AttemptsKey,
    GuestMerge,
    Limited,
    MailedToken,
    PublicKey,
    Purpose,
    RefreshToken,
    Requests,
    RoleChange,
    Session,
    SignInAttempts,
    User,
)


class Users(Protocol):
    """The accounts. One that is erased is not found any more."""

    async def get(self, user_id: UUID) -> User:
        """Read an account. Raises UserNotFound."""
        ...

    async def lock_admins(self) -> Sequence[User]:
        """Read the accounts of admins, and let nobody make them more or fewer until the transaction ends."""
        ...

    async def lock(self, user_id: UUID) -> User:
        """Read an account that nobody else may change until the transaction ends. Raises UserNotFound."""
        ...

    async def by_email(self, email: str) -> User | None:
        """Find the account with an email, however it is written (`stoa_chassis.emails`)."""
        ...

    async def add(self, user: User) -> None:
        """Store a new account, and publish its events. Raises EmailTaken."""
        ...

    async def save(self, user: User) -> None:
        """Store a changed account, and publish its events. Raises EmailTaken."""
        ...

    async def rehash(self, user: User, password_hash: str) -> None:
        """Replace the hash of a password by a stronger one of the same password, unless it has changed."""
        ...


class Profiles(Protocol):
    """The accounts as others than their owners see them, who don't mind if they lag behind by seconds."""

    async def get(self, user_id: UUID) -> User:
        """Read an account. Raises UserNotFound."""
        ...

    async def staff(self, after: UUID | None, limit: int) -> Sequence[User]:
        """Read accounts of staff, the newest first, that come after an id."""
        ...


class Addresses(Protocol):
    """The address books. Whoever changes one holds the lock of its account."""

    async def get(self, user_id: UUID, address_id: UUID) -> Address:
        """Read an address. Raises AddressNotFound if there is none, or it is in another account's book."""
        ...

    async def page(self, user_id: UUID, after: tuple[bool, UUID] | None, limit: int) -> Sequence[Address]:
        """Read addresses, defaults first and then the newest, that come after (is_default, address_id)."""
        ...

    async def book(self, user_id: UUID) -> AddressBook:
        """Read a whole book, to decide on it."""
        ...

    async def save(self, book: AddressBook) -> None:
        """Store what changed in a book."""
        ...

    async def clear(self, user_id: UUID) -> None:
        """Drop a whole book."""
        ...


class Sessions(Protocol):
    """The sessions and their refresh tokens, which are found by their digest."""

    async def add(self, session: Session, token: RefreshToken) -> None:
        """Store a new session and its first token."""
        ...

    async def lock(self, digest: bytes) -> tuple[Session, RefreshToken] | None:
        """Find a token and its session, and let nobody else use either until the transaction ends."""
        ...

    async def lock_session(self, session_id: UUID) -> Session | None:
        """Find a session, and let nobody else use it until the transaction ends."""
        ...

    async def page(self, user_id: UUID, now: datetime, after: UUID | None, limit: int) -> Sequence[Session]:
        """Read the sessions in which one is signed in now, the newest first, that come after an id."""
        ...

    async def rotate(
        self, session: Session, used: RefreshToken, issued: RefreshToken, *, graceless_before: datetime
    ) -> None:
        """Store that a token was used, and with it its session, and which one takes its place.

        Tokens of the session that were used before `graceless_before` lose the salts of their successors.
        """
        ...

    async def save(self, session: Session) -> None:
        """Store that a session was revoked."""
        ...

    async def revoke_all(self, user_id: UUID, now: datetime, *, but: UUID | None = None) -> None:
        """End all sessions of an account, except one if its id is given."""
        ...

    async def drop_all(self, user_id: UUID) -> None:
        """Drop all sessions of an account, and their tokens."""
        ...

    async def prune(self, before: datetime, limit: int) -> int:
        """Drop up to so many sessions that expired before a time, and their tokens; tell how many."""
        ...


class Guests(Protocol):
    """Which guests have become the owner of which account."""

    async def merged_into(self, guest_id: UUID) -> UUID | None:
        """Return whose a guest's things are now; None if they are the guest's."""
        ...

    async def merged_by(self, user_id: UUID) -> Sequence[UUID]:
        """Return which guests the owner of an account was."""
        ...

    async def add(self, merge: GuestMerge) -> None:
        """Store that a guest has become the owner of an account, and publish it."""
        ...

    async def drop_all(self, user_id: UUID) -> None:
        """Forget which guests the owner of an account was."""
        ...

    async def prune(self, before: datetime) -> None:
        """Forget merges before a time."""
        ...


class MailedTokens(Protocol):
    """The tokens that were mailed, which are found by their digest."""

    async def add(self, token: MailedToken) -> None:
        """Store a token, and publish it for the mail."""
        ...

    async def get(self, digest: bytes, purpose: Purpose, now: datetime) -> MailedToken | None:
        """Find a token that is still good for this."""
        ...

    async def live(self, user_id: UUID, purpose: Purpose, now: datetime) -> Sequence[datetime]:
        """Return until when the tokens are good that an account has for this, the first to expire first."""
        ...

    async def drop_all(self, user_id: UUID, purpose: Purpose | None = None) -> None:
        """Drop the tokens of an account, those for one purpose or all."""
        ...

    async def prune(self, before: datetime) -> None:
        """Drop tokens that expired before a time."""
        ...


class RoleChanges(Protocol):
    """Who has changed what accounts may do as staff."""

    async def add(self, change: RoleChange) -> None:
        """Store a change."""
        ...

    async def newest(self, user_id: UUID, limit: int) -> Sequence[RoleChange]:
        """Read the changes of an account, the newest first."""
        ...


class OriginRequests(Protocol):
    """How often something was asked for from one origin."""

    async def lock(self, subject: Limited, origin: bytes, now: datetime) -> Requests:
        """Read how often, and let nobody else count until the transaction ends."""
        ...

    async def save(self, subject: Limited, origin: bytes, requests: Requests) -> None:
        """Store how often."""
        ...

    async def prune(self, before: datetime) -> None:
        """Drop what began before a time."""
        ...


class Attempts(Protocol):
    """The tries to sign in: the failures, and where owners did sign in from."""

    async def get(self, key: AttemptsKey) -> SignInAttempts:
        """Read what is known of an account, seen from one origin."""
        ...

    async def lock(self, key: AttemptsKey) -> SignInAttempts:
        """Read the same, and let nobody else count for this account until the transaction ends."""
        ...

    async def save(self, key: AttemptsKey, attempts: SignInAttempts) -> None:
        """Store the failures, which are locked."""
        ...

    async def succeeded(self, key: AttemptsKey, attempts: SignInAttempts) -> None:
        """Store that the owner signed in from an origin, and what failures from there are left."""
        ...

    async def prune(self, failed_before: datetime, signed_in_before: datetime) -> None:
        """Drop failures that happened before a time, and origins where nobody signed in since another."""
        ...

    async def lift(self, account: bytes) -> None:
        """Forget all failures of an account, wherever they came from."""
        ...

    async def drop_all(self, account: bytes) -> None:
        """Forget all that is known of an account."""
        ...


@dataclass(frozen=True, slots=True)
class Tx:
    """What a use case sees of a transaction."""

    users: Users
    addresses: Addresses
    sessions: Sessions
    attempts: Attempts
    guests: Guests
    mailed: MailedTokens
    role_changes: RoleChanges
    requests: OriginRequests


class PasswordVerdict(Enum):
    """What a password is to a hash."""

    WRONG = "wrong"
    RIGHT = "right"
    OUTDATED = "outdated"
    """It is right, but today's hash of it would be another: it is to be hashed anew."""


class Passwords(Protocol):
    """Hashes and checks passwords, which costs so much that a caller waits for a turn.

    A turn takes long: no transaction is open meanwhile.
    """

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Wait for a turn, which lasts as long as the block. Raises SignInBusy if too many are waiting."""
        ...

    def check_new(self, password: str) -> None:
        """Raise InvalidArgument for a password that nobody should choose, because it is too common."""
        ...

    async def hash(self, password: str) -> str:
        """Return the hash to store; to be called in a turn."""
        ...

    async def verify(self, password: str, password_hash: str | None) -> PasswordVerdict:
        """Tell whether a password is that of a hash; to be called in a turn.

        None as hash (no such account) is never right and takes the same time.
        """
        ...


class TokenIssuer(Protocol):
    """Signs access tokens."""

    @property
    def lifetime(self) -> timedelta:
        """How long a token is good."""
        ...

    @property
    def public_keys(self) -> Sequence[PublicKey]:
        """What proves the tokens that are still good."""
        ...

    def issue(self, user: User, session_id: UUID, now: datetime) -> str:
        """Return a token that proves who the user is, in which session, and what roles they have."""
        ...

    def issue_to_guest(self, guest_id: UUID, session_id: UUID, now: datetime) -> str:
        """Return a token that proves which guest somebody is, in which session."""
        ...

    def session_of_guest(self, token: str, now: datetime) -> UUID | None:
        """Return the session that a guest's token belongs to; None if it is no such token, or has expired."""
        ...
