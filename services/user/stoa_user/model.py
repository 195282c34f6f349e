"""Accounts, guests, address books, sessions, mailed tokens and tries to sign in, and the rules they keep."""

import hashlib
import hmac
import math
import re
from base64 import urlsafe_b64encode
from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from typing import Any, Self
from uuid import UUID

from stoa_chassis.emails import email_key, valid_email
from stoa_chassis.errors import (
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)
from stoa_chassis.ids import new_id
from stoa_contracts.roles import ADMIN, STAFF, is_admitted
from stoa_events import (
    UserEmailChangeRequested,
    UserEmailVerificationRequested,
    UserEmailVerified,
    UserErased,
    UserGuestMerged,
    UserPasswordChanged,
    UserPasswordResetRequested,
    UserProfileUpdated,
    UserRegistered,
)

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


class SessionNotFound(NotFound):
    """The account has no such session."""

    reason = "SESSION_NOT_FOUND"


class StaffProtected(PermissionDenied):
    """Whoever could change how staff signs in could become it: only an admin may, and the owner."""

    reason = "STAFF_PROTECTED"

    def __init__(self) -> None:
        super().__init__("only an admin may change the account of staff")


class LastAdmin(FailedPrecondition):
    """Without an admin nobody could make one."""

    reason = "LAST_ADMIN"

    def __init__(self) -> None:
        super().__init__("this is the last admin; please make another account one first")


class NotAnAdminAnyMore(PermissionDenied):
    """Who was an admin when the token was given out is none now."""

    reason = "NOT_AN_ADMIN_ANY_MORE"

    def __init__(self) -> None:
        super().__init__("only an admin may change what staff may do, and you are none any more")


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


class TooManyRequests(ResourceExhausted):
    """The same was asked for too often, by one account or from one origin."""

    reason = "TOO_MANY_REQUESTS"


class InvalidMailedToken(InvalidArgument):
    """The token of a mail is unknown, used, expired or superseded. Never says which."""

    def __init__(self) -> None:
        super().__init__("token", "is not good any more; please ask for another mail")


class InvalidGuestToken(InvalidArgument):
    """The guest's token is none of a guest, or is not good any more."""

    def __init__(self) -> None:
        super().__init__("guest_token", "is not that of a guest, or has expired")


class GuestMerged(FailedPrecondition):
    """What the guest had is another account's already."""

    reason = "GUEST_MERGED"

    def __init__(self) -> None:
        merged = "is of a guest who has another account already"
        super().__init__(f"guest_token: {merged}", violations=(FieldViolation("guest_token", merged),))


class CurrentPasswordNeeded(InvalidArgument):
    """Only who knows the password may change how an account is signed in to."""

    def __init__(self) -> None:
        super().__init__("current_password", "is needed to change the email address or the password")


class EmailVerified(FailedPrecondition):
    """There is no address to be confirmed."""

    reason = "EMAIL_VERIFIED"

    def __init__(self) -> None:
        super().__init__("the email address is confirmed already")


class PasswordOfAnother(InvalidArgument):
    """Nobody sets the password of another: its owner does, or gets a mail to set it with."""

    def __init__(self) -> None:
        super().__init__("password", "can be set by the owner of the account alone")


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
    locale: str | None = None


UserEvent = (
    UserRegistered
    | UserProfileUpdated
    | UserEmailChangeRequested
    | UserEmailVerified
    | UserPasswordChanged
    | UserErased
)


@dataclass(slots=True, kw_only=True)
class User:
    """An account.

    `verified_email` is the address at which its owner was shown to read mail; it was another once, if it is
    not `email`. `pending_email` takes the place of `email` when it is confirmed; "" if none waits.
    """

    user_id: UUID
    email: str
    password_hash: str = field(repr=False)
    first_name: str
    last_name: str
    locale: str = "en"
    verified_email: str = ""
    pending_email: str = ""
    roles: frozenset[str]
    created_at: datetime
    updated_at: datetime
    erased_at: datetime | None = None
    events: list[UserEvent] = field(default_factory=list, compare=False)

    @classmethod
    def register(
        cls,
        *,
        email: str,
        password_hash: str,
        first_name: str,
        last_name: str,
        locale: str = "en",
        now: datetime,
    ) -> Self:
        """Open an account. Raises InvalidArgument if the email is none."""
        user = cls(
            user_id=new_id(),
            email=valid_email(email),
            password_hash=password_hash,
            first_name=first_name,
            last_name=last_name,
            locale=locale,
            roles=frozenset(),
            created_at=now,
            updated_at=now,
        )
        user.events.append(
            UserRegistered(
                user_id=user.user_id,
                email=user.email,
                first_name=user.first_name,
                last_name=user.last_name,
                locale=user.locale,
            )
        )
        return user

    @property
    def email_verified(self) -> bool:
        """Tell whether its owner was shown to read mail at the address that it has."""
        return email_key(self.verified_email) == email_key(self.email)

    def moves_to(self, email: str | None) -> bool:
        """Tell whether this would be another email address; None, or the own in other capitals, is not."""
        return email is not None and email_key(email) != email_key(self.email)

    def change_profile(self, change: ProfileChange, now: datetime) -> None:
        """Take the new values. A change that changes nothing leaves no trace.

        Another email waits until it is confirmed, and the owner is told at the one of now; naming the one of
        now takes that back.

        Raises InvalidArgument if the email is none.
        """
        new = {f.name: value for f in fields(change) if (value := getattr(change, f.name)) is not None}
        if "email" in new:
            new["email"] = valid_email(new["email"])
            if self.moves_to(new["email"]):
                self._wait_for(new.pop("email"), now)
            elif self.pending_email:
                self.pending_email, self.updated_at = "", now
        if all(getattr(self, name) == value for name, value in new.items()):
            return
        for name, value in new.items():
            setattr(self, name, value)
        self._updated(now)

    def confirm_email(self, email: str, now: datetime) -> bool:
        """Take note that mail to an address reaches the owner; True if it has become the account's.

        Raises InvalidMailedToken if it is neither that of the account nor the one that waits.
        """
        key = email_key(email)
        moves = bool(self.pending_email) and key == email_key(self.pending_email)
        if moves:
            self.email, self.pending_email = self.pending_email, ""
            self._updated(now)
        elif key != email_key(self.email):
            raise InvalidMailedToken
        if not self.email_verified:
            self.verified_email = self.email
            self.updated_at = now
            self.events.append(UserEmailVerified(user_id=self.user_id, email=self.email))
        return moves

    def _wait_for(self, email: str, now: datetime) -> None:
        if email == self.pending_email:
            return
        self.pending_email, self.updated_at = email, now
        self.events.append(
            UserEmailChangeRequested(
                user_id=self.user_id, email=self.email, first_name=self.first_name, locale=self.locale
            )
        )

    def _updated(self, now: datetime) -> None:
        self.updated_at = now
        self.events.append(
            UserProfileUpdated(
                user_id=self.user_id,
                email=self.email,
                first_name=self.first_name,
                last_name=self.last_name,
                locale=self.locale,
            )
        )

    @property
    def is_staff(self) -> bool:
        """Tell whether it is the account of staff, of whatever kind."""
        return STAFF in self.roles

    @property
    def is_admin(self) -> bool:
        """Tell whether it may do all that any staff may."""
        return is_admitted(self.roles, frozenset({ADMIN}))

    def set_roles(self, roles: Collection[str], now: datetime) -> None:
        """Let the account do as staff what these roles say, and nothing else; none: it is a customer's."""
        self.roles = frozenset({STAFF, *roles}) if roles else frozenset()
        self.updated_at = now

    def change_password(self, password_hash: str, now: datetime) -> None:
        """Take the hash of a new password, and tell the owner."""
        self.password_hash = password_hash
        self.updated_at = now
        self.events.append(
            UserPasswordChanged(
                user_id=self.user_id, email=self.email, first_name=self.first_name, locale=self.locale
            )
        )

    def has_changed_password_since(self, then: "User") -> bool:
        """Tell whether its password is another than it was; a stronger hash of the same is none."""
        return self.password_hash != then.password_hash and self.updated_at != then.updated_at

    def recover(self, password_hash: str, email: str, now: datetime) -> None:
        """Take the hash of a new password from somebody who was shown to read mail at an address.

        Another address that waited is forgotten: whoever knew the old password may have named it.
        """
        self.pending_email = ""
        self.confirm_email(email, now)
        self.change_password(password_hash, now)

    def erase(self, now: datetime) -> None:
        """Forget the person. What is left says that there was an account, and since when."""
        self.email = f"erased:{self.user_id}"  # no address, so nobody can have or take it
        self.password_hash = self.first_name = self.last_name = self.verified_email = self.pending_email = ""
        self.locale = "en"
        self.roles = frozenset()
        self.updated_at = self.erased_at = now
        self.events.append(UserErased(user_id=self.user_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleChange:
    """That an account got other roles as staff: what auditors ask for. `changed_by` is None if the shop's
    settings named it as the admin."""

    user_id: UUID
    changed_by: UUID | None
    before: frozenset[str]
    after: frozenset[str]
    reason: str
    at: datetime

    @property
    def leaves_an_admin(self) -> bool:
        """Tell whether the account was one of an admin after it."""
        return is_admitted(self.after, frozenset({ADMIN}))


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
        kind: AddressKind | None,
        postal: PostalAddress,
        *,
        as_default: bool,
        now: datetime,
    ) -> Address:
        """Replace an address; without a kind it keeps its own.

        A default of a kind stays one until another takes its place.

        Raises AddressNotFound.
        """
        old = self._get(address_id)
        kind = kind or old.kind
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
    """Return the SHA-256 of a token: what is stored, so that a stolen table opens nothing.

    A plain hash is enough because a token has 256 random bits; a password has not (see `passwords.py`).
    """
    return hashlib.sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How long one may stay signed in."""

    idle: timedelta = timedelta(days=30)
    longest: timedelta = timedelta(days=90)
    guest: timedelta = timedelta(days=30)
    """How long a guest is one."""
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


@dataclass(frozen=True, slots=True)
class Client:
    """What somebody signs in with: from which network address, and what the program says of itself."""

    address: str = ""
    user_agent: str = ""

    @property
    def device(self) -> str:
        """What its owner would call it: `Firefox on Linux`. "" if nothing is known."""
        program = next((name for name, mark in _PROGRAMS if mark in self.user_agent), "")
        if not program and (word := _WORD.match(self.user_agent)):
            program = word[0]
        system = next((name for name, mark in _SYSTEMS if mark in self.user_agent), "")
        return f"{program} on {system}" if program and system else program or system

    @property
    def network(self) -> str:
        """The part of the network, without the last part of the address. "" if it is not known."""
        try:
            ip = ip_address(self.address)
        except ValueError:
            return ""
        if isinstance(ip, IPv6Address):
            if ip.ipv4_mapped is None:
                return f"{IPv6Address(int(ip) >> 80 << 80)}/48"
            ip = ip.ipv4_mapped
        return f"{str(ip).rpartition('.')[0]}.x"


# In the order in which they are looked for: browsers claim to be those that came before them.
_PROGRAMS = (
    ("Edge", "Edg"),
    ("Opera", "OPR/"),
    ("Samsung Internet", "SamsungBrowser/"),
    ("Firefox", "Firefox/"),
    ("Firefox", "FxiOS/"),
    ("Chrome", "Chrome/"),
    ("Chrome", "CriOS/"),
    ("Safari", "Safari/"),
)
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("macOS", "Mac OS X"),
    ("ChromeOS", "CrOS"),
    ("Linux", "Linux"),
)
_WORD = re.compile(r"[A-Za-z][\w.-]{0,39}", re.ASCII)


@dataclass(slots=True)
class Session:
    """A family of refresh tokens: what began with one sign-in and ends for all of them at once.

    A guest's has the guest's id as `user_id`. When it began, and with what, is not known of the oldest.
    """

    session_id: UUID
    user_id: UUID
    expires_at: datetime
    revoked_at: datetime | None = None
    is_guest: bool = False
    created_at: datetime | None = None
    last_used_at: datetime | None = None
    device: str = ""
    network: str = ""

    @classmethod
    def start(cls, user_id: UUID, policy: SessionPolicy, now: datetime, client: Client = Client()) -> Self:
        """Begin a session at a sign-in."""
        return cls(
            new_id(),
            user_id,
            now + policy.longest,
            created_at=now,
            last_used_at=now,
            device=client.device,
            network=client.network,
        )

    @classmethod
    def start_guest(cls, policy: SessionPolicy, now: datetime) -> Self:
        """Begin the session of a new guest, of whom nothing else is kept."""
        return cls(new_id(), new_id(), now + policy.guest, is_guest=True, created_at=now, last_used_at=now)

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
        self.last_used_at = now
        return True

    def is_proven_by(self, token: RefreshToken | None, policy: SessionPolicy, now: datetime) -> bool:
        """Tell whether a token shows that its bearer is signed in; None: an access token has done so."""
        if self.revoked_at is not None or now >= self.expires_at:
            return False
        if token is None:
            return True
        return now < token.expires_at and (token.used_at is None or now - token.used_at <= policy.grace)

    def revoke(self, now: datetime) -> None:
        """End the session. Where it was is of no use any more."""
        self.revoked_at = self.revoked_at or now
        self.device = self.network = ""


@dataclass(slots=True)
class GuestMerge:
    """That a guest has become the owner of an account: what was the guest's is theirs, once and for all."""

    guest_id: UUID
    user_id: UUID
    merged_at: datetime
    events: list[UserGuestMerged] = field(default_factory=list, compare=False)

    @classmethod
    def into(cls, user_id: UUID, guest_id: UUID, now: datetime) -> Self:
        """Let an account have what a guest had."""
        merge = cls(guest_id, user_id, now)
        merge.events.append(UserGuestMerged(user_id=user_id, guest_id=guest_id))
        return merge


class Purpose(StrEnum):
    """What a mailed token is good for."""

    RESET_PASSWORD = "reset_password"
    CONFIRM_EMAIL = "confirm_email"


@dataclass(frozen=True, slots=True)
class MailPolicy:
    """How long mailed tokens are good, and how many that are good an account may have.

    While it has that many nobody gets another mail sent: her mailbox holds links that work. So whoever asks
    in her name can neither fill the mailbox nor keep her from a link.
    """

    reset: timedelta = timedelta(minutes=30)
    confirm: timedelta = timedelta(days=3)
    resets: int = 3
    confirmations: int = 10

    def lifetime(self, purpose: Purpose) -> timedelta:
        """How long a token for this is good."""
        return self.reset if purpose is Purpose.RESET_PASSWORD else self.confirm

    def live(self, purpose: Purpose) -> int:
        """How many for this may be good at a time."""
        return self.resets if purpose is Purpose.RESET_PASSWORD else self.confirmations


@dataclass(slots=True)
class MailedToken:
    """What shows, once, that somebody reads the mail of an address. Kept as a digest until it is used.

    `session_id` is the session in which it was asked for, None if in none of the account.
    """

    digest: bytes = field(repr=False)
    user_id: UUID
    purpose: Purpose
    email: str
    session_id: UUID | None
    expires_at: datetime
    events: list[UserPasswordResetRequested | UserEmailVerificationRequested] = field(
        default_factory=list, compare=False
    )

    @classmethod
    def issue(
        cls,
        secret: str,
        purpose: Purpose,
        user: User,
        policy: MailPolicy,
        now: datetime,
        session_id: UUID | None = None,
    ) -> Self:
        """Make one for an account, and have it mailed: to the address that it has, or waits for."""
        is_reset = purpose is Purpose.RESET_PASSWORD
        email = user.email if is_reset else user.pending_email or user.email
        expires_at = now + policy.lifetime(purpose)
        token = cls(digest(secret), user.user_id, purpose, email, session_id, expires_at)
        mail: dict[str, Any] = {
            "user_id": user.user_id,
            "email": email,
            "first_name": user.first_name,
            "locale": user.locale,
            "token": secret,
            "expires_at": expires_at,
        }
        token.events.append(
            UserPasswordResetRequested(**mail) if is_reset else UserEmailVerificationRequested(**mail)
        )
        return token


class Limited(StrEnum):
    """What is counted by the origin that asks for it."""

    GUEST = "guest"
    PASSWORD_RESET = "password_reset"


@dataclass(frozen=True, slots=True)
class Quota:
    """How often something may be asked for from one origin."""

    most: int
    within: timedelta = timedelta(hours=1)


@dataclass(slots=True)
class Requests:
    """How often something was asked for from one origin since a time."""

    since: datetime
    count: int = 0

    def add(self, quota: Quota, now: datetime) -> None:
        """Count a request. Raises TooManyRequests if there were enough."""
        if now - self.since >= quota.within:
            self.since, self.count = now, 0
        if self.count >= quota.most:
            wait = timedelta(seconds=math.ceil((self.since + quota.within - now).total_seconds()))
            raise TooManyRequests("that was asked for too often; please try again later", retry_after=wait)
        self.count += 1


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
