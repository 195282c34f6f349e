"""The stores of accounts in memory, for tests of use cases; see `stoa_chassis.memory`.

They refuse what the constraints of the migrations refuse. One suite, tests/test_repository.py, runs on these
and on PostgreSQL.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from stoa_chassis.emails import email_key
from stoa_chassis.memory import MemoryStore
from stoa_chassis.outbox import Outbox
from stoa_user import ports
from stoa_user.model import (
    Address,
    AddressBook,
    AddressNotFound,
    AttemptsKey,
    EmailTaken,
    Failures,
    GuestMerge,
    Limited,
    MailedToken,
    Purpose,
    RefreshToken,
    Requests,
    RoleChange,
    Session,
    SignInAttempts,
    User,
    UserNotFound,
)

_COUNTRY = re.compile("[A-Z]{2}")


@dataclass(frozen=True)
class Rows:
    """What the user service keeps, by its keys.

    Entities in here are copies that nobody changes, and so are the mappings: each change makes new ones.
    """

    users: Mapping[UUID, User] = field(default_factory=dict)
    addresses: Mapping[UUID, tuple[UUID, Address]] = field(default_factory=dict)
    sessions: Mapping[UUID, Session] = field(default_factory=dict)
    tokens: Mapping[bytes, tuple[UUID, RefreshToken]] = field(default_factory=dict)
    strangers: Mapping[bytes, Failures] = field(default_factory=dict)
    origins: Mapping[tuple[bytes, bytes], tuple[Failures, datetime | None]] = field(default_factory=dict)
    merges: Mapping[UUID, GuestMerge] = field(default_factory=dict)
    mailed: Mapping[bytes, MailedToken] = field(default_factory=dict)
    role_changes: tuple[RoleChange, ...] = ()
    requests: Mapping[tuple[Limited, bytes], Requests] = field(default_factory=dict)


# Where a repository finds its rows: the view of a transaction, or the store for a statement outside of one.
Open = Callable[[], MemoryStore[Rows]]


class Users:
    """The accounts. One that is erased is not found any more."""

    def __init__(self, store: Open, outbox: Outbox | None = None) -> None:
        self._store = store
        self._outbox = outbox

    async def get(self, user_id: UUID) -> User:
        """Read an account. Raises UserNotFound."""
        return await Profiles(self._store).get(user_id)

    async def lock_admins(self) -> Sequence[User]:
        """Read the accounts of admins, and let nobody make them more or fewer until the transaction ends."""
        return [_copy(user) for user in self._store().rows.users.values() if user.is_admin]

    async def lock(self, user_id: UUID) -> User:
        """Read an account that nobody else may change until the transaction ends. Raises UserNotFound."""
        return await self.get(user_id)

    async def by_email(self, email: str) -> User | None:
        """Find the account with an email, however it is written (`email_key`)."""
        for user in self._store().rows.users.values():
            if email_key(user.email) == email_key(email) and user.erased_at is None:
                return _copy(user)
        return None

    async def add(self, user: User) -> None:
        """Store a new account, and publish its events. Raises EmailTaken."""
        assert self._outbox is not None, "an account is added in a transaction"
        store = self._store()
        store.check(user.user_id not in store.rows.users, "users_pkey")
        _put_user(store, user)
        self._outbox.collect(user)

    async def save(self, user: User) -> None:
        """Store a changed account, and publish its events. Raises EmailTaken."""
        assert self._outbox is not None, "an account is saved in a transaction"
        _put_user(self._store(), user)
        self._outbox.collect(user)

    async def rehash(self, user: User, password_hash: str) -> None:
        """Replace the hash of a password by a stronger one of the same password, unless it has changed."""
        store = self._store()
        stored = store.rows.users[user.user_id]
        if stored.password_hash == user.password_hash:
            _put_user(store, replace(stored, password_hash=password_hash))


class Profiles:
    """The accounts as others than their owners see them. Here they don't lag."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def get(self, user_id: UUID) -> User:
        """Read an account. Raises UserNotFound."""
        user = self._store().rows.users.get(user_id)
        if user is None or user.erased_at is not None:
            raise UserNotFound("there is no such account")
        return _copy(user)

    async def staff(self, after: UUID | None, limit: int) -> Sequence[User]:
        """Read accounts of staff, the newest first, that come after an id."""
        users = self._store().rows.users
        ids = sorted((key for key, user in users.items() if user.roles), reverse=True)
        return [_copy(users[key]) for key in ids if after is None or key < after][:limit]


class Addresses:
    """The address books. Whoever changes one holds the lock of its account."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def get(self, user_id: UUID, address_id: UUID) -> Address:
        """Read an address. Raises AddressNotFound if there is none, or it is in another account's book."""
        owner, address = self._store().rows.addresses.get(address_id, (None, None))
        if address is None or owner != user_id:
            raise AddressNotFound("the account has no such address")
        return address

    async def page(self, user_id: UUID, after: tuple[bool, UUID] | None, limit: int) -> Sequence[Address]:
        """Read addresses, defaults first and then the newest, that come after (is_default, address_id)."""
        places = {(each.is_default, each.address_id): each for each in self._of(user_id)}
        ordered = sorted(places, reverse=True)
        return [places[place] for place in ordered if after is None or place < after][:limit]

    async def book(self, user_id: UUID) -> AddressBook:
        """Read a whole book, to decide on it."""
        return AddressBook(user_id, {each.address_id: each for each in self._of(user_id)})

    async def save(self, book: AddressBook) -> None:
        """Store what changed in a book."""
        store = self._store()
        store.check(book.user_id in store.rows.users or not book.changed, "user_addresses_user_id_fkey")
        kept = {key: row for key, row in store.rows.addresses.items() if key not in book.removed}
        for address_id in book.changed:
            address = book.addresses[address_id]
            store.check(bool(_COUNTRY.fullmatch(address.postal.country)), "user_addresses_country_check")
            kept[address_id] = (book.user_id, address)
        defaults = Counter((owner, each.kind) for owner, each in kept.values() if each.is_default)
        store.check(max(defaults.values(), default=0) <= 1, "user_addresses_one_default")
        store.rows = replace(store.rows, addresses=kept)
        book.changed.clear()
        book.removed.clear()

    async def clear(self, user_id: UUID) -> None:
        """Drop a whole book."""
        store = self._store()
        kept = {key: row for key, row in store.rows.addresses.items() if row[0] != user_id}
        store.rows = replace(store.rows, addresses=kept)

    def _of(self, user_id: UUID) -> list[Address]:
        return [each for owner, each in self._store().rows.addresses.values() if owner == user_id]


class Sessions:
    """The sessions and their refresh tokens, which are found by their digest."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def add(self, session: Session, token: RefreshToken) -> None:
        """Store a new session and its first token."""
        store = self._store()
        store.check(session.session_id not in store.rows.sessions, "sessions_pkey")
        _put_session(store, replace(session, revoked_at=None))
        _add_token(store, session, replace(token, used_at=None, successor_salt=None))

    async def lock(self, digest: bytes) -> tuple[Session, RefreshToken] | None:
        """Find a token and its session, and let nobody else use either until the transaction ends."""
        rows = self._store().rows
        if digest not in rows.tokens:
            return None
        session_id, token = rows.tokens[digest]
        return replace(rows.sessions[session_id]), replace(token)

    async def lock_session(self, session_id: UUID) -> Session | None:
        """Find a session, and let nobody else use it until the transaction ends."""
        session = self._store().rows.sessions.get(session_id)
        return session and replace(session)

    async def page(self, user_id: UUID, now: datetime, after: UUID | None, limit: int) -> Sequence[Session]:
        """Read the sessions in which one is signed in now, the newest first, that come after an id."""
        rows = self._store().rows
        live = {
            session_id
            for session_id, token in rows.tokens.values()
            if token.used_at is None and token.expires_at > now
        }
        found = [each for key, each in rows.sessions.items() if key in live and each.user_id == user_id]
        found = [each for each in found if after is None or each.session_id < after]
        found.sort(key=lambda each: each.session_id, reverse=True)
        return [replace(each) for each in found if each.revoked_at is None][:limit]

    async def rotate(
        self, session: Session, used: RefreshToken, issued: RefreshToken, *, graceless_before: datetime
    ) -> None:
        """Store that a token was used, and with it its session, and which one takes its place.

        Tokens of the session that were used before `graceless_before` lose the salts of their successors.
        """
        store = self._store()
        tokens = {}
        for key, (owner, token) in store.rows.tokens.items():
            if key == used.digest:
                token = replace(token, used_at=used.used_at, successor_salt=used.successor_salt)
            elif owner == session.session_id and token.used_at and token.used_at < graceless_before:
                token = replace(token, successor_salt=None)
            tokens[key] = (owner, token)
        store.rows = replace(store.rows, tokens=tokens)
        _add_token(store, session, replace(issued, used_at=None, successor_salt=None))
        stored = store.rows.sessions[session.session_id]
        _put_session(store, replace(stored, last_used_at=used.used_at))

    async def save(self, session: Session) -> None:
        """Store that a session was revoked."""
        store = self._store()
        stored = store.rows.sessions[session.session_id]
        _put_session(
            store,
            replace(stored, revoked_at=session.revoked_at, device=session.device, network=session.network),
        )

    async def revoke_all(self, user_id: UUID, now: datetime, *, but: UUID | None = None) -> None:
        """End all sessions of an account, except one if its id is given."""
        store = self._store()
        for session in store.rows.sessions.values():
            if session.user_id == user_id and session.revoked_at is None and session.session_id != but:
                _put_session(store, replace(session, revoked_at=now, device="", network=""))

    async def drop_all(self, user_id: UUID) -> None:
        """Drop all sessions of an account, and their tokens."""
        self._drop({key for key, each in self._store().rows.sessions.items() if each.user_id == user_id})

    async def prune(self, before: datetime, limit: int) -> int:
        """Drop up to so many sessions that expired before a time, and their tokens; tell how many."""
        expired = [key for key, each in self._store().rows.sessions.items() if each.expires_at < before]
        self._drop(set(expired[:limit]))
        return len(expired[:limit])

    def _drop(self, ids: set[UUID]) -> None:
        store = self._store()
        sessions = {key: each for key, each in store.rows.sessions.items() if key not in ids}
        tokens = {key: row for key, row in store.rows.tokens.items() if row[0] in sessions}
        store.rows = replace(store.rows, sessions=sessions, tokens=tokens)


class Guests:
    """Which guests have become the owner of which account."""

    def __init__(self, store: Open, outbox: Outbox) -> None:
        self._store = store
        self._outbox = outbox

    async def merged_into(self, guest_id: UUID) -> UUID | None:
        """Return whose a guest's things are now; None if they are the guest's."""
        merge = self._store().rows.merges.get(guest_id)
        return merge.user_id if merge is not None else None

    async def merged_by(self, user_id: UUID) -> Sequence[UUID]:
        """Return which guests the owner of an account was."""
        merges = self._store().rows.merges.values()
        return sorted(merge.guest_id for merge in merges if merge.user_id == user_id)

    async def add(self, merge: GuestMerge) -> None:
        """Store that a guest has become the owner of an account, and publish it."""
        store = self._store()
        store.check(merge.guest_id not in store.rows.merges, "guest_merges_pkey")
        store.check(merge.user_id in store.rows.users, "guest_merges_user_id_fkey")
        store.rows = replace(
            store.rows, merges={**store.rows.merges, merge.guest_id: replace(merge, events=[])}
        )
        self._outbox.collect(merge)

    async def drop_all(self, user_id: UUID) -> None:
        """Forget which guests the owner of an account was."""
        self._keep(lambda merge: merge.user_id != user_id)

    async def prune(self, before: datetime) -> None:
        """Forget merges before a time."""
        self._keep(lambda merge: merge.merged_at >= before)

    def _keep(self, wanted: Callable[[GuestMerge], bool]) -> None:
        store = self._store()
        kept = {key: merge for key, merge in store.rows.merges.items() if wanted(merge)}
        store.rows = replace(store.rows, merges=kept)


class MailedTokens:
    """The tokens that were mailed, which are found by their digest."""

    def __init__(self, store: Open, outbox: Outbox | None = None) -> None:
        self._store = store
        self._outbox = outbox

    async def add(self, token: MailedToken) -> None:
        """Store a token, and publish it for the mail."""
        assert self._outbox is not None, "a token is added in a transaction"
        store = self._store()
        store.check(len(token.digest) == 32, "mailed_tokens_digest_check")
        store.check(token.digest not in store.rows.mailed, "mailed_tokens_pkey")
        store.check(token.user_id in store.rows.users, "mailed_tokens_user_id_fkey")
        store.rows = replace(
            store.rows, mailed={**store.rows.mailed, token.digest: replace(token, events=[])}
        )
        self._outbox.collect(token)

    async def get(self, digest: bytes, purpose: Purpose, now: datetime) -> MailedToken | None:
        """Find a token that is still good for this."""
        token = self._store().rows.mailed.get(digest)
        if token is None or token.purpose != purpose or token.expires_at <= now:
            return None
        return replace(token, events=[])

    async def live(self, user_id: UUID, purpose: Purpose, now: datetime) -> Sequence[datetime]:
        """Return until when the tokens are good that an account has for this, the first to expire first."""
        tokens = self._store().rows.mailed.values()
        return sorted(
            each.expires_at
            for each in tokens
            if each.user_id == user_id and each.purpose == purpose and each.expires_at > now
        )

    async def drop_all(self, user_id: UUID, purpose: Purpose | None = None) -> None:
        """Drop the tokens of an account, those for one purpose or all."""
        self._keep(lambda token: token.user_id != user_id or purpose not in (None, token.purpose))

    async def prune(self, before: datetime) -> None:
        """Drop tokens that expired before a time."""
        self._keep(lambda token: token.expires_at >= before)

    def _keep(self, wanted: Callable[[MailedToken], bool]) -> None:
        store = self._store()
        kept = {key: token for key, token in store.rows.mailed.items() if wanted(token)}
        store.rows = replace(store.rows, mailed=kept)


class RoleChanges:
    """Who has changed what accounts may do as staff."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def add(self, change: RoleChange) -> None:
        """Store a change."""
        store = self._store()
        store.check(change.user_id in store.rows.users, "role_changes_user_id_fkey")
        store.rows = replace(store.rows, role_changes=(*store.rows.role_changes, change))

    async def newest(self, user_id: UUID, limit: int) -> Sequence[RoleChange]:
        """Read the changes of an account, the newest first."""
        changes = self._store().rows.role_changes[::-1]
        return [change for change in changes if change.user_id == user_id][:limit]


class OriginRequests:
    """How often something was asked for from one origin."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def lock(self, subject: Limited, origin: bytes, now: datetime) -> Requests:
        """Read how often, and let nobody else count until the transaction ends."""
        store = self._store()
        store.check(len(origin) == 32, "origin_requests_origin_digest_check")
        requests = store.rows.requests.get((subject, origin), Requests(now))
        await self.save(subject, origin, requests)
        return replace(requests)

    async def save(self, subject: Limited, origin: bytes, requests: Requests) -> None:
        """Store how often."""
        store = self._store()
        counted = {**store.rows.requests, (subject, origin): replace(requests)}
        store.rows = replace(store.rows, requests=counted)

    async def prune(self, before: datetime) -> None:
        """Drop what began before a time."""
        store = self._store()
        kept = {key: each for key, each in store.rows.requests.items() if each.since >= before}
        store.rows = replace(store.rows, requests=kept)


class Attempts:
    """The tries to sign in: the failures, and where owners did sign in from."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def get(self, key: AttemptsKey) -> SignInAttempts:
        """Read what is known of an account, seen from one origin."""
        rows = self._store().rows
        here, signed_in_at = rows.origins.get((key.account, key.origin), (Failures(), None))
        strangers = rows.strangers.get(key.account, Failures())
        return SignInAttempts(replace(here), replace(strangers), signed_in_at)

    async def lock(self, key: AttemptsKey) -> SignInAttempts:
        """Read the same, and let nobody else count for this account until the transaction ends."""
        store = self._store()
        store.check(len(key.account) == 32, "sign_in_attempts_email_digest_check")
        store.check(len(key.origin) == 32, "sign_in_origins_origin_digest_check")
        attempts = await self.get(key)
        await self.save(key, attempts)
        return attempts

    async def save(self, key: AttemptsKey, attempts: SignInAttempts) -> None:
        """Store the failures, which are locked."""
        store = self._store()
        place = (key.account, key.origin)
        _, signed_in_at = store.rows.origins.get(place, (None, None))
        strangers = {**store.rows.strangers, key.account: replace(attempts.strangers)}
        origins = {**store.rows.origins, place: (replace(attempts.here), signed_in_at)}
        store.rows = replace(store.rows, strangers=strangers, origins=origins)

    async def succeeded(self, key: AttemptsKey, attempts: SignInAttempts) -> None:
        """Store that the owner signed in from an origin, and what failures from there are left."""
        store = self._store()
        seen = (replace(attempts.here), attempts.signed_in_at)
        store.rows = replace(store.rows, origins={**store.rows.origins, (key.account, key.origin): seen})

    async def prune(self, failed_before: datetime, signed_in_before: datetime) -> None:
        """Drop failures that happened before a time, and origins where nobody signed in since another."""

        def is_old(at: datetime | None, before: datetime) -> bool:
            return at is None or at < before

        store = self._store()
        strangers = {
            key: each for key, each in store.rows.strangers.items() if not is_old(each.last_at, failed_before)
        }
        origins = {
            key: (here, signed_in_at)
            for key, (here, signed_in_at) in store.rows.origins.items()
            if not (is_old(here.last_at, failed_before) and is_old(signed_in_at, signed_in_before))
        }
        store.rows = replace(store.rows, strangers=strangers, origins=origins)

    async def lift(self, account: bytes) -> None:
        """Forget all failures of an account, wherever they came from."""
        store = self._store()
        strangers = {key: each for key, each in store.rows.strangers.items() if key != account}
        origins = {
            key: (Failures(), signed_in_at) if key[0] == account else (here, signed_in_at)
            for key, (here, signed_in_at) in store.rows.origins.items()
        }
        store.rows = replace(store.rows, strangers=strangers, origins=origins)

    async def drop_all(self, account: bytes) -> None:
        """Forget all that is known of an account."""
        store = self._store()
        strangers = {key: each for key, each in store.rows.strangers.items() if key != account}
        origins = {key: each for key, each in store.rows.origins.items() if key[0] != account}
        store.rows = replace(store.rows, strangers=strangers, origins=origins)


def open_tx(view: MemoryStore[Rows], outbox: Outbox) -> ports.Tx:
    """Put the repositories on the view of a transaction."""
    return ports.Tx(
        Users(lambda: view, outbox),
        Addresses(lambda: view),
        Sessions(lambda: view),
        Attempts(lambda: view),
        Guests(lambda: view, outbox),
        MailedTokens(lambda: view, outbox),
        RoleChanges(lambda: view),
        OriginRequests(lambda: view),
    )


def _copy(user: User) -> User:
    return replace(user, events=[])


def _put_user(store: MemoryStore[Rows], user: User) -> None:
    others = (each for each in store.rows.users.values() if each.user_id != user.user_id)
    if any(email_key(each.email) == email_key(user.email) for each in others):
        raise EmailTaken
    store.rows = replace(store.rows, users={**store.rows.users, user.user_id: _copy(user)})


def _put_session(store: MemoryStore[Rows], session: Session) -> None:
    store.rows = replace(store.rows, sessions={**store.rows.sessions, session.session_id: session})


def _add_token(store: MemoryStore[Rows], session: Session, token: RefreshToken) -> None:
    store.check(len(token.digest) == 32, "refresh_tokens_digest_check")
    store.check(token.digest not in store.rows.tokens, "refresh_tokens_pkey")
    store.check(session.session_id in store.rows.sessions, "refresh_tokens_session_id_fkey")
    tokens = {**store.rows.tokens, token.digest: (session.session_id, token)}
    store.rows = replace(store.rows, tokens=tokens)
