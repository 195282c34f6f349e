"""The gRPC servicers: messages to use cases and back."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from stoa.types.v1 import address_pb2
from stoa.user.v1 import user_pb2, user_pb2_grpc
from stoa_chassis.auth import current_principal
from stoa_chassis.errors import InvalidArgument
from stoa_chassis.paging import page
from stoa_chassis.timestamps import to_timestamp
from stoa_user.model import Address, AddressKind, PostalAddress, ProfileChange, PublicKey, User
from stoa_user.service import Accounts, AddressBooks, Requester, Sessions, SignedIn

# Set by the edge alone, which drops what a client sends by this name.
_CLIENT_ADDRESS = "x-stoa-client-address"

_KIND_OF = {
    user_pb2.UserAddress.KIND_UNSPECIFIED: AddressKind.SHIPPING,
    user_pb2.UserAddress.KIND_SHIPPING: AddressKind.SHIPPING,
    user_pb2.UserAddress.KIND_BILLING: AddressKind.BILLING,
}
_KIND_MESSAGE = {
    AddressKind.SHIPPING: user_pb2.UserAddress.KIND_SHIPPING,
    AddressKind.BILLING: user_pb2.UserAddress.KIND_BILLING,
}


class UserServicer(user_pb2_grpc.UserServiceServicer):
    """stoa.user.v1.UserService."""

    def __init__(self, accounts: Accounts, books: AddressBooks) -> None:
        self._accounts = accounts
        self._books = books

    async def CreateUser(
        self, request: user_pb2.CreateUserRequest, context: Any
    ) -> user_pb2.CreateUserResponse:
        """Register an account."""
        user = await self._accounts.register(
            request.email, request.password, request.first_name, request.last_name
        )
        return user_pb2.CreateUserResponse(user=_user_message(user))

    async def GetUser(self, request: user_pb2.GetUserRequest, context: Any) -> user_pb2.GetUserResponse:
        """Read an account."""
        user = await self._accounts.get(UUID(request.user_id))
        return user_pb2.GetUserResponse(user=_user_message(user))

    async def UpdateUser(
        self, request: user_pb2.UpdateUserRequest, context: Any
    ) -> user_pb2.UpdateUserResponse:
        """Change the fields of an account that the request carries."""
        caller = current_principal()
        requester = Requester(_uuid(caller.subject or ""), _uuid(caller.session_id), _client_address(context))
        user = await self._accounts.change_profile(
            UUID(request.user_id), _profile_change(request), requester, request.user.current_password
        )
        return user_pb2.UpdateUserResponse(user=_user_message(user))

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
            UUID(request.user_id), _KIND_OF[sent.kind], _postal(sent), as_default=sent.is_default
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
            _KIND_OF[sent.kind],
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

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def Login(self, request: user_pb2.LoginRequest, context: Any) -> user_pb2.LoginResponse:
        """Exchange email and password for tokens."""
        signed_in = await self._sessions.sign_in(request.email, request.password, _client_address(context))
        return user_pb2.LoginResponse(tokens=_tokens_message(signed_in))

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


def _client_address(context: Any) -> str:
    """The network address of the client in front of the edge; "" if it is not known."""
    return str(dict(context.invocation_metadata() or ()).get(_CLIENT_ADDRESS, ""))


def _profile_change(request: user_pb2.UpdateUserRequest) -> ProfileChange:
    """Return what to change: the fields of the mask, or without one those that are set."""
    known = request.user.DESCRIPTOR.fields_by_name
    sent = {field.name: value for field, value in request.user.ListFields()}
    changes: dict[str, str] = {}
    for name in request.update_mask.paths or sent:
        if name == "current_password":
            continue  # proves who asks, and is no part of the account
        if name not in known:
            raise InvalidArgument("update_mask", f"{name} can't be changed")
        if name not in sent:
            raise InvalidArgument(f"user.{name}", "is in update_mask but has no value")
        changes[name] = sent[name]
    return ProfileChange(**changes)


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
