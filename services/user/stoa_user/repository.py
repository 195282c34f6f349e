"""Accounts, address books, sessions and sign-in attempts in PostgreSQL."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from stoa_chassis.emails import email_key
from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Queries
from stoa_chassis.postgres_table import Table
from stoa_user import ports
from stoa_user.model import (
    Address,
    AddressBook,
    AddressKind,
    AddressNotFound,
    AttemptsKey,
    EmailTaken,
    Failures,
    PostalAddress,
    RefreshToken,
    Session,
    SignInAttempts,
    User,
    UserNotFound,
)

_USERS = Table("users", key="user_id")
_ADDRESSES = Table("user_addresses", key="address_id")
_ORIGINS = Table("sign_in_origins", key="email_digest, origin_digest")


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
        """Find the account with an email, however it is written (`email_key`)."""
        return await self._read("lower(email) = $1", email_key(email))

    async def add(self, user: User) -> None:
        """Store a new account, and publish its events. Raises EmailTaken."""
        assert self._outbox is not None, "an account is added in a transaction"
        # Not tried and refused: the refusal's detail, in the database's log, would have the email.
        if not await _USERS.insert_new(self._queries, _user_row(user), unique="(lower(email))"):
            raise EmailTaken
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
                t.expires_at AS token_expires_at, t.used_at, t.successor_salt
            FROM refresh_tokens t JOIN sessions s USING (session_id)
            WHERE t.digest = $1 FOR UPDATE
            """,
            digest,
        )
        if row is None:
            return None
        return (
            Session(row["session_id"], row["user_id"], row["expires_at"], row["revoked_at"]),
            RefreshToken(digest, row["token_expires_at"], row["used_at"], row["successor_salt"]),
        )

    async def rotate(
        self, session: Session, used: RefreshToken, issued: RefreshToken, *, graceless_before: datetime
    ) -> None:
        """Store that a token was used and which one takes its place.

        Tokens of the session that were used before `graceless_before` lose the salts of their successors.
        """
        await self._queries.execute(
            """
            WITH used AS (UPDATE refresh_tokens SET used_at = $2, successor_salt = $3 WHERE digest = $1),
            graceless AS (
                UPDATE refresh_tokens SET successor_salt = NULL
                WHERE session_id = $5 AND used_at < $7 AND successor_salt IS NOT NULL AND digest <> $1
            )
            INSERT INTO refresh_tokens (digest, session_id, expires_at) VALUES ($4, $5, $6)
            """,
            used.digest,
            used.used_at,
            used.successor_salt,
            issued.digest,
            session.session_id,
            issued.expires_at,
            graceless_before,
        )

    async def save(self, session: Session) -> None:
        """Store that a session was revoked."""
        await self._queries.execute(
            "UPDATE sessions SET revoked_at = $2 WHERE session_id = $1",
            session.session_id,
            session.revoked_at,
        )

    async def revoke_all(self, user_id: UUID, now: datetime, *, but: UUID | None = None) -> None:
        """End all sessions of an account, except one if its id is given."""
        await self._queries.execute(
            """
            UPDATE sessions SET revoked_at = $2
            WHERE user_id = $1 AND revoked_at IS NULL AND session_id IS DISTINCT FROM $3
            """,
            user_id,
            now,
            but,
        )

    async def prune(self, before: datetime) -> None:
        """Drop sessions that expired before a time, and their tokens."""
        await self._queries.execute("DELETE FROM sessions WHERE expires_at < $1", before)


class Attempts:
    """The tries to sign in: the failures, and where owners did sign in from."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def get(self, key: AttemptsKey) -> SignInAttempts:
        """Read what is known of an account, seen from one origin."""
        row = await self._queries.fetchrow(
            """
            SELECT a.failures AS strangers_failures, a.last_failed_at AS strangers_last_failed_at,
                a.locked_until AS strangers_locked_until,
                o.failures, o.last_failed_at, o.locked_until, o.signed_in_at
            FROM (SELECT $1::bytea AS email_digest) key
            LEFT JOIN sign_in_attempts a USING (email_digest)
            LEFT JOIN sign_in_origins o ON o.email_digest = $1 AND o.origin_digest = $2
            """,
            key.account,
            key.origin,
        )
        assert row is not None
        return SignInAttempts(_failures(row), _failures(row, "strangers_"), row["signed_in_at"])

    async def lock(self, key: AttemptsKey) -> SignInAttempts:
        """Read the same, and let nobody else count for this account until the transaction ends."""
        account = await self._queries.fetchrow(
            """
            INSERT INTO sign_in_attempts (email_digest, failures) VALUES ($1, 0)
            ON CONFLICT (email_digest) DO UPDATE SET failures = sign_in_attempts.failures
            RETURNING *
            """,
            key.account,
        )
        origin = await self._queries.fetchrow(
            """
            INSERT INTO sign_in_origins (email_digest, origin_digest) VALUES ($1, $2)
            ON CONFLICT (email_digest, origin_digest) DO UPDATE SET failures = sign_in_origins.failures
            RETURNING *
            """,
            key.account,
            key.origin,
        )
        assert account is not None
        assert origin is not None
        return SignInAttempts(_failures(origin), _failures(account), origin["signed_in_at"])

    async def save(self, key: AttemptsKey, attempts: SignInAttempts) -> None:
        """Store the failures, which are locked."""
        here, strangers = attempts.here, attempts.strangers
        await self._queries.execute(
            """
            WITH account AS (
                UPDATE sign_in_attempts SET failures = $3, last_failed_at = $4, locked_until = $5
                WHERE email_digest = $1
            )
            UPDATE sign_in_origins SET failures = $6, last_failed_at = $7, locked_until = $8
            WHERE email_digest = $1 AND origin_digest = $2
            """,
            key.account,
            key.origin,
            strangers.count,
            strangers.last_at,
            strangers.locked_until,
            here.count,
            here.last_at,
            here.locked_until,
        )

    async def succeeded(self, key: AttemptsKey, attempts: SignInAttempts) -> None:
        """Store that the owner signed in from an origin, and what failures from there are left."""
        await _ORIGINS.upsert(
            self._queries,
            {
                "email_digest": key.account,
                "origin_digest": key.origin,
                "failures": attempts.here.count,
                "last_failed_at": attempts.here.last_at,
                "locked_until": attempts.here.locked_until,
                "signed_in_at": attempts.signed_in_at,
            },
        )

    async def prune(self, failed_before: datetime, signed_in_before: datetime) -> None:
        """Drop failures that happened before a time, and origins where nobody signed in since another."""
        await self._queries.execute(
            "DELETE FROM sign_in_attempts WHERE last_failed_at < $1 OR last_failed_at IS NULL", failed_before
        )
        await self._queries.execute(
            """
            DELETE FROM sign_in_origins
            WHERE greatest(last_failed_at, signed_in_at) < greatest($1::timestamptz, $2::timestamptz)
                AND (last_failed_at < $1 OR last_failed_at IS NULL)
                AND (signed_in_at < $2 OR signed_in_at IS NULL)
            """,
            failed_before,
            signed_in_before,
        )


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
        "email": email_key(user.email),
        "email_typed": user.email,
        "password_hash": user.password_hash,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "roles": sorted(user.roles),
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    }


def _user(row: asyncpg.Record) -> User:
    email, typed = row["email"], row["email_typed"]
    # An older process knows only of `email`, and may have changed it.
    shown = typed if typed is not None and email_key(typed) == email else email
    return User(
        user_id=row["user_id"],
        email=shown,
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


def _failures(row: asyncpg.Record, prefix: str = "") -> Failures:
    count, last_at, locked_until = (
        row[prefix + column] for column in ("failures", "last_failed_at", "locked_until")
    )
    return Failures(count or 0, last_at, locked_until)
