"""The gRPC servicers: messages to use cases and back."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from stoa.types.v1 import address_pb2
from stoa.user.v1 import user_pb2, user_pb2_grpc
from stoa_chassis.auth import current_principal
from stoa_chassis.errors import InvalidArgument
from stoa_chassis.ids import same_id
from stoa_chassis.paging import page
from stoa_chassis.timestamps import to_timestamp
from stoa_contracts.descriptors import read
from stoa_contracts.roles import STAFF
from stoa_user.model import (
    Address,
    AddressKind,
    PostalAddress,
    ProfileChange,
    PublicKey,
    RoleChange,
    Session,
    User,
)
from stoa_user.service import (
    Accounts,
    AddressBooks,
    Guests,
    Privacy,
    Recovery,
    Requester,
    Sessions,
    SignedIn,
    StaffRoles,
)

# Set by the edge alone, which drops what a client sends by these names.
_CLIENT_ADDRESS = "x-stoa-client-address"
_USER_AGENT = "x-stoa-user-agent"

_KIND_OF = {
    user_pb2.UserAddress.KIND_SHIPPING: AddressKind.SHIPPING,
    user_pb2.UserAddress.KIND_BILLING: AddressKind.BILLING,
}
_KIND_MESSAGE = {
    AddressKind.SHIPPING: user_pb2.UserAddress.KIND_SHIPPING,
    AddressKind.BILLING: user_pb2.UserAddress.KIND_BILLING,
}


class UserServicer(user_pb2_grpc.UserServiceServicer):
    """stoa.user.v1.UserService."""

    def __init__(
        self,
        accounts: Accounts,
        books: AddressBooks,
        sessions: Sessions,
        roles: StaffRoles,
        privacy: Privacy,
    ) -> None:
        self._accounts = accounts
        self._books = books
        self._sessions = sessions
        self._roles = roles
        self._privacy = privacy

    async def CreateUser(
        self, request: user_pb2.CreateUserRequest, context: Any
    ) -> user_pb2.CreateUserResponse:
        """Register an account."""
        user = await self._accounts.register(
            request.email,
            request.password,
            request.first_name,
            request.last_name,
            locale=request.locale or "en",
            guest_token=request.guest_token,
        )
        return user_pb2.CreateUserResponse(user=_user_message(user))

    async def GetUser(self, request: user_pb2.GetUserRequest, context: Any) -> user_pb2.GetUserResponse:
        """Read an account."""
        user_id = UUID(request.user_id)
        is_own = same_id(current_principal().subject or "", request.user_id)
        user = await (self._accounts.get(user_id) if is_own else self._accounts.look_up(user_id))
        return user_pb2.GetUserResponse(user=_user_message(user))

    async def UpdateUser(
        self, request: user_pb2.UpdateUserRequest, context: Any
    ) -> user_pb2.UpdateUserResponse:
        """Change the fields of an account that the request carries."""
        user = await self._accounts.change_profile(
            UUID(request.user_id),
            _profile_change(request),
            _requester(context),
            request.user.current_password,
            _new_password(request),
        )
        return user_pb2.UpdateUserResponse(user=_user_message(user))

    async def RequestEmailVerification(
        self, request: user_pb2.RequestEmailVerificationRequest, context: Any
    ) -> Empty:
        """Have the mail sent again that confirms an address."""
        await self._accounts.request_verification(UUID(request.user_id), _requester(context))
        return Empty()

    async def ListSessions(
        self, request: user_pb2.ListSessionsRequest, context: Any
    ) -> user_pb2.ListSessionsResponse:
        """List where one is signed in."""
        user_id = UUID(request.user_id)

        async def read(after: Mapping[str, Any], limit: int) -> Sequence[Session]:
            return await self._sessions.page(user_id, UUID(after["session_id"]) if after else None, limit)

        found = await page(request, {"user_id": user_id}, read, lambda last: {"session_id": last.session_id})
        return user_pb2.ListSessionsResponse(
            sessions=map(_session_message, found.items), next_page_token=found.next_page_token
        )

    async def RevokeSession(self, request: user_pb2.RevokeSessionRequest, context: Any) -> Empty:
        """End a session."""
        await self._sessions.revoke(UUID(request.user_id), UUID(request.session_id))
        return Empty()

    async def ExportUser(
        self, request: user_pb2.ExportUserRequest, context: Any
    ) -> user_pb2.ExportUserResponse:
        """Give out all that is kept here, and say where the rest is."""
        export = await self._privacy.export(UUID(request.user_id))
        return user_pb2.ExportUserResponse(
            user=_user_message(export.user),
            addresses=map(_address_message, export.addresses),
            sessions=map(_session_message, export.sessions),
            guest_ids=map(str, export.guest_ids),
            elsewhere=[path.format(user_id=export.user.user_id) for path in _kept_elsewhere()],
        )

    async def EraseUser(self, request: user_pb2.EraseUserRequest, context: Any) -> Empty:
        """Forget a person."""
        await self._privacy.erase(UUID(request.user_id), _requester(context), request.current_password)
        return Empty()

    async def GetUserRoles(
        self, request: user_pb2.GetUserRolesRequest, context: Any
    ) -> user_pb2.GetUserRolesResponse:
        """Read what an account may do as staff."""
        found = await self._roles.get(UUID(request.user_id))
        return user_pb2.GetUserRolesResponse(roles=_roles_message(*found))

    async def SetUserRoles(
        self, request: user_pb2.SetUserRolesRequest, context: Any
    ) -> user_pb2.SetUserRolesResponse:
        """Say what an account may do as staff."""
        changed = await self._roles.set(
            UUID(request.user_id),
            frozenset(request.roles),
            request.reason,
            UUID(current_principal().user_id),
        )
        return user_pb2.SetUserRolesResponse(roles=_roles_message(*changed))

    async def ListStaff(self, request: user_pb2.ListStaffRequest, context: Any) -> user_pb2.ListStaffResponse:
        """List the accounts of staff."""

        async def read(after: Mapping[str, Any], limit: int) -> Sequence[User]:
            return await self._roles.staff(UUID(after["user_id"]) if after else None, limit)

        found = await page(request, {}, read, lambda last: {"user_id": last.user_id})
        return user_pb2.ListStaffResponse(
            staff=map(_user_message, found.items), next_page_token=found.next_page_token
        )

    async def ListAddresses(
        self, request: user_pb2.ListAddressesRequest, context: Any
    ) -> user_pb2.ListAddressesResponse:
        """List the addresses of an account."""
        user_id = UUID(request.user_id)

        async def read(after: Mapping[str, Any], limit: int) -> Sequence[Address]:
            place = (after["is_default"], UUID(after["address_id"])) if after else None
            return await self._books.page(user_id, place, limit)

        found = await page(
            request,
            {"user_id": user_id},
            read,
            lambda last: {"is_default": last.is_default, "address_id": last.address_id},
        )
        return user_pb2.ListAddressesResponse(
            addresses=map(_address_message, found.items), next_page_token=found.next_page_token
        )

    async def GetAddress(
        self, request: user_pb2.GetAddressRequest, context: Any
    ) -> user_pb2.GetAddressResponse:
        """Read one address for a service that ships or bills to it."""
        address = await self._books.get(UUID(request.user_id), UUID(request.address_id))
        return user_pb2.GetAddressResponse(address=_postal_message(address.postal))

    async def CreateAddress(
        self, request: user_pb2.CreateAddressRequest, context: Any
    ) -> user_pb2.CreateAddressResponse:
        """Add an address."""
        sent = request.address
        address = await self._books.add(
            UUID(request.user_id),
            _KIND_OF.get(sent.kind, AddressKind.SHIPPING),
            _postal(sent),
            as_default=sent.is_default,
        )
        return user_pb2.CreateAddressResponse(address=_address_message(address))

    async def UpdateAddress(
        self, request: user_pb2.UpdateAddressRequest, context: Any
    ) -> user_pb2.UpdateAddressResponse:
        """Replace an address."""
        sent = request.address
        address = await self._books.replace(
            UUID(request.user_id),
            UUID(request.address_id),
            _KIND_OF.get(sent.kind),
            _postal(sent),
            as_default=sent.is_default,
        )
        return user_pb2.UpdateAddressResponse(address=_address_message(address))

    async def DeleteAddress(self, request: user_pb2.DeleteAddressRequest, context: Any) -> Empty:
        """Remove an address."""
        await self._books.remove(UUID(request.user_id), UUID(request.address_id))
        return Empty()


class AuthServicer(user_pb2_grpc.AuthServiceServicer):
    """stoa.user.v1.AuthService."""

    def __init__(self, accounts: Accounts, sessions: Sessions, guests: Guests, recovery: Recovery) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._guests = guests
        self._recovery = recovery

    async def Login(self, request: user_pb2.LoginRequest, context: Any) -> user_pb2.LoginResponse:
        """Exchange email and password for tokens."""
        signed_in = await self._sessions.sign_in(
            request.email,
            request.password,
            _client_address(context),
            user_agent=_sent_by_the_edge(context, _USER_AGENT),
            guest_token=request.guest_token,
        )
        return user_pb2.LoginResponse(tokens=_tokens_message(signed_in))

    async def CreateGuest(
        self, request: user_pb2.CreateGuestRequest, context: Any
    ) -> user_pb2.CreateGuestResponse:
        """Give tokens to a guest."""
        signed_in = await self._guests.welcome(_client_address(context))
        return user_pb2.CreateGuestResponse(tokens=_tokens_message(signed_in))

    async def RequestPasswordReset(
        self, request: user_pb2.RequestPasswordResetRequest, context: Any
    ) -> Empty:
        """Mail what a new password can be set with."""
        await self._recovery.request(request.email, _client_address(context))
        return Empty()

    async def ConfirmPasswordReset(
        self, request: user_pb2.ConfirmPasswordResetRequest, context: Any
    ) -> Empty:
        """Set a new password with what was mailed."""
        await self._recovery.confirm(request.token, request.password, _client_address(context))
        return Empty()

    async def ConfirmEmail(self, request: user_pb2.ConfirmEmailRequest, context: Any) -> Empty:
        """Confirm an address with what was mailed to it."""
        await self._accounts.confirm_email(request.token)
        return Empty()

    async def Refresh(self, request: user_pb2.RefreshRequest, context: Any) -> user_pb2.RefreshResponse:
        """Exchange a refresh token for new tokens."""
        signed_in = await self._sessions.refresh(request.refresh_token)
        return user_pb2.RefreshResponse(tokens=_tokens_message(signed_in))

    async def Logout(self, request: user_pb2.LogoutRequest, context: Any) -> Empty:
        """End the session of a refresh token."""
        await self._sessions.sign_out(request.refresh_token)
        return Empty()

    async def GetJwks(self, request: user_pb2.GetJwksRequest, context: Any) -> user_pb2.GetJwksResponse:
        """Publish the keys that prove a token."""
        return user_pb2.GetJwksResponse(keys=map(_jwk_message, self._sessions.public_keys))


def _uuid(text: str) -> UUID | None:
    """Read an id that another issuer than ours may have given, and then is of nothing here."""
    try:
        return UUID(text)
    except ValueError:
        return None


def _requester(context: Any) -> Requester:
    """Who asks for a change."""
    caller = current_principal()
    return Requester(
        _uuid(caller.subject or ""), _uuid(caller.session_id), _client_address(context), caller.is_admin
    )


def _client_address(context: Any) -> str:
    """The network address of the client in front of the edge; "" if it is not known."""
    return _sent_by_the_edge(context, _CLIENT_ADDRESS)


def _sent_by_the_edge(context: Any, header: str) -> str:
    return str(dict(context.invocation_metadata() or ()).get(header, ""))


@cache
def _kept_elsewhere() -> tuple[str, ...]:
    """The paths at which other services show a user what they keep, as the contracts have them.

    Whatever a user alone may read by the own id is kept of the user.
    """
    return tuple(
        sorted(
            rpc.route.path
            for rpc in read().rpcs
            if rpc.service != "user"
            and rpc.policy is not None
            and rpc.policy.owner == "user_id"
            and rpc.route is not None
            and (rpc.route.verb, rpc.route.variables) == ("GET", ("user_id",))
        )
    )


def _profile_change(request: user_pb2.UpdateUserRequest) -> ProfileChange:
    """Return what to change: the fields of the mask, or without one those that are set."""
    known = request.user.DESCRIPTOR.fields_by_name
    sent = {field.name: value for field, value in request.user.ListFields()}
    changes: dict[str, str] = {}
    for name in request.update_mask.paths or sent:
        if name in ("current_password", "password"):
            continue  # proves who asks, and is no part of the profile
        if name not in known:
            raise InvalidArgument("update_mask", f"{name} can't be changed")
        if name not in sent:
            raise InvalidArgument(f"user.{name}", "is in update_mask but was not sent")
        changes[name] = sent[name]
    return ProfileChange(**changes)


def _new_password(request: user_pb2.UpdateUserRequest) -> str:
    """The password to set; "" if it stays."""
    mask = request.update_mask.paths
    return request.user.password if not mask or "password" in mask else ""


def _postal(sent: user_pb2.UserAddress) -> PostalAddress:
    return PostalAddress(
        recipient=sent.recipient,
        line1=sent.line1,
        line2=sent.line2,
        city=sent.city,
        region=sent.region,
        postal_code=sent.postal_code,
        country=sent.country,
    )


def _user_message(user: User) -> user_pb2.User:
    return user_pb2.User(
        user_id=str(user.user_id),
        email=user.email,
        first_name=user.first_name,
        last_name=user.last_name,
        created_at=to_timestamp(user.created_at),
        updated_at=to_timestamp(user.updated_at),
        locale=user.locale,
        email_verified=user.email_verified,
        pending_email=user.pending_email,
        roles=_kinds_of_staff(user.roles),
    )


def _kinds_of_staff(roles: frozenset[str]) -> list[str]:
    """What staff may do; that it is staff goes without saying."""
    return sorted(roles - {STAFF})


def _session_message(session: Session) -> user_pb2.Session:
    return user_pb2.Session(
        session_id=str(session.session_id),
        created_at=to_timestamp(session.created_at) if session.created_at else None,
        last_used_at=to_timestamp(session.last_used_at) if session.last_used_at else None,
        expires_at=to_timestamp(session.expires_at),
        device=session.device,
        network=session.network,
        current=same_id(str(session.session_id), current_principal().session_id),
    )


def _roles_message(user: User, changes: Sequence[RoleChange]) -> user_pb2.UserRoles:
    return user_pb2.UserRoles(
        user_id=str(user.user_id),
        roles=_kinds_of_staff(user.roles),
        changes=[
            user_pb2.RoleChange(
                changed_by=str(change.changed_by or ""),
                before=_kinds_of_staff(change.before),
                after=_kinds_of_staff(change.after),
                reason=change.reason,
                at=to_timestamp(change.at),
            )
            for change in changes
        ],
    )


def _address_message(address: Address) -> user_pb2.UserAddress:
    postal = address.postal
    return user_pb2.UserAddress(
        address_id=str(address.address_id),
        kind=_KIND_MESSAGE[address.kind],
        is_default=address.is_default,
        recipient=postal.recipient,
        line1=postal.line1,
        line2=postal.line2,
        city=postal.city,
        region=postal.region,
        postal_code=postal.postal_code,
        country=postal.country,
    )


def _postal_message(postal: PostalAddress) -> address_pb2.Address:
    return address_pb2.Address(
        recipient=postal.recipient,
        line1=postal.line1,
        line2=postal.line2,
        city=postal.city,
        region=postal.region,
        postal_code=postal.postal_code,
        country=postal.country,
    )


def _tokens_message(signed_in: SignedIn) -> user_pb2.Tokens:
    return user_pb2.Tokens(
        access_token=signed_in.access_token,
        refresh_token=signed_in.refresh_token,
        token_type="Bearer",
        expires_in=int(signed_in.lifetime.total_seconds()),
    )


def _jwk_message(key: PublicKey) -> user_pb2.Jwk:
    return user_pb2.Jwk(kty="EC", use="sig", alg="ES256", kid=key.kid, crv="P-256", x=key.x, y=key.y)
