"""The use cases of accounts, address books and sessions."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from stoa_chassis.clock import Clock
from stoa_chassis.uow import UnitOfWork
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
    Session,
    SessionPolicy,
    User,
    attempts_key,
    digest,
)
from stoa_user.passwords import Passwords
from stoa_user.repository import Addresses, Attempts, Tx, Users
from stoa_user.tokens import TokenIssuer


class Accounts:
    """Opening, reading and changing accounts."""

    def __init__(self, uow: UnitOfWork[Tx], users: Users, passwords: Passwords, clock: Clock) -> None:
        self._uow = uow
        self._users = users
        self._passwords = passwords
        self._clock = clock

    async def register(self, email: str, password: str, first_name: str, last_name: str) -> User:
        """Open an account. Raises EmailTaken, SignInBusy."""
        return await self._add(email, password, first_name, last_name, frozenset())

    async def get(self, user_id: UUID) -> User:
        """Read an account. Raises UserNotFound."""
        return await self._users.get(user_id)

    async def change_profile(self, user_id: UUID, change: ProfileChange) -> User:
        """Change some fields of an account. Raises UserNotFound, EmailTaken."""
        async with self._uow.begin() as tx:
            user = await tx.users.lock(user_id)
            user.change_profile(change, self._clock.now())
            await tx.users.save(user)
            tx.publish(user)
        return user

    async def ensure_staff(self, email: str, password: str) -> User:
        """Make sure that there is a staff account with this email and password, whoever opened it.

        A changed password ends the sessions of the account: it is changed when the old one has leaked.
        """
        user = await self._users.by_email(email)
        if user is None:
            try:
                return await self._add(email, password, "Stoa", "Staff", frozenset({STAFF}))
            except EmailTaken:
                user = await self._users.by_email(email)  # another instance was faster
        assert user is not None
        async with self._passwords.turn():
            right = await self._passwords.verify(password, user.password_hash)
            new_hash = user.password_hash if right else await self._passwords.hash(password)
        if right and STAFF in user.roles:
            return user
        async with self._uow.begin() as tx:
            user = await tx.users.lock(user.user_id)
            user.password_hash = new_hash
            user.grant(STAFF, self._clock.now())
            await tx.users.save(user)
            if not right:
                await tx.sessions.revoke_all(user.user_id, self._clock.now())
        return user

    async def _add(
        self, email: str, password: str, first_name: str, last_name: str, roles: frozenset[str]
    ) -> User:
        async with self._passwords.turn():
            password_hash = await self._passwords.hash(password)
        user = User.register(
            email=email,
            password_hash=password_hash,
            first_name=first_name,
            last_name=last_name,
            now=self._clock.now(),
            roles=roles,
        )
        async with self._uow.begin() as tx:
            await tx.users.add(user)
            tx.publish(user)
        return user


class AddressBooks:
    """Keeping the addresses of accounts."""

    def __init__(self, uow: UnitOfWork[Tx], addresses: Addresses, clock: Clock) -> None:
        self._uow = uow
        self._addresses = addresses
        self._clock = clock

    async def get(self, user_id: UUID, address_id: UUID) -> Address:
        """Read an address. Raises AddressNotFound."""
        return await self._addresses.get(user_id, address_id)

    async def page(self, user_id: UUID, after: tuple[bool, UUID] | None, limit: int) -> Sequence[Address]:
        """Read addresses, defaults first, that come after (is_default, address_id)."""
        return await self._addresses.page(user_id, after, limit)

    async def add(
        self, user_id: UUID, kind: AddressKind, postal: PostalAddress, *, as_default: bool
    ) -> Address:
        """Add an address. Raises UserNotFound, AddressBookFull."""
        async with self._uow.begin() as tx:
            await tx.users.lock(user_id)
            book = await tx.addresses.book(user_id)
            address = book.add(kind, postal, as_default=as_default, now=self._clock.now())
            await tx.addresses.save(book)
        return address

    async def replace(
        self, user_id: UUID, address_id: UUID, kind: AddressKind, postal: PostalAddress, *, as_default: bool
    ) -> Address:
        """Replace an address. Raises UserNotFound, AddressNotFound."""
        async with self._uow.begin() as tx:
            await tx.users.lock(user_id)
            book = await tx.addresses.book(user_id)
            address = book.replace(address_id, kind, postal, as_default=as_default, now=self._clock.now())
            await tx.addresses.save(book)
        return address

    async def remove(self, user_id: UUID, address_id: UUID) -> None:
        """Remove an address. Raises UserNotFound, AddressNotFound."""
        async with self._uow.begin() as tx:
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
    """Signing in, staying signed in, signing out."""

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
        self._uow = uow
        self._users = users
        self._attempts = attempts
        self._passwords = passwords
        self._issuer = issuer
        self._clock = clock
        self._policy = policy
        self._lockout = lockout

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
        now = self._clock.now()
        session = Session.start(user.user_id, self._policy, now)
        secret = _new_secret()
        async with self._uow.begin() as tx:
            await tx.sessions.add(session, session.issue(secret, self._policy, now))
            if attempts.failures:
                await tx.attempts.clear(key)
            if stronger:
                await tx.users.rehash(user, stronger)
        return self._signed_in(user, secret)

    async def refresh(self, secret: str) -> SignedIn:
        """Exchange a refresh token for new tokens; a second use ends the session.

        Raises InvalidRefreshToken.
        """
        now = self._clock.now()
        async with self._uow.begin() as tx:
            found = await tx.sessions.lock(digest(secret))
            if found is None:
                raise InvalidRefreshToken
            session, token = found
            if good := session.use(token, now):
                user = await tx.users.get(session.user_id)
                fresh = _new_secret()
                await tx.sessions.rotate(session, token, session.issue(fresh, self._policy, now))
            else:
                await tx.sessions.save(session)
        # Raised after the commit, which would otherwise take back that the session was revoked.
        if not good:
            raise InvalidRefreshToken
        return self._signed_in(user, fresh)

    async def sign_out(self, secret: str) -> None:
        """End the session of a refresh token, if there is one."""
        async with self._uow.begin() as tx:
            if found := await tx.sessions.lock(digest(secret)):
                session, _ = found
                session.revoke(self._clock.now())
                await tx.sessions.save(session)

    async def prune(self) -> None:
        """Drop what has no effect any more: expired sessions and forgotten failures."""
        now = self._clock.now()
        async with self._uow.begin() as tx:
            await tx.sessions.prune(now)
            await tx.attempts.prune(now - self._lockout.forgotten_after)

    async def _count_failure(self, key: bytes) -> None:
        async with self._uow.begin() as tx:
            attempts = await tx.attempts.lock(key)
            attempts.fail(self._lockout, self._clock.now())
            await tx.attempts.save(key, attempts)

    def _signed_in(self, user: User, secret: str) -> SignedIn:
        return SignedIn(self._issuer.issue(user, self._clock.now()), secret, self._issuer.lifetime)


def _new_secret() -> str:
    return secrets.token_urlsafe(32)
