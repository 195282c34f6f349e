"""The use cases of accounts, address books and sessions."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from stoa_chassis.clock import Clock
from stoa_chassis.emails import valid_email
from stoa_chassis.uow import UnitOfWork, transactional
from stoa_contracts.roles import ADMIN, STAFF
from stoa_user.model import (
    Address,
    AddressKind,
    AttemptsKey,
    CurrentPasswordNeeded,
    CurrentPasswordWrong,
    EmailTaken,
    InvalidCredentials,
    InvalidRefreshToken,
    PostalAddress,
    ProfileChange,
    PublicKey,
    Session,
    SessionPolicy,
    SignInAttempts,
    SignInPolicy,
    User,
    digest,
    successor,
)
from stoa_user.ports import Addresses, Attempts, Passwords, PasswordVerdict, TokenIssuer, Tx, Users


@dataclass(frozen=True, slots=True)
class Proof:
    """That somebody knew the password of an account; `Authenticator.accept` stores what follows from it."""

    user: User
    key: AttemptsKey
    attempts: SignInAttempts
    new_hash: str | None = field(repr=False)


class Authenticator:
    """Finds out whether somebody knows the password of an account, and slows down who guesses."""

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        users: Users,
        attempts: Attempts,
        passwords: Passwords,
        clock: Clock,
        policy: SignInPolicy,
    ) -> None:
        """`users` and `attempts` are the stores outside of a transaction, for reading."""
        self._uow = uow
        self._users = users
        self._attempts = attempts
        self._passwords = passwords
        self._clock = clock
        self._policy = policy

    async def check(self, email: str, password: str, address: str) -> Proof | None:
        """Check a password that came from a network address; None, and a failure more, if it is wrong.

        An email without an account is treated like a wrong password: with the same work, time and lock-out.

        Raises SignInLocked, SignInBusy.
        """
        key = AttemptsKey.of(email, address)
        async with self._passwords.turn():
            # Looked up in the turn, so that a flood of guesses can't pass the check all at once.
            attempts = await self._attempts.get(key)
            attempts.check(self._policy, self._clock.now())
            user = await self._users.by_email(email)
            verdict = await self._passwords.verify(password, user.password_hash if user else None)
            if user is None or verdict is PasswordVerdict.WRONG:
                await self._count_failure(key)
                return None
            new_hash = None
            if verdict is PasswordVerdict.OUTDATED:
                new_hash = await self._passwords.hash(password)
        return Proof(user, key, attempts, new_hash)

    async def accept(self, tx: Tx, proof: Proof) -> None:
        """Forget the failures before a proof, remember where it came from, and take over a newer hash."""
        if proof.attempts.succeed(self._clock.now()):
            await tx.attempts.succeeded(proof.key, proof.attempts)
        if proof.new_hash:
            await tx.users.rehash(proof.user, proof.new_hash)

    @transactional
    async def prune(self, tx: Tx) -> None:
        """Drop failures and origins that have no effect any more."""
        now = self._clock.now()
        forgotten_after = max(
            self._policy.from_one.forgotten_after, self._policy.from_strangers.forgotten_after
        )
        await tx.attempts.prune(now - forgotten_after, now - self._policy.remembered)

    @transactional
    async def _count_failure(self, tx: Tx, key: AttemptsKey) -> None:
        attempts = await tx.attempts.lock(key)
        attempts.fail(self._policy, self._clock.now())
        await tx.attempts.save(key, attempts)


@dataclass(frozen=True, slots=True)
class Requester:
    """A signed-in user who asks for a change: who it is, in which session and from which network address."""

    user_id: UUID | None
    session_id: UUID | None = None
    address: str = ""


class Accounts:
    """Opening, reading and changing accounts.

    Passwords are hashed before a transaction begins, because that takes long.
    """

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        users: Users,
        passwords: Passwords,
        authenticator: Authenticator,
        clock: Clock,
    ) -> None:
        """`users` is the store outside of a transaction, for reading."""
        self._uow = uow
        self._users = users
        self._passwords = passwords
        self._authenticator = authenticator
        self._clock = clock

    async def register(self, email: str, password: str, first_name: str, last_name: str) -> User:
        """Open an account. Raises InvalidArgument, EmailTaken, SignInBusy."""
        email = valid_email(email)  # before the work of a hash
        return await self._open(email, await self._hash(password), first_name, last_name, frozenset())

    async def get(self, user_id: UUID) -> User:
        """Read an account. Raises UserNotFound."""
        return await self._users.get(user_id)

    async def change_profile(
        self, user_id: UUID, change: ProfileChange, requester: Requester, current_password: str = ""
    ) -> User:
        """Change some fields of an account.

        Another email is another way in: it needs the password of whoever asks for it (the owner's own, or
        that of staff), and ends all sessions of the account but the one in which it is asked for.

        Raises UserNotFound, EmailTaken, InvalidArgument, SignInLocked, SignInBusy.
        """
        proof = None
        if change.email is not None and (await self._users.get(user_id)).moves_to(valid_email(change.email)):
            if not current_password:
                raise CurrentPasswordNeeded
            proof = await self._prove(requester, current_password)
        return await self._change_profile(user_id, change, requester, proof)

    async def ensure_staff(self, email: str, password: str) -> User:
        """Make sure that there is an admin's account with this email and password, whoever opened it.

        A changed password ends the sessions of the account: it is changed when the old one has leaked.

        Raises InvalidArgument if one of them is new and not fit for an account.
        """
        user = await self._users.by_email(email)
        if user is None:
            try:
                return await self._open(
                    email, await self._hash(password), "Stoa", "Staff", frozenset({STAFF, ADMIN})
                )
            except EmailTaken:
                user = await self._users.by_email(email)  # another instance was faster
        assert user is not None
        async with self._passwords.turn():
            verdict = await self._passwords.verify(password, user.password_hash)
        new_hash = await self._hash(password) if verdict is PasswordVerdict.WRONG else None
        if new_hash is None and user.is_admin:
            return user
        return await self._make_admin(user.user_id, new_hash)

    async def _hash(self, password: str) -> str:
        self._passwords.check_new(password)
        async with self._passwords.turn():
            return await self._passwords.hash(password)

    async def _prove(self, requester: Requester, password: str) -> Proof:
        if requester.user_id is None:
            raise CurrentPasswordWrong  # it signed in elsewhere, and has no password here
        user = await self._users.get(requester.user_id)
        proof = await self._authenticator.check(user.email, password, requester.address)
        if proof is None:
            raise CurrentPasswordWrong
        return proof

    @transactional
    async def _change_profile(
        self, tx: Tx, user_id: UUID, change: ProfileChange, requester: Requester, proof: Proof | None
    ) -> User:
        now = self._clock.now()
        user = await tx.users.lock(user_id)
        if change.email is not None and user.moves_to(change.email):
            if proof is None:
                raise CurrentPasswordNeeded  # the email was another one a moment ago
            if await tx.users.by_email(change.email):
                raise EmailTaken
            await tx.sessions.revoke_all(user_id, now, but=requester.session_id)
        user.change_profile(change, now)
        await tx.users.save(user)
        if proof is not None:
            await self._authenticator.accept(tx, proof)
        return user

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
    async def _make_admin(self, tx: Tx, user_id: UUID, new_hash: str | None) -> User:
        """Let an account be an admin's; with a new hash, if its password was another."""
        now = self._clock.now()
        user = await tx.users.lock(user_id)
        user.make_admin(now)
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
        authenticator: Authenticator,
        issuer: TokenIssuer,
        clock: Clock,
        policy: SessionPolicy,
    ) -> None:
        self._uow = uow
        self._authenticator = authenticator
        self._issuer = issuer
        self._clock = clock
        self._policy = policy

    @property
    def public_keys(self) -> Sequence[PublicKey]:
        """The keys that prove the access tokens given out here."""
        return self._issuer.public_keys

    async def sign_in(self, email: str, password: str, address: str = "") -> SignedIn:
        """Begin a session, from a network address. Raises InvalidCredentials, SignInLocked, SignInBusy."""
        proof = await self._authenticator.check(email, password, address)
        if proof is None:
            raise InvalidCredentials
        secret = secrets.token_urlsafe(32)
        session = await self._begin(proof, secret)
        return self._signed_in(proof.user, session, secret)

    async def refresh(self, secret: str) -> SignedIn:
        """Exchange a refresh token for new tokens.

        A second use within the policy's grace gets the same refresh token; a later one ends the session.

        Raises InvalidRefreshToken.
        """
        exchanged = await self._exchange(secret, secrets.token_bytes(32))
        if exchanged is None:
            raise InvalidRefreshToken
        return self._signed_in(*exchanged)

    @transactional
    async def sign_out(self, tx: Tx, secret: str) -> None:
        """End the session of a refresh token, if there is one."""
        if found := await tx.sessions.lock(digest(secret)):
            session, _ = found
            session.revoke(self._clock.now())
            await tx.sessions.save(session)

    @transactional
    async def prune(self, tx: Tx) -> None:
        """Drop expired sessions."""
        await tx.sessions.prune(self._clock.now())

    @transactional
    async def _begin(self, tx: Tx, proof: Proof, secret: str) -> Session:
        now = self._clock.now()
        session = Session.start(proof.user.user_id, self._policy, now)
        await tx.sessions.add(session, session.issue(secret, self._policy, now))
        await self._authenticator.accept(tx, proof)
        return session

    @transactional
    async def _exchange(self, tx: Tx, secret: str, salt: bytes) -> tuple[User, Session, str] | None:
        """Let a refresh token have its successor, made with this salt unless it has one.

        Return whose it is, in which session, and the successor's secret; None if the token is not good.
        """
        now = self._clock.now()
        found = await tx.sessions.lock(digest(secret))
        if found is None:
            return None
        session, token = found
        is_first = token.used_at is None
        if not session.use(token, salt, self._policy, now):
            await tx.sessions.save(session)
            return None
        assert token.successor_salt is not None, "a token that was used has a successor"
        fresh = successor(secret, token.successor_salt)
        if is_first:
            issued = session.issue(fresh, self._policy, now)
            await tx.sessions.rotate(session, token, issued, graceless_before=now - self._policy.grace)
        return await tx.users.get(session.user_id), session, fresh

    def _signed_in(self, user: User, session: Session, secret: str) -> SignedIn:
        token = self._issuer.issue(user, session.session_id, self._clock.now())
        return SignedIn(token, secret, self._issuer.lifetime)
