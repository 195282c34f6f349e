"""Accounts, address books, sessions and sign-in attempts, and the rules they keep."""

import hashlib
import hmac
import math
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from typing import Self
from uuid import UUID

from stoa_chassis.emails import email_key, valid_email
from stoa_chassis.errors import (
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unauthenticated,
)
from stoa_chassis.ids import new_id
from stoa_contracts.roles import ADMIN, STAFF, is_admitted
from stoa_events import UserProfileUpdated, UserRegistered

MAX_ADDRESSES = 50


class EmailTaken(AlreadyExists):
    """Another account has this email."""

    reason = "EMAIL_TAKEN"

    def __init__(self) -> None:
        taken = "belongs to another account"
        super().__init__(f"email: {taken}", violations=(FieldViolation("email", taken),))


class UserNotFound(NotFound):
    """There is no such account."""

    reason = "USER_NOT_FOUND"


class AddressNotFound(NotFound):
    """The account has no such address."""

    reason = "ADDRESS_NOT_FOUND"


class AddressBookFull(FailedPrecondition):
    """The account has as many addresses as it may have."""

    reason = "ADDRESS_BOOK_FULL"


class InvalidCredentials(Unauthenticated):
    """Email and password don't fit. Never says which of the two is wrong."""

    reason = "INVALID_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("email or password is wrong")


class SignInLocked(ResourceExhausted):
    """Too many wrong passwords were tried with this email; also answered when there is no such account."""

    reason = "SIGN_IN_LOCKED"


class SignInBusy(ResourceExhausted):
    """More passwords are waiting to be checked than can be in reasonable time."""

    reason = "SIGN_IN_BUSY"


class CurrentPasswordNeeded(InvalidArgument):
    """Only who knows the password may change how an account is signed in to."""

    def __init__(self) -> None:
        super().__init__("current_password", "is needed to change the email address")


class CurrentPasswordWrong(InvalidArgument):
    """The password that was given with a change is not that of whoever asks for it."""

    def __init__(self) -> None:
        super().__init__("current_password", "is wrong")


class InvalidRefreshToken(Unauthenticated):
    """The refresh token is unknown, used, expired or revoked. Never says which."""

    reason = "INVALID_REFRESH_TOKEN"

    def __init__(self) -> None:
        super().__init__("the refresh token is not valid; please sign in again")


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """New values for some fields of an account; None leaves a field as it is."""

    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None


@dataclass(slots=True, kw_only=True)
class User:
    """An account."""

    user_id: UUID
    email: str
    password_hash: str = field(repr=False)
    first_name: str
    last_name: str
    roles: frozenset[str]
    created_at: datetime
    updated_at: datetime
    events: list[UserRegistered | UserProfileUpdated] = field(default_factory=list, compare=False)

    @classmethod
    def register(
        cls,
        *,
        email: str,
        password_hash: str,
        first_name: str,
        last_name: str,
        now: datetime,
        roles: frozenset[str] = frozenset(),
    ) -> Self:
        """Open an account. Raises InvalidArgument if the email is none."""
        user = cls(
            user_id=new_id(),
            email=valid_email(email),
            password_hash=password_hash,
            first_name=first_name,
            last_name=last_name,
            roles=roles,
            created_at=now,
            updated_at=now,
        )
        user.events.append(
            UserRegistered(
                user_id=user.user_id,
                email=user.email,
                first_name=user.first_name,
                last_name=user.last_name,
            )
        )
        return user

    def moves_to(self, email: str | None) -> bool:
        """Tell whether this would be another email address; None, or the own in other capitals, is not."""
        return email is not None and email_key(email) != email_key(self.email)

    def change_profile(self, change: ProfileChange, now: datetime) -> None:
        """Take the new values. A change that changes nothing leaves no trace.

        Raises InvalidArgument if the email is none.
        """
        new = {f.name: value for f in fields(change) if (value := getattr(change, f.name)) is not None}
        if "email" in new:
            new["email"] = valid_email(new["email"])
        if all(getattr(self, name) == value for name, value in new.items()):
            return
        for name, value in new.items():
            setattr(self, name, value)
        self.updated_at = now
        self.events.append(
            UserProfileUpdated(
                user_id=self.user_id,
                email=self.email,
                first_name=self.first_name,
                last_name=self.last_name,
            )
        )

    @property
    def is_admin(self) -> bool:
        """Tell whether it may do all that any staff may."""
        return is_admitted(self.roles, frozenset({ADMIN}))

    def make_admin(self, now: datetime) -> None:
        """Let the account do all that any staff may."""
        self.roles |= {STAFF, ADMIN}
        self.updated_at = now

    def change_password(self, password_hash: str, now: datetime) -> None:
        """Take the hash of a new password."""
        self.password_hash = password_hash
        self.updated_at = now


class AddressKind(StrEnum):
    """What an address is used for."""

    SHIPPING = "shipping"
    BILLING = "billing"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostalAddress:
    """Where something is sent to."""

    recipient: str
    line1: str
    line2: str = ""
    city: str
    region: str = ""
    postal_code: str
    country: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An entry of an address book."""

    address_id: UUID
    kind: AddressKind
    is_default: bool
    postal: PostalAddress
    created_at: datetime
    updated_at: datetime


@dataclass(slots=True)
class AddressBook:
    """The addresses of an account. Each kind that has any has exactly one default."""

    user_id: UUID
    addresses: dict[UUID, Address] = field(default_factory=dict)
    changed: set[UUID] = field(default_factory=set)
    removed: set[UUID] = field(default_factory=set)

    def add(self, kind: AddressKind, postal: PostalAddress, *, as_default: bool, now: datetime) -> Address:
        """Add an address. The first of a kind becomes its default. Raises AddressBookFull."""
        if len(self.addresses) >= MAX_ADDRESSES:
            raise AddressBookFull(
                f"an account has at most {MAX_ADDRESSES} addresses", metadata={"limit": str(MAX_ADDRESSES)}
            )
        address = Address(
            address_id=new_id(),
            kind=kind,
            is_default=False,
            postal=postal,
            created_at=now,
            updated_at=now,
        )
        return self._put(address, as_default=as_default)

    def replace(
        self,
        address_id: UUID,
        kind: AddressKind,
        postal: PostalAddress,
        *,
        as_default: bool,
        now: datetime,
    ) -> Address:
        """Replace an address. A default of a kind stays one until another takes its place.

        Raises AddressNotFound.
        """
        old = self._get(address_id)
        stays_default = old.is_default and kind == old.kind
        new = replace(old, kind=kind, is_default=False, postal=postal, updated_at=now)
        put = self._put(new, as_default=as_default or stays_default)
        self._fill_default(old.kind)
        return put

    def remove(self, address_id: UUID) -> None:
        """Remove an address. If it was a default, the newest other of its kind becomes it.

        Raises AddressNotFound.
        """
        old = self._get(address_id)
        del self.addresses[address_id]
        self.changed.discard(address_id)
        self.removed.add(address_id)
        self._fill_default(old.kind)

    def _get(self, address_id: UUID) -> Address:
        if address_id not in self.addresses:
            raise AddressNotFound("the account has no such address")
        return self.addresses[address_id]

    def _put(self, address: Address, *, as_default: bool) -> Address:
        others = [a for a in self._of(address.kind) if a.address_id != address.address_id]
        if as_default or not others:
            for other in others:
                if other.is_default:
                    self._store(replace(other, is_default=False))
            address = replace(address, is_default=True)
        self._store(address)
        return address

    def _fill_default(self, kind: AddressKind) -> None:
        candidates = self._of(kind)
        if candidates and not any(a.is_default for a in candidates):
            newest = max(candidates, key=lambda a: (a.created_at, a.address_id))
            self._store(replace(newest, is_default=True))

    def _of(self, kind: AddressKind) -> list[Address]:
        return [a for a in self.addresses.values() if a.kind == kind]

    def _store(self, address: Address) -> None:
        self.addresses[address.address_id] = address
        self.changed.add(address.address_id)


def digest(secret: str) -> bytes:
    """Return the SHA-256 of a refresh token: what is stored, so that a stolen table opens no session.

    A plain hash is enough because a token has 256 random bits; a password has not (see `passwords.py`).
    """
    return hashlib.sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How long one may stay signed in."""

    idle: timedelta = timedelta(days=30)
    longest: timedelta = timedelta(days=90)
    grace: timedelta = timedelta(seconds=10)
    """How long after its first use a refresh token is answered once more, by the same successor: two tabs
    refresh at the same moment, or an answer is lost on the way."""


@dataclass(slots=True)
class RefreshToken:
    """One link in the chain of a session's refresh tokens.

    The next one is made from this one's secret and a random salt. So it can be given out again to whoever
    shows this one again, and who has only the salt, the table's thief, has nothing; nor has who has only the
    secret, for the salt is dropped when the grace is over.
    """

    digest: bytes = field(repr=False)
    expires_at: datetime
    used_at: datetime | None = None
    successor_salt: bytes | None = field(default=None, repr=False)


def successor(secret: str, salt: bytes) -> str:
    """Return the secret of the refresh token that takes the place of one."""
    return urlsafe_b64encode(hmac.digest(secret.encode(), salt, "sha256")).rstrip(b"=").decode()


@dataclass(slots=True)
class Session:
    """A family of refresh tokens: what began with one sign-in and ends for all of them at once."""

    session_id: UUID
    user_id: UUID
    expires_at: datetime
    revoked_at: datetime | None = None

    @classmethod
    def start(cls, user_id: UUID, policy: SessionPolicy, now: datetime) -> Self:
        """Begin a session at a sign-in."""
        return cls(new_id(), user_id, now + policy.longest)

    def issue(self, secret: str, policy: SessionPolicy, now: datetime) -> RefreshToken:
        """Add a token to the family. It never outlives the session."""
        return RefreshToken(digest(secret), min(now + policy.idle, self.expires_at))

    def use(self, token: RefreshToken, salt: bytes, policy: SessionPolicy, now: datetime) -> bool:
        """Use up a token, whose successor is made with this salt; False if it is not good any more.

        A second use means that the token has two holders, one of whom stole it. Nobody can tell which, so the
        session ends for both (RFC 9700, section 4.14.2), except within the grace after the first use: then
        the token keeps its salt, and is good for the successor that it has already.
        """
        is_late = token.used_at is not None and now - token.used_at > policy.grace
        if is_late or (token.used_at is not None and token.successor_salt is None):
            self.revoke(now)
        if self.revoked_at is not None or now >= token.expires_at:
            return False
        if token.used_at is None:
            token.used_at, token.successor_salt = now, salt
        return True

    def revoke(self, now: datetime) -> None:
        """End the session."""
        self.revoked_at = self.revoked_at or now


@dataclass(frozen=True, slots=True)
class LockoutPolicy:
    """How wrong passwords are answered: after `failures` in a row sign-in is locked, longer each time."""

    failures: int = 10
    first: timedelta = timedelta(minutes=1)
    longest: timedelta = timedelta(hours=1)
    forgotten_after: timedelta = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class SignInPolicy:
    """How wrong passwords for an account are answered, by where they come from.

    From one origin sign-in is locked (`from_one`). All origins where the owner never signed in wait for each
    other as well (`from_strangers`), so that who guesses from many is slow; but never for long, since the
    owner in a new place is a stranger too. Where she signed in during the last `remembered` she is none.
    """

    from_one: LockoutPolicy = LockoutPolicy()
    from_strangers: LockoutPolicy = LockoutPolicy(first=timedelta(seconds=1), longest=timedelta(minutes=1))
    remembered: timedelta = timedelta(days=90)


def origin_of(address: str) -> str:
    """Return what counts as one place on the internet: an IPv4 address, or a network of a site in IPv6.

    "" if it is no address, and so nothing is known of it.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is None:
            # Whoever has one address of a /64 has all of them.
            return f"{IPv6Address(int(ip) >> 64 << 64)}/64"
        ip = ip.ipv4_mapped
    return str(ip)


@dataclass(frozen=True, slots=True)
class AttemptsKey:
    """Under what failures are counted: those of all strangers with an account, and those of one origin.

    They are counted whether or not there is such an account, so that a lock does not give away which emails
    have one; hashed, so that the tables do not collect strangers' emails and addresses.
    """

    account: bytes
    origin: bytes

    @classmethod
    def of(cls, email: str, address: str) -> Self:
        """Return the key of an email and the network address that a try comes from."""
        account = email_key(email)
        return cls(digest(account), digest(f"{account}\0{origin_of(address)}"))


@dataclass(slots=True)
class Failures:
    """Wrong passwords in a row."""

    count: int = 0
    last_at: datetime | None = None
    locked_until: datetime | None = None

    def wait(self, now: datetime) -> timedelta:
        """Return how long no password is looked at."""
        return max(self.locked_until - now, timedelta()) if self.locked_until else timedelta()

    def add(self, policy: LockoutPolicy, now: datetime) -> None:
        """Count a wrong password; from the policy's limit on each doubles the time of the lock."""
        if self.last_at and now - self.last_at > policy.forgotten_after:
            self.count = 0
        self.count += 1
        self.last_at = now
        if self.count >= policy.failures:
            # Capped: the longest lock is reached long before 2^30 times the first overflows a timedelta.
            doublings = min(self.count - policy.failures, 30)
            self.locked_until = now + min(policy.first * 2**doublings, policy.longest)


@dataclass(slots=True)
class SignInAttempts:
    """What is known of the tries to sign in to an account, seen from one origin."""

    here: Failures = field(default_factory=Failures)
    strangers: Failures = field(default_factory=Failures)
    signed_in_at: datetime | None = None
    """When the owner last signed in from here."""

    def is_stranger(self, policy: SignInPolicy, now: datetime) -> bool:
        """Tell whether the owner has not signed in from here for long, or never."""
        return self.signed_in_at is None or now - self.signed_in_at > policy.remembered

    def check(self, policy: SignInPolicy, now: datetime) -> None:
        """Raise SignInLocked while locked, whatever the password."""
        wait = self.here.wait(now)
        if self.is_stranger(policy, now):
            wait = max(wait, self.strangers.wait(now))
        if wait:
            seconds = timedelta(seconds=math.ceil(wait.total_seconds()))
            raise SignInLocked("too many wrong passwords; please try again later", retry_after=seconds)

    def fail(self, policy: SignInPolicy, now: datetime) -> None:
        """Count a wrong password."""
        self.here.add(policy.from_one, now)
        if self.is_stranger(policy, now):
            self.strangers.add(policy.from_strangers, now)

    def succeed(self, now: datetime) -> bool:
        """Forget the failures from here, where the owner is no stranger from now on.

        Those of strangers stay: it is not them who knew the password. That the origin is known is noted once
        a day, so that signing in again and again writes nothing: then there is nothing new, and False.
        """
        if not self.here.count and self.signed_in_at and now - self.signed_in_at < timedelta(days=1):
            return False
        self.here, self.signed_in_at = Failures(), now
        return True


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What proves an access token: an entry of the key set (RFC 7517). All are P-256 keys for ES256."""

    kid: str
    x: str
    y: str
