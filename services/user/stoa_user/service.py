"""The use cases of accounts, guests, address books and sessions."""

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from stoa_chassis.clock import Clock
from stoa_chassis.emails import valid_email
from stoa_chassis.uow import LostRace, UnitOfWork, transactional
from stoa_contracts.roles import ADMIN
from stoa_user.model import (
    Address,
    AddressKind,
    AttemptsKey,
    Client,
    CurrentPasswordNeeded,
    CurrentPasswordWrong,
    EmailTaken,
    EmailVerified,
    GuestMerge,
    GuestMerged,
    InvalidCredentials,
    InvalidGuestToken,
    InvalidMailedToken,
    InvalidRefreshToken,
    LastAdmin,
    Limited,
    MailedToken,
    MailPolicy,
    NotAnAdminAnyMore,
    PasswordOfAnother,
    PostalAddress,
    ProfileChange,
    PublicKey,
    Purpose,
    Quota,
    RoleChange,
    Session,
    SessionNotFound,
    SessionPolicy,
    SignInAttempts,
    SignInPolicy,
    StaffProtected,
    TooManyRequests,
    User,
    UserNotFound,
    digest,
    origin_of,
    successor,
)
from stoa_user.ports import (
    Addresses,
    Attempts,
    MailedTokens,
    Passwords,
    PasswordVerdict,
    Profiles,
    TokenIssuer,
    Tx,
    Users,
)
from stoa_user.ports import Sessions as SessionStore

_PRUNED_AT_ONCE = 1000
_CHANGES_SHOWN = 100
_SESSIONS_SHOWN = 1000


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

    async def prove(self, requester: "Requester", password: str) -> Proof:
        """Return the proof that whoever asks for a change knows the own password.

        Raises CurrentPasswordWrong, UserNotFound, SignInLocked, SignInBusy.
        """
        if requester.user_id is None:
            raise CurrentPasswordWrong  # it signed in elsewhere, and has no password here
        user = await self._users.get(requester.user_id)
        proof = await self.check(user.email, password, requester.address)
        if proof is None:
            raise CurrentPasswordWrong
        return proof

    async def restore(self, tx: Tx, user: User, address: str) -> None:
        """Let the owner of an account in again, from a network address, whatever strangers have tried."""
        key, attempts = AttemptsKey.of(user.email, address), SignInAttempts()
        attempts.succeed(self._clock.now())
        await tx.attempts.lift(key.account)
        await tx.attempts.succeeded(key, attempts)

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
    is_admin: bool = False

    def check_may_change(self, user: User, proof: Proof | None) -> None:
        """Raise StaffProtected if it is not for this user to change this account.

        Whoever could name another address for an account of staff could become it. So whoever proves to be
        an admin has to be one still: a token says for minutes what its owner may do no more.
        """
        is_admin = self.is_admin and (proof is None or proof.user.is_admin)
        if user.is_staff and not is_admin and self.user_id != user.user_id:
            raise StaffProtected


class OriginLimits:
    """Bounds how often the same is asked for from one origin."""

    def __init__(self, clock: Clock, quotas: Mapping[Limited, Quota]) -> None:
        """`quotas` has how often by what is asked for; what it has not is not bounded."""
        self._clock = clock
        self._quotas = quotas

    async def count(self, tx: Tx, subject: Limited, address: str) -> None:
        """Count a request from a network address, if it is known. Raises TooManyRequests."""
        quota, place = self._quotas.get(subject), origin_of(address)
        if quota is None or not place:
            return
        now, origin = self._clock.now(), digest(place)
        requests = await tx.requests.lock(subject, origin, now)
        requests.add(quota, now)
        await tx.requests.save(subject, origin, requests)

    async def prune(self, tx: Tx) -> None:
        """Drop what was counted so long ago that it bounds nothing any more."""
        longest = max((quota.within for quota in self._quotas.values()), default=timedelta())
        await tx.requests.prune(self._clock.now() - longest)


class Mailing:
    """Has tokens mailed that show, once, that somebody reads the mail of an address."""

    def __init__(self, clock: Clock, policy: MailPolicy) -> None:
        self._clock = clock
        self._policy = policy

    async def send(self, tx: Tx, purpose: Purpose, user: User, session_id: UUID | None = None) -> None:
        """Mail a token to the owner of a locked account, asked for in one of its sessions or in none.

        Raises TooManyRequests while the account has as many as it may have.
        """
        now = self._clock.now()
        live = await tx.mailed.live(user.user_id, purpose, now)
        if len(live) >= self._policy.live(purpose):
            wait = timedelta(seconds=math.ceil((live[0] - now).total_seconds()))
            raise TooManyRequests("mails were sent already; please look for them", retry_after=wait)
        secret = secrets.token_urlsafe(32)
        await tx.mailed.add(MailedToken.issue(secret, purpose, user, self._policy, now, session_id))

    async def take(self, tx: Tx, purpose: Purpose, secret: str) -> tuple[User, MailedToken]:
        """Use a token: return whose it is, locked, and what it says. Raises InvalidMailedToken."""
        token = await tx.mailed.get(digest(secret), purpose, self._clock.now())
        if token is None:
            raise InvalidMailedToken
        user = await tx.users.lock(token.user_id)
        # Once more: before the lock another use of the same token may have been going on.
        if await tx.mailed.get(token.digest, purpose, self._clock.now()) is None:
            raise InvalidMailedToken
        await tx.mailed.drop_all(user.user_id, purpose)
        return user, token


class Guests:
    """Giving tokens to guests, and what was a guest's to the account that its owner has now."""

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        issuer: TokenIssuer,
        clock: Clock,
        policy: SessionPolicy,
        limits: OriginLimits,
    ) -> None:
        self._uow = uow
        self._issuer = issuer
        self._clock = clock
        self._policy = policy
        self._limits = limits

    async def welcome(self, address: str = "") -> "SignedIn":
        """Make somebody at a network address a guest. Raises TooManyRequests."""
        secret = secrets.token_urlsafe(32)
        session = await self._begin(secret, address)
        token = self._issuer.issue_to_guest(session.user_id, session.session_id, self._clock.now())
        return SignedIn(token, secret, self._issuer.lifetime)

    async def take_over(self, tx: Tx, token: str, user_id: UUID) -> None:
        """Let an account have what a guest had, as one of the guest's tokens shows, and end the guest.

        The same again does nothing: the answer was lost. Raises InvalidGuestToken, GuestMerged.
        """
        now = self._clock.now()
        session_id = self._issuer.session_of_guest(token, now)
        if session_id is not None:
            session, refresh_token = await tx.sessions.lock_session(session_id), None
        else:
            session, refresh_token = await tx.sessions.lock(digest(token)) or (None, None)
        if session is None or not session.is_guest:
            raise InvalidGuestToken
        owner = await tx.guests.merged_into(session.user_id)
        if owner == user_id:
            return
        if owner is not None:
            raise GuestMerged
        if not session.is_proven_by(refresh_token, self._policy, now):
            raise InvalidGuestToken
        await tx.guests.add(GuestMerge.into(user_id, session.user_id, now))
        await tx.sessions.revoke_all(session.user_id, now)

    @transactional
    async def prune(self, tx: Tx) -> None:
        """Forget merges of guests whose tokens have all expired."""
        await tx.guests.prune(self._clock.now() - self._policy.guest)

    @transactional
    async def _begin(self, tx: Tx, secret: str, address: str) -> Session:
        await self._limits.count(tx, Limited.GUEST, address)
        now = self._clock.now()
        session = Session.start_guest(self._policy, now)
        await tx.sessions.add(session, session.issue(secret, self._policy, now))
        return session


class Accounts:
    """Opening, reading and changing accounts.

    Passwords are hashed before a transaction begins, because that takes long.
    """

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        users: Users,
        profiles: Profiles,
        passwords: Passwords,
        authenticator: Authenticator,
        guests: Guests,
        mailing: Mailing,
        clock: Clock,
    ) -> None:
        """`users` is the store outside of a transaction, for reading."""
        self._uow = uow
        self._users = users
        self._profiles = profiles
        self._passwords = passwords
        self._authenticator = authenticator
        self._guests = guests
        self._mailing = mailing
        self._clock = clock

    async def register(
        self,
        email: str,
        password: str,
        first_name: str,
        last_name: str,
        *,
        locale: str = "en",
        guest_token: str = "",
    ) -> User:
        """Open an account, with what the owner had as a guest if a token of the guest is given.

        Raises InvalidArgument, EmailTaken, GuestMerged, SignInBusy.
        """
        email = valid_email(email)  # before the work of a hash
        password_hash = await self._hash(password)
        return await self._open(email, password_hash, first_name, last_name, locale, guest_token)

    async def get(self, user_id: UUID) -> User:
        """Read an account for its owner, who may have changed it a moment ago. Raises UserNotFound."""
        return await self._users.get(user_id)

    async def look_up(self, user_id: UUID) -> User:
        """Read an account for somebody else. Raises UserNotFound."""
        return await self._profiles.get(user_id)

    async def change_profile(
        self,
        user_id: UUID,
        change: ProfileChange,
        requester: Requester,
        current_password: str = "",
        new_password: str = "",
    ) -> User:
        """Change some fields of an account.

        Another email is another way in: it needs the password of whoever asks for it (the owner's own, or
        that of staff), and waits until it is confirmed by what is mailed to it. Another password needs the
        old one, and ends all sessions but the one in which it is set.

        Raises UserNotFound, EmailTaken, StaffProtected, InvalidArgument, TooManyRequests, SignInLocked,
        SignInBusy.
        """
        proof = new_hash = None
        moves = change.email is not None and (await self._users.get(user_id)).moves_to(
            valid_email(change.email)
        )
        if new_password and requester.user_id != user_id:
            raise PasswordOfAnother
        if moves or new_password:
            if not current_password:
                raise CurrentPasswordNeeded
            proof = await self._authenticator.prove(requester, current_password)
        if new_password:
            new_hash = await self._hash(new_password)
        return await self._change_profile(user_id, change, requester, proof, new_hash)

    @transactional
    async def request_verification(self, tx: Tx, user_id: UUID, requester: Requester) -> None:
        """Have the mail sent again that confirms the email of an account, or the one that waits.

        Raises UserNotFound, EmailVerified, TooManyRequests.
        """
        user = await tx.users.lock(user_id)
        if user.email_verified and not user.pending_email:
            raise EmailVerified
        await self._mailing.send(tx, Purpose.CONFIRM_EMAIL, user, requester.session_id)

    @transactional
    async def confirm_email(self, tx: Tx, secret: str) -> None:
        """Confirm an address with what was mailed to it.

        If it takes the place of another, all sessions end but the one in which it was asked for, and so does
        what was mailed to the other. Raises InvalidMailedToken, EmailTaken.
        """
        now = self._clock.now()
        user, token = await self._mailing.take(tx, Purpose.CONFIRM_EMAIL, secret)
        has_moved = user.confirm_email(token.email, now)
        await tx.users.save(user)
        if has_moved:
            await tx.mailed.drop_all(user.user_id)
            await tx.sessions.revoke_all(user.user_id, now, but=token.session_id)

    async def ensure_staff(self, email: str, password: str) -> User:
        """Make sure that there is an admin's account with this email and password, whoever opened it.

        A changed password ends the sessions of the account: it is changed when the old one has leaked.

        Raises InvalidArgument if one of them is new and not fit for an account.
        """
        user = await self._users.by_email(email)
        if user is None:
            try:
                return await self._open_admin(email, await self._hash(password))
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

    @transactional
    async def _change_profile(
        self,
        tx: Tx,
        user_id: UUID,
        change: ProfileChange,
        requester: Requester,
        proof: Proof | None,
        new_hash: str | None,
    ) -> User:
        now = self._clock.now()
        user = await tx.users.lock(user_id)
        requester.check_may_change(user, proof)
        moves = change.email is not None and user.moves_to(change.email)
        if change.email is not None and moves:
            if proof is None:
                raise CurrentPasswordNeeded  # the email was another one a moment ago
            if await tx.users.by_email(change.email):
                raise EmailTaken
        if proof is not None:
            await self._authenticator.accept(tx, proof)
        user.change_profile(change, now)
        if new_hash is not None:
            user.change_password(new_hash, now)
            await tx.mailed.drop_all(user_id, Purpose.RESET_PASSWORD)
            await tx.sessions.revoke_all(user_id, now, but=requester.session_id)
        await tx.users.save(user)
        if moves:
            is_own = requester.user_id == user_id
            session_id = requester.session_id if is_own else None
            await self._mailing.send(tx, Purpose.CONFIRM_EMAIL, user, session_id)
        return user

    @transactional
    async def _open(
        self,
        tx: Tx,
        email: str,
        password_hash: str,
        first_name: str,
        last_name: str,
        locale: str,
        guest_token: str,
    ) -> User:
        user = User.register(
            email=email,
            password_hash=password_hash,
            first_name=first_name,
            last_name=last_name,
            locale=locale,
            now=self._clock.now(),
        )
        await tx.users.add(user)
        await self._mailing.send(tx, Purpose.CONFIRM_EMAIL, user)
        if guest_token:
            await self._guests.take_over(tx, guest_token, user.user_id)
        return user

    @transactional
    async def _open_admin(self, tx: Tx, email: str, password_hash: str) -> User:
        now = self._clock.now()
        user = User.register(
            email=email, password_hash=password_hash, first_name="Stoa", last_name="Staff", now=now
        )
        user.confirm_email(user.email, now)  # by whoever runs the shop
        user.set_roles({ADMIN}, now)
        await tx.users.add(user)
        await tx.role_changes.add(_by_the_settings(user, frozenset()))
        return user

    @transactional
    async def _make_admin(self, tx: Tx, user_id: UUID, new_hash: str | None) -> User:
        """Let an account be an admin's; with a new hash, if its password was another."""
        now = self._clock.now()
        user = await tx.users.lock(user_id)
        if not user.is_admin:
            before = user.roles
            user.set_roles({*before, ADMIN}, now)
            await tx.role_changes.add(_by_the_settings(user, before))
        if new_hash is not None:
            user.recover(new_hash, user.email, now)
            await tx.mailed.drop_all(user_id)
            await tx.sessions.revoke_all(user_id, now)
        await tx.users.save(user)
        return user


def _by_the_settings(user: User, before: frozenset[str]) -> RoleChange:
    return RoleChange(
        user_id=user.user_id,
        changed_by=None,
        before=before,
        after=user.roles,
        reason="named by the settings of the shop",
        at=user.updated_at,
    )


class Recovery:
    """Getting back into an account by its mail."""

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        mailed: MailedTokens,
        passwords: Passwords,
        authenticator: Authenticator,
        mailing: Mailing,
        limits: OriginLimits,
        clock: Clock,
        answer_after: timedelta,
    ) -> None:
        """`mailed` is the store outside of a transaction, for reading.

        A request is answered after `answer_after`, so that the time says nothing of what was done.
        """
        self._uow = uow
        self._mailed = mailed
        self._passwords = passwords
        self._authenticator = authenticator
        self._mailing = mailing
        self._limits = limits
        self._clock = clock
        self._answer_after = answer_after.total_seconds()

    async def request(self, email: str, address: str = "") -> None:
        """Mail what a new password can be set with, if there is an account with this email.

        Whoever asks, from a network address, does not learn if there is. Raises InvalidArgument,
        TooManyRequests.
        """
        email = valid_email(email)
        async with self._same_time():
            await self._request(email, address)

    async def confirm(self, secret: str, password: str, address: str = "") -> None:
        """Set a new password with what was mailed, from a network address.

        All sessions end, and failures to sign in are forgotten: the owner is back. Raises InvalidMailedToken,
        InvalidArgument, SignInBusy.
        """
        self._passwords.check_new(password)
        if await self._mailed.get(digest(secret), Purpose.RESET_PASSWORD, self._clock.now()) is None:
            raise InvalidMailedToken  # before the work of a hash
        async with self._passwords.turn():
            password_hash = await self._passwords.hash(password)
        await self._confirm(secret, password_hash, address)

    @transactional
    async def prune(self, tx: Tx) -> None:
        """Drop expired tokens, and requests that bound nothing any more."""
        await tx.mailed.prune(self._clock.now())
        await self._limits.prune(tx)

    @asynccontextmanager
    async def _same_time(self) -> AsyncIterator[None]:
        until = time.monotonic() + self._answer_after
        try:
            yield
        finally:
            await asyncio.sleep(max(0.0, until - time.monotonic()))

    @transactional
    async def _request(self, tx: Tx, email: str, address: str) -> None:
        await self._limits.count(tx, Limited.PASSWORD_RESET, address)
        found = await tx.users.by_email(email)
        if found is None:
            return
        with suppress(TooManyRequests, UserNotFound):  # it has links that work, or is gone
            await self._mailing.send(tx, Purpose.RESET_PASSWORD, await tx.users.lock(found.user_id))

    @transactional
    async def _confirm(self, tx: Tx, secret: str, password_hash: str, address: str) -> None:
        now = self._clock.now()
        user, token = await self._mailing.take(tx, Purpose.RESET_PASSWORD, secret)
        user.recover(password_hash, token.email, now)
        await tx.users.save(user)
        await tx.mailed.drop_all(user.user_id)
        await tx.sessions.revoke_all(user.user_id, now)
        await self._authenticator.restore(tx, user, address)


class StaffRoles:
    """Saying what accounts may do as staff. For admins."""

    def __init__(self, uow: UnitOfWork[Tx], profiles: Profiles, clock: Clock) -> None:
        self._uow = uow
        self._profiles = profiles
        self._clock = clock

    async def staff(self, after: UUID | None, limit: int) -> Sequence[User]:
        """Read accounts of staff, the newest first, that come after an id."""
        return await self._profiles.staff(after, limit)

    @transactional
    async def get(self, tx: Tx, user_id: UUID) -> tuple[User, Sequence[RoleChange]]:
        """Read an account, and the newest changes of its roles first. Raises UserNotFound."""
        return await tx.users.get(user_id), await tx.role_changes.newest(user_id, _CHANGES_SHOWN)

    @transactional
    async def set(
        self, tx: Tx, user_id: UUID, roles: frozenset[str], reason: str, changed_by: UUID
    ) -> tuple[User, Sequence[RoleChange]]:
        """Let an account have these roles alone; what `get` reads then.

        Raises UserNotFound, LastAdmin, and NotAnAdminAnyMore if that is true of who asks for it, whatever the
        token says: else a deposed admin could come back within minutes.
        """
        admins = await tx.users.lock_admins()
        user = await tx.users.lock(user_id)
        before, now = user.roles, self._clock.now()
        if user.is_admin and ADMIN not in roles and len(admins) == 1:
            raise LastAdmin
        # An admin of another issuer has no account here, and so no changes.
        last = await tx.role_changes.newest(changed_by, 1)
        if last and not last[0].leaves_an_admin:
            raise NotAnAdminAnyMore
        user.set_roles(roles, now)
        if user.roles != before:
            await tx.users.save(user)
            await tx.role_changes.add(
                RoleChange(
                    user_id=user_id,
                    changed_by=changed_by,
                    before=before,
                    after=user.roles,
                    reason=reason,
                    at=now,
                )
            )
        return user, await tx.role_changes.newest(user_id, _CHANGES_SHOWN)


@dataclass(frozen=True, slots=True)
class Export:
    """All that is kept here of a person."""

    user: User
    addresses: Sequence[Address]
    sessions: Sequence[Session]
    guest_ids: Sequence[UUID]


class Privacy:
    """What the owner of an account may ask of it as a person (GDPR, articles 15, 17 and 20)."""

    def __init__(self, uow: UnitOfWork[Tx], authenticator: Authenticator, clock: Clock) -> None:
        self._uow = uow
        self._authenticator = authenticator
        self._clock = clock

    @transactional
    async def export(self, tx: Tx, user_id: UUID) -> Export:
        """Read all that is kept here. Raises UserNotFound."""
        book = await tx.addresses.book(user_id)
        return Export(
            await tx.users.get(user_id),
            sorted(book.addresses.values(), key=lambda each: each.address_id),
            await tx.sessions.page(user_id, self._clock.now(), None, _SESSIONS_SHOWN),
            await tx.guests.merged_by(user_id),
        )

    async def erase(self, user_id: UUID, requester: Requester, current_password: str) -> None:
        """Forget a person, and tell the other services to. It needs the password of whoever asks for it.

        Raises UserNotFound, CurrentPasswordWrong, StaffProtected, LastAdmin, SignInLocked, SignInBusy.
        """
        await self._erase(user_id, requester, await self._authenticator.prove(requester, current_password))

    @transactional
    async def _erase(self, tx: Tx, user_id: UUID, requester: Requester, proof: Proof) -> None:
        now = self._clock.now()
        # All wait for the lock of admins, so only who erases one takes it, and before that of the account.
        is_admin = (await tx.users.get(user_id)).is_admin
        admins = await tx.users.lock_admins() if is_admin else ()
        user = await tx.users.lock(user_id)
        if user.is_admin and not is_admin:
            raise LostRace  # an admin since a moment ago
        requester.check_may_change(user, proof)
        if user.is_admin and len(admins) == 1:
            raise LastAdmin
        await self._authenticator.accept(tx, proof)
        if user.roles:
            await tx.role_changes.add(
                RoleChange(
                    user_id=user_id,
                    changed_by=requester.user_id,
                    before=user.roles,
                    after=frozenset(),
                    reason="the account was erased",
                    at=now,
                )
            )
        account = AttemptsKey.of(user.email, "").account
        user.erase(now)
        await tx.users.save(user)
        await tx.addresses.clear(user_id)
        await tx.sessions.drop_all(user_id)
        await tx.mailed.drop_all(user_id)
        await tx.guests.drop_all(user_id)
        await tx.attempts.drop_all(account)


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
        kind: AddressKind | None,
        postal: PostalAddress,
        *,
        as_default: bool,
    ) -> Address:
        """Replace an address; without a kind it keeps its own. Raises UserNotFound, AddressNotFound."""
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
        sessions: SessionStore,
        authenticator: Authenticator,
        guests: Guests,
        issuer: TokenIssuer,
        clock: Clock,
        policy: SessionPolicy,
    ) -> None:
        """`sessions` is the store outside of a transaction, for reading."""
        self._uow = uow
        self._sessions = sessions
        self._authenticator = authenticator
        self._guests = guests
        self._issuer = issuer
        self._clock = clock
        self._policy = policy

    @property
    def public_keys(self) -> Sequence[PublicKey]:
        """The keys that prove the access tokens given out here."""
        return self._issuer.public_keys

    async def sign_in(
        self,
        email: str,
        password: str,
        address: str = "",
        *,
        user_agent: str = "",
        guest_token: str = "",
    ) -> SignedIn:
        """Begin a session, from a network address, with what the owner had as a guest until now.

        Raises InvalidCredentials, SignInLocked, SignInBusy, InvalidGuestToken, GuestMerged.
        """
        proof = await self._authenticator.check(email, password, address)
        if proof is None:
            raise InvalidCredentials
        secret = secrets.token_urlsafe(32)
        try:
            session = await self._begin(proof, secret, Client(address, user_agent), guest_token)
        except UserNotFound:  # the account was erased a moment ago
            raise InvalidCredentials from None
        return self._signed_in(proof.user, session, secret)

    async def page(self, user_id: UUID, after: UUID | None, limit: int) -> Sequence[Session]:
        """Read where one is signed in, the newest session first, after an id."""
        return await self._sessions.page(user_id, self._clock.now(), after, limit)

    @transactional
    async def revoke(self, tx: Tx, user_id: UUID, session_id: UUID) -> None:
        """End a session of an account. Raises SessionNotFound."""
        session = await tx.sessions.lock_session(session_id)
        if session is None or session.user_id != user_id:
            raise SessionNotFound("the account has no such session")
        session.revoke(self._clock.now())
        await tx.sessions.save(session)

    async def refresh(self, secret: str) -> SignedIn:
        """Exchange a refresh token for new tokens.

        A second use within the policy's grace gets the same refresh token; a later one ends the session.

        Raises InvalidRefreshToken.
        """
        try:
            exchanged = await self._exchange(secret, secrets.token_bytes(32))
        except UserNotFound:
            exchanged = None  # the account was erased a moment ago
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

    async def prune(self) -> None:
        """Drop expired sessions, those of guests among them."""
        while await self._prune() == _PRUNED_AT_ONCE:
            pass

    @transactional
    async def _prune(self, tx: Tx) -> int:
        return await tx.sessions.prune(self._clock.now(), _PRUNED_AT_ONCE)

    @transactional
    async def _begin(self, tx: Tx, proof: Proof, secret: str, client: Client, guest_token: str) -> Session:
        now = self._clock.now()
        user = await tx.users.lock(proof.user.user_id)
        if user.has_changed_password_since(proof.user):
            raise InvalidCredentials  # it ended the sessions of the old one, and this would be another
        session = Session.start(user.user_id, self._policy, now, client)
        await tx.sessions.add(session, session.issue(secret, self._policy, now))
        await self._authenticator.accept(tx, proof)
        if guest_token:
            await self._guests.take_over(tx, guest_token, user.user_id)
        return session

    @transactional
    async def _exchange(self, tx: Tx, secret: str, salt: bytes) -> tuple[User | None, Session, str] | None:
        """Let a refresh token have its successor, made with this salt unless it has one.

        Return whose it is (None: a guest's), in which session, and the successor's secret; None if the token
        is not good.
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
        user = None if session.is_guest else await tx.users.get(session.user_id)
        return user, session, fresh

    def _signed_in(self, user: User | None, session: Session, secret: str) -> SignedIn:
        now = self._clock.now()
        if user is None:
            token = self._issuer.issue_to_guest(session.user_id, session.session_id, now)
        else:
            token = self._issuer.issue(user, session.session_id, now)
        return SignedIn(token, secret, self._issuer.lifetime)
