"""Accounts, guests, address books, sessions, mailed tokens and tries to sign in, in PostgreSQL."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from stoa_chassis.emails import email_key
from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Queries
from stoa_chassis.postgres_replica import Reads
from stoa_chassis.postgres_table import Table
from stoa_contracts.roles import ADMIN
from stoa_user import ports
from stoa_user.model import (
    Address,
    AddressBook,
    AddressKind,
    AddressNotFound,
    AttemptsKey,
    EmailTaken,
    Failures,
    GuestMerge,
    Limited,
    MailedToken,
    PostalAddress,
    Purpose,
    RefreshToken,
    Requests,
    RoleChange,
    Session,
    SignInAttempts,
    User,
    UserNotFound,
)

_USERS = Table("users", key="user_id")
_ADDRESSES = Table("user_addresses", key="address_id")
_MERGES = Table("guest_merges", key="guest_id")
_MAILED = Table("mailed_tokens", key="digest")
_ROLE_CHANGES = Table("role_changes", key="change_id")
_ORIGINS = Table("sign_in_origins", key="email_digest, origin_digest")
_REQUESTS = Table("origin_requests", key="subject, origin_digest")


_SESSION = (
    "s.session_id, s.user_id, s.expires_at, s.revoked_at, s.is_guest, s.created_at, s.last_used_at, "
    "s.device, s.network"
)
_ADMINS_LOCK = 0x61646D696E
"""The advisory lock of who changes who is admin; any number, the same for all."""


class Users:
    """The accounts. One that is erased is not found any more."""

    def __init__(self, queries: Queries, outbox: Outbox | None = None) -> None:
        """Outside of a transaction there is no outbox, and accounts are only read."""
        self._queries = queries
        self._outbox = outbox

    async def get(self, user_id: UUID) -> User:
        """Read an account. Raises UserNotFound."""
        return _found(await _read_user(self._queries, "user_id = $1", user_id))

    async def lock(self, user_id: UUID) -> User:
        """Read an account that nobody else may change until the transaction ends. Raises UserNotFound."""
        return _found(await _read_user(self._queries, "user_id = $1", user_id, "FOR UPDATE"))

    async def lock_admins(self) -> Sequence[User]:
        """Read the accounts of admins, and let nobody make them more or fewer until the transaction ends."""
        # One transaction at a time, rather than the locks of rows: who becomes admin has none yet.
        await self._queries.execute("SELECT pg_advisory_xact_lock($1)", _ADMINS_LOCK)
        rows = await self._queries.fetch(
            "SELECT * FROM users WHERE cardinality(roles) > 0 AND $1 = ANY (roles)", ADMIN
        )
        return [_user(row) for row in rows]

    async def by_email(self, email: str) -> User | None:
        """Find the account with an email, however it is written (`email_key`)."""
        return await _read_user(self._queries, "lower(email) = $1", email_key(email))

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


class Profiles:
    """The accounts as others than their owners see them, who don't mind if they lag behind by seconds."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def get(self, user_id: UUID) -> User:
        """Read an account. Raises UserNotFound."""
        return _found(await _read_user(self._reads, "user_id = $1", user_id))

    async def staff(self, after: UUID | None, limit: int) -> Sequence[User]:
        """Read accounts of staff, the newest first, that come after an id."""
        rows = await self._reads.fetch(
            """
            SELECT * FROM users WHERE cardinality(roles) > 0 AND ($1::uuid IS NULL OR user_id < $1)
            ORDER BY user_id DESC LIMIT $2
            """,
            after,
            limit,
        )
        return [_user(row) for row in rows]


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

    async def clear(self, user_id: UUID) -> None:
        """Drop a whole book."""
        await self._queries.execute("DELETE FROM user_addresses WHERE user_id = $1", user_id)


class Sessions:
    """The sessions and their refresh tokens, which are found by their digest."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def add(self, session: Session, token: RefreshToken) -> None:
        """Store a new session and its first token."""
        await self._queries.execute(
            """
            WITH session AS (
                INSERT INTO sessions (
                    session_id, user_id, expires_at, is_guest, created_at, last_used_at, device, network
                ) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                RETURNING session_id
            )
            INSERT INTO refresh_tokens (digest, session_id, expires_at)
            SELECT $9, session_id, $10 FROM session
            """,
            session.session_id,
            session.user_id,
            session.expires_at,
            session.is_guest,
            session.created_at,
            session.last_used_at,
            session.device,
            session.network,
            token.digest,
            token.expires_at,
        )

    async def lock(self, digest: bytes) -> tuple[Session, RefreshToken] | None:
        """Find a token and its session, and let nobody else use either until the transaction ends."""
        row = await self._queries.fetchrow(
            f"""
            SELECT {_SESSION}, t.expires_at AS token_expires_at, t.used_at, t.successor_salt
            FROM refresh_tokens t JOIN sessions s USING (session_id)
            WHERE t.digest = $1 FOR UPDATE
            """,
            digest,
        )
        if row is None:
            return None
        token = RefreshToken(digest, row["token_expires_at"], row["used_at"], row["successor_salt"])
        return _session(row), token

    async def lock_session(self, session_id: UUID) -> Session | None:
        """Find a session, and let nobody else use it until the transaction ends."""
        row = await self._queries.fetchrow(
            f"SELECT {_SESSION} FROM sessions s WHERE session_id = $1 FOR UPDATE", session_id
        )
        return _session(row) if row else None

    async def page(self, user_id: UUID, now: datetime, after: UUID | None, limit: int) -> Sequence[Session]:
        """Read the sessions in which one is signed in now, the newest first, that come after an id."""
        rows = await self._queries.fetch(
            f"""
            SELECT {_SESSION} FROM sessions s
            WHERE user_id = $1 AND revoked_at IS NULL AND ($3::uuid IS NULL OR session_id < $3)
                AND EXISTS (
                    SELECT FROM refresh_tokens t
                    WHERE t.session_id = s.session_id AND used_at IS NULL AND t.expires_at > $2
                )
            ORDER BY session_id DESC LIMIT $4
            """,
            user_id,
            now,
            after,
            limit,
        )
        return [_session(row) for row in rows]

    async def rotate(
        self, session: Session, used: RefreshToken, issued: RefreshToken, *, graceless_before: datetime
    ) -> None:
        """Store that a token was used, and with it its session, and which one takes its place.

        Tokens of the session that were used before `graceless_before` lose the salts of their successors.
        """
        await self._queries.execute(
            """
            WITH used AS (UPDATE refresh_tokens SET used_at = $2, successor_salt = $3 WHERE digest = $1),
            session AS (UPDATE sessions SET last_used_at = $2 WHERE session_id = $5),
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
            "UPDATE sessions SET revoked_at = $2, device = $3, network = $4 WHERE session_id = $1",
            session.session_id,
            session.revoked_at,
            session.device,
            session.network,
        )

    async def revoke_all(self, user_id: UUID, now: datetime, *, but: UUID | None = None) -> None:
        """End all sessions of an account, except one if its id is given."""
        await self._queries.execute(
            """
            UPDATE sessions SET revoked_at = $2, device = '', network = ''
            WHERE user_id = $1 AND revoked_at IS NULL AND session_id IS DISTINCT FROM $3
            """,
            user_id,
            now,
            but,
        )

    async def drop_all(self, user_id: UUID) -> None:
        """Drop all sessions of an account, and their tokens."""
        await self._queries.execute("DELETE FROM sessions WHERE user_id = $1", user_id)

    async def prune(self, before: datetime, limit: int) -> int:
        """Drop up to so many sessions that expired before a time, and their tokens; tell how many."""
        dropped = await self._queries.execute(
            """
            DELETE FROM sessions WHERE session_id IN (
                SELECT session_id FROM sessions WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
            )
            """,
            before,
            limit,
        )
        return int(dropped.removeprefix("DELETE "))


class Guests:
    """Which guests have become the owner of which account."""

    def __init__(self, queries: Queries, outbox: Outbox) -> None:
        self._queries = queries
        self._outbox = outbox

    async def merged_into(self, guest_id: UUID) -> UUID | None:
        """Return whose a guest's things are now; None if they are the guest's."""
        found: UUID | None = await self._queries.fetchval(
            "SELECT user_id FROM guest_merges WHERE guest_id = $1", guest_id
        )
        return found

    async def merged_by(self, user_id: UUID) -> Sequence[UUID]:
        """Return which guests the owner of an account was."""
        rows = await self._queries.fetch(
            "SELECT guest_id FROM guest_merges WHERE user_id = $1 ORDER BY guest_id", user_id
        )
        return [row["guest_id"] for row in rows]

    async def add(self, merge: GuestMerge) -> None:
        """Store that a guest has become the owner of an account, and publish it."""
        row = {"guest_id": merge.guest_id, "user_id": merge.user_id, "merged_at": merge.merged_at}
        await _MERGES.insert(self._queries, row)
        self._outbox.collect(merge)

    async def drop_all(self, user_id: UUID) -> None:
        """Forget which guests the owner of an account was."""
        await self._queries.execute("DELETE FROM guest_merges WHERE user_id = $1", user_id)

    async def prune(self, before: datetime) -> None:
        """Forget merges before a time."""
        await self._queries.execute("DELETE FROM guest_merges WHERE merged_at < $1", before)


class MailedTokens:
    """The tokens that were mailed, which are found by their digest."""

    def __init__(self, queries: Queries, outbox: Outbox | None = None) -> None:
        """Outside of a transaction there is no outbox, and tokens are only read."""
        self._queries = queries
        self._outbox = outbox

    async def add(self, token: MailedToken) -> None:
        """Store a token, and publish it for the mail."""
        assert self._outbox is not None, "a token is added in a transaction"
        await _MAILED.insert(
            self._queries,
            {
                "digest": token.digest,
                "user_id": token.user_id,
                "purpose": token.purpose,
                "email": token.email,
                "session_id": token.session_id,
                "expires_at": token.expires_at,
            },
        )
        self._outbox.collect(token)

    async def get(self, digest: bytes, purpose: Purpose, now: datetime) -> MailedToken | None:
        """Find a token that is still good for this."""
        row = await self._queries.fetchrow(
            "SELECT * FROM mailed_tokens WHERE digest = $1 AND purpose = $2 AND expires_at > $3",
            digest,
            purpose,
            now,
        )
        if row is None:
            return None
        return MailedToken(
            digest, row["user_id"], purpose, row["email"], row["session_id"], row["expires_at"]
        )

    async def live(self, user_id: UUID, purpose: Purpose, now: datetime) -> Sequence[datetime]:
        """Return until when the tokens are good that an account has for this, the first to expire first."""
        rows = await self._queries.fetch(
            """
            SELECT expires_at FROM mailed_tokens
            WHERE user_id = $1 AND purpose = $2 AND expires_at > $3 ORDER BY expires_at
            """,
            user_id,
            purpose,
            now,
        )
        return [row["expires_at"] for row in rows]

    async def drop_all(self, user_id: UUID, purpose: Purpose | None = None) -> None:
        """Drop the tokens of an account, those for one purpose or all."""
        await self._queries.execute(
            "DELETE FROM mailed_tokens WHERE user_id = $1 AND ($2::text IS NULL OR purpose = $2)",
            user_id,
            purpose,
        )

    async def prune(self, before: datetime) -> None:
        """Drop tokens that expired before a time."""
        await self._queries.execute("DELETE FROM mailed_tokens WHERE expires_at < $1", before)


class RoleChanges:
    """Who has changed what accounts may do as staff."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def add(self, change: RoleChange) -> None:
        """Store a change."""
        await _ROLE_CHANGES.insert(
            self._queries,
            {
                "user_id": change.user_id,
                "changed_by": change.changed_by,
                "before": sorted(change.before),
                "after": sorted(change.after),
                "reason": change.reason,
                "at": change.at,
            },
        )

    async def newest(self, user_id: UUID, limit: int) -> Sequence[RoleChange]:
        """Read the changes of an account, the newest first."""
        rows = await self._queries.fetch(
            "SELECT * FROM role_changes WHERE user_id = $1 ORDER BY change_id DESC LIMIT $2", user_id, limit
        )
        return [
            RoleChange(
                user_id=row["user_id"],
                changed_by=row["changed_by"],
                before=frozenset(row["before"]),
                after=frozenset(row["after"]),
                reason=row["reason"],
                at=row["at"],
            )
            for row in rows
        ]


class OriginRequests:
    """How often something was asked for from one origin."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def lock(self, subject: Limited, origin: bytes, now: datetime) -> Requests:
        """Read how often, and let nobody else count until the transaction ends."""
        row = await self._queries.fetchrow(
            """
            INSERT INTO origin_requests (subject, origin_digest, since, count) VALUES ($1, $2, $3, 0)
            ON CONFLICT (subject, origin_digest) DO UPDATE SET count = origin_requests.count
            RETURNING *
            """,
            subject,
            origin,
            now,
        )
        assert row is not None
        return Requests(row["since"], row["count"])

    async def save(self, subject: Limited, origin: bytes, requests: Requests) -> None:
        """Store how often."""
        row = {
            "subject": subject,
            "origin_digest": origin,
            "since": requests.since,
            "count": requests.count,
        }
        await _REQUESTS.update(self._queries, row)

    async def prune(self, before: datetime) -> None:
        """Drop what began before a time."""
        await self._queries.execute("DELETE FROM origin_requests WHERE since < $1", before)


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

    async def lift(self, account: bytes) -> None:
        """Forget all failures of an account, wherever they came from."""
        await self._queries.execute("DELETE FROM sign_in_attempts WHERE email_digest = $1", account)
        await self._queries.execute(
            """
            UPDATE sign_in_origins SET failures = 0, last_failed_at = NULL, locked_until = NULL
            WHERE email_digest = $1
            """,
            account,
        )

    async def drop_all(self, account: bytes) -> None:
        """Forget all that is known of an account."""
        await self._queries.execute("DELETE FROM sign_in_attempts WHERE email_digest = $1", account)
        await self._queries.execute("DELETE FROM sign_in_origins WHERE email_digest = $1", account)


def open_tx(connection: asyncpg.Connection, outbox: Outbox) -> ports.Tx:
    """Put the repositories on the connection of a transaction."""
    return ports.Tx(
        Users(connection, outbox),
        Addresses(connection),
        Sessions(connection),
        Attempts(connection),
        Guests(connection, outbox),
        MailedTokens(connection, outbox),
        RoleChanges(connection),
        OriginRequests(connection),
    )


@contextmanager
def _email_is_unique() -> Iterator[None]:
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "users_email_key":
            raise
        raise EmailTaken from None


async def _read_user(reads: Reads, condition: str, key: UUID | str, lock: str = "") -> User | None:
    row = await reads.fetchrow(f"SELECT * FROM users WHERE {condition} AND erased_at IS NULL {lock}", key)
    return _user(row) if row else None


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
        "locale": user.locale,
        "verified_email": user.verified_email,
        "pending_email": user.pending_email,
        "roles": sorted(user.roles),
        "created_at": user.created_at,
        "updated_at": user.updated_at,
        "erased_at": user.erased_at,
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
        locale=row["locale"],
        verified_email=row["verified_email"],
        pending_email=row["pending_email"],
        roles=frozenset(row["roles"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _session(row: asyncpg.Record) -> Session:
    return Session(
        session_id=row["session_id"],
        user_id=row["user_id"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        is_guest=row["is_guest"],
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        device=row["device"],
        network=row["network"],
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
