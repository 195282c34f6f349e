"""Accounts, address books, sessions and sign-in attempts in PostgreSQL."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Queries
from stoa_chassis.postgres_table import Table
from stoa_user import ports
from stoa_user.model import (
    Address,
    AddressBook,
    AddressKind,
    AddressNotFound,
    EmailTaken,
    PostalAddress,
    RefreshToken,
    Session,
    SignInAttempts,
    User,
    UserNotFound,
    email_key,
)

_USERS = Table("users", key="user_id")
_ADDRESSES = Table("user_addresses", key="address_id")


class Users:
    """The accounts."""

    def __init__(self, queries: Queries, outbox: Outbox | None = None) -> None:
        """Outside of a transaction there is no outbox, and accounts are only read."""
        self._queries = queries
        self._outbox = outbox

    async def get(self, user_id: UUID) -> User:
        """Read an account. Raises UserNotFound."""
        return _found(await self._read("user_id = $1", user_id))

    async def lock(self, user_id: UUID) -> User:
        """Read an account that nobody else may change until the transaction ends. Raises UserNotFound."""
        return _found(await self._read("user_id = $1 FOR UPDATE", user_id))

    async def by_email(self, email: str) -> User | None:
        """Find the account with an email, however it is capitalised."""
        return await self._read("lower(email) = $1", email_key(email))

    async def add(self, user: User) -> None:
        """Store a new account, and publish its events. Raises EmailTaken."""
        assert self._outbox is not None, "an account is added in a transaction"
        with _email_is_unique():
            await _USERS.insert(self._queries, _user_row(user))
        self._outbox.collect(user)

    async def save(self, user: User) -> None:
        """Store a changed account, and publish its events. Raises EmailTaken."""
        assert self._outbox is not None, "an account is saved in a transaction"
        with _email_is_unique():
            await _USERS.update(self._queries, _user_row(user))
        self._outbox.collect(user)

    async def rehash(self, user: User, password_hash: str) -> None:
        """Replace the hash of a password by a stronger one of the same password, unless it has changed."""
        await self._queries.execute(
            "UPDATE users SET password_hash = $3 WHERE user_id = $1 AND password_hash = $2",
            user.user_id,
            user.password_hash,
            password_hash,
        )

    async def _read(self, condition: str, key: UUID | str) -> User | None:
        row = await self._queries.fetchrow(f"SELECT * FROM users WHERE {condition}", key)
        return _user(row) if row else None


class Addresses:
    """The address books. Whoever changes one holds the lock of its account."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def get(self, user_id: UUID, address_id: UUID) -> Address:
        """Read an address. Raises AddressNotFound if there is none, or it is in another account's book."""
        row = await self._queries.fetchrow(
            "SELECT * FROM user_addresses WHERE user_id = $1 AND address_id = $2", user_id, address_id
        )
        if row is None:
            raise AddressNotFound("the account has no such address")
        return _address(row)

    async def page(self, user_id: UUID, after: tuple[bool, UUID] | None, limit: int) -> Sequence[Address]:
        """Read addresses, defaults first and then the newest, that come after (is_default, address_id)."""
        is_default, address_id = after or (None, None)
        rows = await self._queries.fetch(
            """
            SELECT * FROM user_addresses
            WHERE user_id = $1 AND ($2::boolean IS NULL OR (is_default, address_id) < ($2, $3::uuid))
            ORDER BY is_default DESC, address_id DESC LIMIT $4
            """,
            user_id,
            is_default,
            address_id,
            limit,
        )
        return [_address(row) for row in rows]

    async def book(self, user_id: UUID) -> AddressBook:
        """Read a whole book, to decide on it."""
        rows = await self._queries.fetch("SELECT * FROM user_addresses WHERE user_id = $1", user_id)
        return AddressBook(user_id, {row["address_id"]: _address(row) for row in rows})

    async def save(self, book: AddressBook) -> None:
        """Store what changed in a book."""
        if book.removed:
            await self._queries.execute(
                "DELETE FROM user_addresses WHERE user_id = $1 AND address_id = ANY($2)",
                book.user_id,
                list(book.removed),
            )
        # Defaults are given up before others become it: the index allows only one of a kind at any moment.
        await self._queries.execute(
            """
            UPDATE user_addresses SET is_default = false
            WHERE user_id = $1 AND address_id = ANY($2) AND is_default
            """,
            book.user_id,
            list(book.changed),
        )
        for address_id in book.changed:
            await _ADDRESSES.upsert(self._queries, _address_row(book.user_id, book.addresses[address_id]))
        book.changed.clear()
        book.removed.clear()


class Sessions:
    """The sessions and their refresh tokens, which are found by their digest."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def add(self, session: Session, token: RefreshToken) -> None:
        """Store a new session and its first token."""
        await self._queries.execute(
            """
            WITH session AS (
                INSERT INTO sessions (session_id, user_id, expires_at) VALUES ($1, $2, $3)
                RETURNING session_id
            )
            INSERT INTO refresh_tokens (digest, session_id, expires_at) SELECT $4, session_id, $5 FROM session
            """,
            session.session_id,
            session.user_id,
            session.expires_at,
            token.digest,
            token.expires_at,
        )

    async def lock(self, digest: bytes) -> tuple[Session, RefreshToken] | None:
        """Find a token and its session, and let nobody else use either until the transaction ends."""
        row = await self._queries.fetchrow(
            """
            SELECT s.session_id, s.user_id, s.expires_at, s.revoked_at,
                t.expires_at AS token_expires_at, t.used_at
            FROM refresh_tokens t JOIN sessions s USING (session_id)
            WHERE t.digest = $1 FOR UPDATE
            """,
            digest,
        )
        if row is None:
            return None
        return (
            Session(row["session_id"], row["user_id"], row["expires_at"], row["revoked_at"]),
            RefreshToken(digest, row["token_expires_at"], row["used_at"]),
        )

    async def rotate(self, session: Session, used: RefreshToken, issued: RefreshToken) -> None:
        """Store that a token was used and which one takes its place."""
        await self._queries.execute(
            """
            WITH used AS (UPDATE refresh_tokens SET used_at = $2 WHERE digest = $1)
            INSERT INTO refresh_tokens (digest, session_id, expires_at) VALUES ($3, $4, $5)
            """,
            used.digest,
            used.used_at,
            issued.digest,
            session.session_id,
            issued.expires_at,
        )

    async def save(self, session: Session) -> None:
        """Store that a session was revoked."""
        await self._queries.execute(
            "UPDATE sessions SET revoked_at = $2 WHERE session_id = $1",
            session.session_id,
            session.revoked_at,
        )

    async def revoke_all(self, user_id: UUID, now: datetime) -> None:
        """End all sessions of an account."""
        await self._queries.execute(
            "UPDATE sessions SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL", user_id, now
        )

    async def prune(self, before: datetime) -> None:
        """Drop sessions that expired before a time, and their tokens."""
        await self._queries.execute("DELETE FROM sessions WHERE expires_at < $1", before)


class Attempts:
    """The failures to sign in, by the digest of the email (`model.attempts_key`)."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def get(self, key: bytes) -> SignInAttempts:
        """Read the failures with an email."""
        row = await self._queries.fetchrow("SELECT * FROM sign_in_attempts WHERE email_digest = $1", key)
        return _attempts(row) if row else SignInAttempts()

    async def lock(self, key: bytes) -> SignInAttempts:
        """Read the failures with an email and let nobody else count until the transaction ends."""
        row = await self._queries.fetchrow(
            """
            INSERT INTO sign_in_attempts (email_digest, failures) VALUES ($1, 0)
            ON CONFLICT (email_digest) DO UPDATE SET failures = sign_in_attempts.failures
            RETURNING *
            """,
            key,
        )
        assert row is not None
        return _attempts(row)

    async def save(self, key: bytes, attempts: SignInAttempts) -> None:
        """Store the failures with an email, which are locked."""
        await self._queries.execute(
            """
            UPDATE sign_in_attempts SET failures = $2, last_failed_at = $3, locked_until = $4
            WHERE email_digest = $1
            """,
            key,
            attempts.failures,
            attempts.last_failed_at,
            attempts.locked_until,
        )

    async def clear(self, key: bytes) -> None:
        """Forget the failures with an email."""
        await self._queries.execute("DELETE FROM sign_in_attempts WHERE email_digest = $1", key)

    async def prune(self, before: datetime) -> None:
        """Drop failures that happened before a time."""
        await self._queries.execute("DELETE FROM sign_in_attempts WHERE last_failed_at < $1", before)


def open_tx(connection: asyncpg.Connection, outbox: Outbox) -> ports.Tx:
    """Put the repositories on the connection of a transaction."""
    return ports.Tx(
        Users(connection, outbox), Addresses(connection), Sessions(connection), Attempts(connection)
    )


@contextmanager
def _email_is_unique() -> Iterator[None]:
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "users_email_key":
            raise
        raise EmailTaken from None


def _found(user: User | None) -> User:
    if user is None:
        raise UserNotFound("there is no such account")
    return user


def _user_row(user: User) -> dict[str, Any]:
    return {
        "user_id": user.user_id,
        "email": user.email,
        "password_hash": user.password_hash,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "roles": sorted(user.roles),
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    }


def _user(row: asyncpg.Record) -> User:
    return User(
        user_id=row["user_id"],
        email=row["email"],
        password_hash=row["password_hash"],
        first_name=row["first_name"],
        last_name=row["last_name"],
        roles=frozenset(row["roles"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _address_row(user_id: UUID, address: Address) -> dict[str, Any]:
    postal = address.postal
    return {
        "address_id": address.address_id,
        "user_id": user_id,
        "kind": address.kind,
        "is_default": address.is_default,
        "recipient": postal.recipient,
        "line1": postal.line1,
        "line2": postal.line2,
        "city": postal.city,
        "region": postal.region,
        "postal_code": postal.postal_code,
        "country": postal.country,
        "created_at": address.created_at,
        "updated_at": address.updated_at,
    }


def _address(row: asyncpg.Record) -> Address:
    return Address(
        address_id=row["address_id"],
        kind=AddressKind(row["kind"]),
        is_default=row["is_default"],
        postal=PostalAddress(
            recipient=row["recipient"],
            line1=row["line1"],
            line2=row["line2"],
            city=row["city"],
            region=row["region"],
            postal_code=row["postal_code"],
            country=row["country"],
        ),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _attempts(row: asyncpg.Record) -> SignInAttempts:
    return SignInAttempts(row["failures"], row["last_failed_at"], row["locked_until"])
