"""The use cases of accounts, address books and sessions."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from stoa_chassis.clock import Clock
from stoa_chassis.uow import UnitOfWork, transactional
from stoa_user.model import (
    STAFF,
    Address,
    AddressKind,
    EmailTaken,
    InvalidCredentials,
    InvalidRefreshToken,
    LockoutPolicy,
    PostalAddress,
    ProfileChange,
    PublicKey,
    Session,
    SessionPolicy,
    SignInAttempts,
    User,
    attempts_key,
    digest,
)
from stoa_user.ports import Addresses, Attempts, Passwords, TokenIssuer, Tx, Users


class Accounts:
    """Opening, reading and changing accounts.

    Passwords are hashed before a transaction begins, because that takes long.
    """

    def __init__(self, uow: UnitOfWork[Tx], users: Users, passwords: Passwords, clock: Clock) -> None:
        """`users` is the store outside of a transaction, for reading."""
        self._uow = uow
        self._users = users
        self._passwords = passwords
        self._clock = clock

    async def register(self, email: str, password: str, first_name: str, last_name: str) -> User:
        """Open an account. Raises EmailTaken, SignInBusy."""
        return await self._open(email, await self._hash(password), first_name, last_name, frozenset())

    async def get(self, user_id: UUID) -> User:
        """Read an account. Raises UserNotFound."""
        return await self._users.get(user_id)

    @transactional
    async def change_profile(self, tx: Tx, user_id: UUID, change: ProfileChange) -> User:
        """Change some fields of an account. Raises UserNotFound, EmailTaken."""
        user = await tx.users.lock(user_id)
        user.change_profile(change, self._clock.now())
        await tx.users.save(user)
        return user

    async def ensure_staff(self, email: str, password: str) -> User:
        """Make sure that there is a staff account with this email and password, whoever opened it.

        A changed password ends the sessions of the account: it is changed when the old one has leaked.
        """
        user = await self._users.by_email(email)
        if user is None:
            try:
                return await self._open(
                    email, await self._hash(password), "Stoa", "Staff", frozenset({STAFF})
                )
            except EmailTaken:
                user = await self._users.by_email(email)  # another instance was faster
        assert user is not None
        async with self._passwords.turn():
            right = await self._passwords.verify(password, user.password_hash)
            new_hash = None if right else await self._passwords.hash(password)
        if right and STAFF in user.roles:
            return user
        return await self._make_staff(user.user_id, new_hash)

    async def _hash(self, password: str) -> str:
        async with self._passwords.turn():
            return await self._passwords.hash(password)

    @transactional
    async def _open(
        self, tx: Tx, email: str, password_hash: str, first_name: str, last_name: str, roles: frozenset[str]
    ) -> User:
        user = User.register(
            email=email,
            password_hash=password_hash,
            first_name=first_name,
            last_name=last_name,
            now=self._clock.now(),
            roles=roles,
        )
        await tx.users.add(user)
        return user

    @transactional
    async def _make_staff(self, tx: Tx, user_id: UUID, new_hash: str | None) -> User:
        """Let an account be staff's; with a new hash, if its password was another."""
        now = self._clock.now()
        user = await tx.users.lock(user_id)
        user.grant(STAFF, now)
        if new_hash is not None:
            user.change_password(new_hash, now)
            await tx.sessions.revoke_all(user_id, now)
        await tx.users.save(user)
        return user


class AddressBooks:
    """Keeping the addresses of accounts. An account is locked while its book changes."""

    def __init__(self, uow: UnitOfWork[Tx], addresses: Addresses, clock: Clock) -> None:
        """`addresses` is the store outside of a transaction, for reading."""
        self._uow = uow
        self._addresses = addresses
        self._clock = clock

    async def get(self, user_id: UUID, address_id: UUID) -> Address:
        """Read an address. Raises AddressNotFound."""
        return await self._addresses.get(user_id, address_id)

    async def page(self, user_id: UUID, after: tuple[bool, UUID] | None, limit: int) -> Sequence[Address]:
        """Read addresses, defaults first, that come after (is_default, address_id)."""
        return await self._addresses.page(user_id, after, limit)

    @transactional
    async def add(
        self, tx: Tx, user_id: UUID, kind: AddressKind, postal: PostalAddress, *, as_default: bool
    ) -> Address:
        """Add an address. Raises UserNotFound, AddressBookFull."""
        await tx.users.lock(user_id)
        book = await tx.addresses.book(user_id)
        address = book.add(kind, postal, as_default=as_default, now=self._clock.now())
        await tx.addresses.save(book)
        return address

    @transactional
    async def replace(
        self,
        tx: Tx,
        user_id: UUID,
        address_id: UUID,
        kind: AddressKind,
        postal: PostalAddress,
        *,
        as_default: bool,
    ) -> Address:
        """Replace an address. Raises UserNotFound, AddressNotFound."""
        await tx.users.lock(user_id)
        book = await tx.addresses.book(user_id)
        address = book.replace(address_id, kind, postal, as_default=as_default, now=self._clock.now())
        await tx.addresses.save(book)
        return address

    @transactional
    async def remove(self, tx: Tx, user_id: UUID, address_id: UUID) -> None:
        """Remove an address. Raises UserNotFound, AddressNotFound."""
        await tx.users.lock(user_id)
        book = await tx.addresses.book(user_id)
        book.remove(address_id)
        await tx.addresses.save(book)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What proves a user for a while: a token to show, and one to get the next."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    lifetime: timedelta


class Sessions:
    """Signing in, staying signed in, signing out.

    What a refusal leaves behind (a failure that is counted, a session that is revoked) has to be stored: so a
    refusal is raised after its transaction has committed.
    """

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        users: Users,
        attempts: Attempts,
        passwords: Passwords,
        issuer: TokenIssuer,
        clock: Clock,
        policy: SessionPolicy,
        lockout: LockoutPolicy,
    ) -> None:
        """`users` and `attempts` are the stores outside of a transaction, for reading."""
        self._uow = uow
        self._users = users
        self._attempts = attempts
        self._passwords = passwords
        self._issuer = issuer
        self._clock = clock
        self._policy = policy
        self._lockout = lockout

    @property
    def public_keys(self) -> Sequence[PublicKey]:
        """The keys that prove the access tokens given out here."""
        return self._issuer.public_keys

    async def sign_in(self, email: str, password: str) -> SignedIn:
        """Begin a session.

        An email without an account is answered like a wrong password: with the same work, time and lock-out.

        Raises InvalidCredentials, SignInLocked, SignInBusy.
        """
        key = attempts_key(email)
        async with self._passwords.turn():
            # Looked up in the turn, so that a flood of guesses can't pass the check all at once.
            attempts = await self._attempts.get(key)
            attempts.check(self._clock.now())
            user = await self._users.by_email(email)
            right = await self._passwords.verify(password, user.password_hash if user else None)
            if user is None or not right:
                await self._count_failure(key)
                raise InvalidCredentials
            stronger = None
            if self._passwords.is_outdated(user.password_hash):
                stronger = await self._passwords.hash(password)
        secret = _new_secret()
        await self._begin(user, secret, key, attempts, stronger)
        return self._signed_in(user, secret)

    async def refresh(self, secret: str) -> SignedIn:
        """Exchange a refresh token for new tokens; a second use ends the session.

        Raises InvalidRefreshToken.
        """
        fresh = _new_secret()
        user = await self._exchange(secret, fresh)
        if user is None:
            raise InvalidRefreshToken
        return self._signed_in(user, fresh)

    @transactional
    async def sign_out(self, tx: Tx, secret: str) -> None:
        """End the session of a refresh token, if there is one."""
        if found := await tx.sessions.lock(digest(secret)):
            session, _ = found
            session.revoke(self._clock.now())
            await tx.sessions.save(session)

    @transactional
    async def prune(self, tx: Tx) -> None:
        """Drop what has no effect any more: expired sessions and forgotten failures."""
        now = self._clock.now()
        await tx.sessions.prune(now)
        await tx.attempts.prune(now - self._lockout.forgotten_after)

    @transactional
    async def _begin(
        self, tx: Tx, user: User, secret: str, key: bytes, attempts: SignInAttempts, stronger: str | None
    ) -> None:
        """Begin a session, forget the failures before it, and take over a stronger hash if there is one."""
        now = self._clock.now()
        session = Session.start(user.user_id, self._policy, now)
        await tx.sessions.add(session, session.issue(secret, self._policy, now))
        if attempts.failures:
            await tx.attempts.clear(key)
        if stronger:
            await tx.users.rehash(user, stronger)

    @transactional
    async def _count_failure(self, tx: Tx, key: bytes) -> None:
        attempts = await tx.attempts.lock(key)
        attempts.fail(self._lockout, self._clock.now())
        await tx.attempts.save(key, attempts)

    @transactional
    async def _exchange(self, tx: Tx, secret: str, fresh: str) -> User | None:
        """Let a fresh refresh token take the place of one, and return whose it is; None if it is not good."""
        now = self._clock.now()
        found = await tx.sessions.lock(digest(secret))
        if found is None:
            return None
        session, token = found
        if not session.use(token, now):
            await tx.sessions.save(session)
            return None
        await tx.sessions.rotate(session, token, session.issue(fresh, self._policy, now))
        return await tx.users.get(session.user_id)

    def _signed_in(self, user: User, secret: str) -> SignedIn:
        return SignedIn(self._issuer.issue(user, self._clock.now()), secret, self._issuer.lifetime)


def _new_secret() -> str:
    return secrets.token_urlsafe(32)
