"""Who is calling, and may they? Decided from the policy that each method declares in its proto.

There are two kinds of callers. A service calls on its own behalf and proves itself by the SPIFFE id in its
client certificate; only methods that list it under `services` admit it. A user calls through the edge, which
passes on the user's token; `anyone`, `customer`, `staff` and `owner` say which users are admitted. One
alternative that matches is enough, and whatever is not declared is refused; so are guests, who have a token
but no account, unless the policy says `guests`.

Staff is admitted as such by its roles (`stoa_contracts.roles`). Who is staff of another kind is a customer
like any other: what a use case lets staff do, it lets those whom the method's policy admits as staff.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from operator import attrgetter
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from stoa.auth.v1 import policy_pb2
from stoa_chassis.errors import PermissionDenied
from stoa_chassis.ids import is_id, same_id
from stoa_chassis.status import CallContext
from stoa_chassis.tokens import TokenInvalid, TokenMissing, TokenVerifier
from stoa_contracts.declarations import EDGE
from stoa_contracts.roles import ADMIN, STAFF, STAFF_ROLES, is_admitted


class ContractError(Exception):
    """A method can't be served as it is declared; the message names it."""


class NotOwner(PermissionDenied):
    """The request names another user's things."""

    reason = "NOT_OWNER"


class StaffOnly(PermissionDenied):
    """Only staff may do this."""

    reason = "STAFF_ONLY"


class RoleNeeded(PermissionDenied):
    """Only staff with other roles than the caller's may do this."""

    reason = "ROLE_NEEDED"


class AccountNeeded(PermissionDenied):
    """Guests may not do this."""

    reason = "ACCOUNT_NEEDED"


class SubjectUnusable(PermissionDenied):
    """The token's issuer gives its users other ids than UUIDs, so nothing here can be theirs."""

    reason = "SUBJECT_UNUSABLE"


class ServiceNotAllowed(PermissionDenied):
    """The calling service is not one that the method lists."""

    reason = "SERVICE_NOT_ALLOWED"


class ServicesOnly(PermissionDenied):
    """The method is internal: no user may call it, with or without a token."""

    reason = "SERVICES_ONLY"


class PeerUnknown(PermissionDenied):
    """The connection does not say which workload is calling."""

    reason = "PEER_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller: a user (`subject`, `roles`), a service (`service`), or nobody known (all empty).

    `session_id` is that of the sign-in which a user's token goes back to, or "" if the issuer names none. A
    guest is a user without an account. `acts_as_staff` says that the called method's policy admits the user
    as staff, which not every policy does with all staff.
    """

    subject: str | None = None
    roles: frozenset[str] = frozenset()
    service: str | None = None
    session_id: str = ""
    is_guest: bool = False
    acts_as_staff: bool = False

    @property
    def is_staff(self) -> bool:
        """Tell whether the caller is a user with the role staff, of whatever kind."""
        return STAFF in self.roles

    @property
    def is_admin(self) -> bool:
        """Tell whether the caller is staff that may do all that any staff may."""
        return is_admitted(self.roles, frozenset({ADMIN}))

    @property
    def user_id(self) -> str:
        """Return the user's id, which is a UUID.

        Raises Unauthenticated if the caller is not a signed-in user, and SubjectUnusable if it is one of an
        issuer whose ids are no UUIDs.
        """
        if self.subject is None:
            raise TokenMissing("please sign in")
        if not is_id(self.subject):
            raise SubjectUnusable(
                "the subject of the token is not a UUID, as users of this shop have; please sign in with an "
                "account of the shop"
            )
        return self.subject

    @property
    def known_user(self) -> UUID | None:
        """Return the user's id if it is a user of ours: another issuer may name its users as it likes."""
        return UUID(self.subject) if self.subject is not None and is_id(self.subject) else None

    def is_user(self, user_id: str) -> bool:
        """Tell whether the caller is this user."""
        return self.subject is not None and same_id(self.subject, user_id)

    @property
    def key_namespace(self) -> str:
        """Return whose the idempotency keys are that the caller chooses.

        A key is stored with it, so that those of a service and those that people send never meet.
        """
        return f"service:{self.service}" if self.service is not None else "user"

    def may_act_for(self, user_id: str) -> bool:
        """Tell whether the caller may see and change what belongs to this user.

        True for the user, and for staff and services that the method's policy has admitted as such.
        """
        return self.service is not None or self.acts_as_staff or self.is_user(user_id)


NOBODY = Principal()
_principal: ContextVar[Principal] = ContextVar("stoa_principal", default=NOBODY)


def current_principal() -> Principal:
    """Return who makes the call that is being handled; NOBODY outside of a call."""
    return _principal.get()


@contextmanager
def acting_as(principal: Principal) -> Iterator[None]:
    """Let what is done within be done for a caller, as in a call that was admitted; for tests."""
    before = _principal.set(principal)
    try:
        yield
    finally:
        _principal.reset(before)


@dataclass(frozen=True, slots=True)
class Policy:
    """Whom one method admits: the option `stoa.auth.v1.policy`, ready for quick decisions."""

    anyone: bool
    customer: bool
    staff: bool
    owner: str
    services: frozenset[str]
    roles: frozenset[str] = frozenset()
    guests: bool = False

    @classmethod
    def of(cls, method: MethodDescriptor) -> "Policy":
        """Read the policy of a method. Raises ContractError if it has none or one that can't work."""
        options = method.GetOptions()
        declared = options.Extensions[policy_pb2.policy]
        policy = cls(
            declared.HasField("anyone"),
            declared.HasField("customer"),
            declared.HasField("staff"),
            declared.owner,
            frozenset(declared.services),
            frozenset(declared.staff.roles),
            declared.guests,
        )
        if not (policy.admits_users or policy.services):
            raise ContractError(f"{method.full_name} has no policy: declare option (stoa.auth.v1.policy)")
        if policy.owner and not _is_text_field(method.input_type, policy.owner):
            raise ContractError(
                f"{method.full_name}: policy owner {policy.owner!r} is not a string field of the request"
            )
        if unknown := policy.roles - STAFF_ROLES:
            raise ContractError(f"{method.full_name}: there is no role {min(unknown)!r} of staff")
        if EDGE in policy.services:
            raise ContractError(
                f"{method.full_name}: the edge speaks for users, it can't be listed as a service"
            )
        return policy

    @property
    def admits_users(self) -> bool:
        """Tell whether there are users who may call, rather than services alone."""
        return bool(self.anyone or self.customer or self.staff or self.owner)

    def admits_as_staff(self, roles: frozenset[str]) -> bool:
        """Tell whether a user with these roles is admitted as staff."""
        return self.staff and is_admitted(roles, self.roles)


# How the service at the other end of a connection is known, given the call and its metadata: its name, or
# None where connections carry no identity at all. Raises PeerUnknown where they should and this one does not.
PeerIdentity = Callable[[CallContext, Mapping[str, Any]], str | None]


def no_identity(_: CallContext, __: Mapping[str, Any]) -> None:
    """Plaintext without a sidecar: nobody can prove to be a service, so none is admitted."""


def certificate_identity(spiffe_prefix: str) -> PeerIdentity:
    """Know the peer by the SPIFFE id in the certificate that it showed us."""

    def identify(context: CallContext, _: Mapping[str, Any]) -> str:
        ids = context.auth_context().get("peer_spiffe_id", ())
        return _service_name(next(iter(ids), b"").decode(), spiffe_prefix)

    return identify


def sidecar_identity(spiffe_prefix: str) -> PeerIdentity:
    """Know the peer by the header in which our sidecar reports the certificate that it was shown."""

    def identify(_: CallContext, metadata: Mapping[str, Any]) -> str:
        # One element per hop, the nearest last; in it key=value pairs: By=…;Hash=…;URI=spiffe://…
        # The last comma is the sidecar's own, or one of a certificate's subject that it quotes before the
        # URI. To heed quotes would let a caller open one that hides what the sidecar has added.
        nearest = str(metadata.get("x-forwarded-client-cert", "")).rpartition(",")[2]
        uris = [pair[4:].strip('"') for pair in nearest.split(";") if pair[:4].upper() == "URI="]
        return _service_name(uris[0] if len(uris) == 1 else "", spiffe_prefix)

    return identify


class Authorizer:
    """Decides on each call."""

    def __init__(self, identify: PeerIdentity, verifier: TokenVerifier) -> None:
        self._identify = identify
        self._verifier = verifier

    async def admit(
        self,
        policy: Policy,
        context: CallContext,
        metadata: Mapping[str, Any],
    ) -> Principal:
        """Return who is calling, made current, unless the policy can't admit them whatever they ask.

        What depends on the request is left to `check_request`.
        Raises PermissionDenied, Unauthenticated, or Unavailable while tokens can't be checked.
        """
        peer = self._identify(context, metadata)
        if peer is not None and peer != EDGE:
            if peer not in policy.services:
                raise ServiceNotAllowed(f"the service {peer} may not call this")
            principal = Principal(service=peer)
        elif not policy.admits_users:
            raise ServicesOnly("only services may call this")
        else:
            principal = await self._user(policy, metadata.get("authorization"))
            if principal is NOBODY and not policy.anyone:
                raise TokenMissing("please sign in")
            if principal.is_guest and not (policy.guests or policy.anyone):
                raise AccountNeeded("this needs an account; please register or sign in")
        _principal.set(principal)
        return principal

    async def _user(self, policy: Policy, authorization: str | None) -> Principal:
        if authorization is None:
            return NOBODY
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise TokenInvalid("the authorization is not a bearer token")
        # A bad token is refused even where none is needed: the client believes to be somebody and is not.
        claims = await self._verifier.verify(token.strip())
        return Principal(
            claims.subject,
            claims.roles,
            session_id=claims.session_id,
            is_guest=claims.is_guest,
            acts_as_staff=policy.admits_as_staff(claims.roles),
        )


def check_request(policy: Policy, principal: Principal, request: Message) -> None:
    """Finish the decision, now that the request is known. Raises NotOwner, StaffOnly or RoleNeeded."""
    if policy.anyone or policy.customer or principal.service is not None or principal.acts_as_staff:
        return
    if not policy.owner:
        if principal.is_staff:
            raise RoleNeeded(f"only staff with the role {' or '.join(sorted(policy.roles))} may do this")
        raise StaffOnly("only staff may do this")
    if not principal.is_user(attrgetter(policy.owner)(request)):
        raise NotOwner(f"{policy.owner} is not yours")


def _service_name(spiffe_id: str, prefix: str) -> str:
    name = spiffe_id.removeprefix(prefix)
    if not name or name == spiffe_id or "/" in name:
        raise PeerUnknown("the caller has no identity in this mesh")
    return name


def _is_text_field(message: Descriptor, path: str) -> bool:
    *parents, last = path.split(".")
    current: Descriptor | None = message
    for name in parents:
        field = current.fields_by_name.get(name) if current else None
        current = field.message_type if field and not field.is_repeated else None
    field = current.fields_by_name.get(last) if current else None
    return field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated
