"""Who is calling, and may they? Decided from the policy that each method declares in its proto.

There are two kinds of callers. A service calls on its own behalf and proves itself by the SPIFFE id in its
client certificate; only methods that list it under `services` admit it. A user calls through the edge, which
passes on the user's token; `anyone`, `customer`, `staff` and `owner` say which users are admitted. One
alternative that matches is enough, and whatever is not declared is refused.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from stoa.auth.v1 import policy_pb2
from stoa_chassis.errors import PermissionDenied
from stoa_chassis.ids import same_id
from stoa_chassis.status import CallContext
from stoa_chassis.tokens import TokenInvalid, TokenMissing, TokenVerifier

STAFF = "staff"
EDGE = "edge"


class ContractError(Exception):
    """A method can't be served as it is declared; the message names it."""


class NotOwner(PermissionDenied):
    """The request names another user's things."""

    reason = "NOT_OWNER"


class StaffOnly(PermissionDenied):
    """Only staff may do this."""

    reason = "STAFF_ONLY"


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

    `session_id` is that of the sign-in which a user's token goes back to, or "" if the issuer names none.
    """

    subject: str | None = None
    roles: frozenset[str] = frozenset()
    service: str | None = None
    session_id: str = ""

    @property
    def is_staff(self) -> bool:
        """Tell whether the caller is a user with the role staff."""
        return STAFF in self.roles

    @property
    def user_id(self) -> str:
        """Return the user's id. Raises Unauthenticated if the caller is not a signed-in user."""
        if self.subject is None:
            raise TokenMissing("please sign in")
        return self.subject

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

        True for the user, for staff, and for a service, which the method's policy has admitted by name.
        """
        return self.service is not None or self.is_staff or self.is_user(user_id)


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
        )
        if not (policy.admits_users or policy.services):
            raise ContractError(f"{method.full_name} has no policy: declare option (stoa.auth.v1.policy)")
        if policy.owner and not _is_text_field(method.input_type, policy.owner):
            raise ContractError(
                f"{method.full_name}: policy owner {policy.owner!r} is not a string field of the request"
            )
        if EDGE in policy.services:
            raise ContractError(
                f"{method.full_name}: the edge speaks for users, it can't be listed as a service"
            )
        return policy

    @property
    def admits_users(self) -> bool:
        """Tell whether there are users who may call, rather than services alone."""
        return bool(self.anyone or self.customer or self.staff or self.owner)


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
            principal = await self._user(metadata.get("authorization"))
            if principal is NOBODY and not policy.anyone:
                raise TokenMissing("please sign in")
        _principal.set(principal)
        return principal

    async def _user(self, authorization: str | None) -> Principal:
        if authorization is None:
            return NOBODY
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise TokenInvalid("the authorization is not a bearer token")
        # A bad token is refused even where none is needed: the client believes to be somebody and is not.
        claims = await self._verifier.verify(token.strip())
        return Principal(claims.subject, claims.roles, session_id=claims.session_id)


def check_request(policy: Policy, principal: Principal, request: Message) -> None:
    """Finish the decision, now that the request is known. Raises NotOwner or StaffOnly."""
    if policy.anyone or policy.customer or principal.service is not None:
        return
    if policy.staff and principal.is_staff:
        return
    if not policy.owner:
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
