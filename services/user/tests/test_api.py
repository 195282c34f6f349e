"""What callers get over gRPC, with the policies and constraints of the contract, on a store in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields as fields_of
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import jwt
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from stoa.user.v1 import user_pb2, user_pb2_grpc
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.memory import MemoryStore
from stoa_chassis.testing import InProcessServer, serve_in_process
from stoa_chassis.timestamps import to_timestamp
from stoa_events import UserGuestMerged
from stoa_user.api import AuthServicer, UserServicer
from stoa_user.model import Address, PostalAddress, Purpose, User
from stoa_user.passwords import Argon2Passwords
from stoa_user.testing import Profiles, Rows
from stoa_user.tokens import JwtIssuer

from .conftest import PASSWORD, Store, UserService, a_user, an_address, new_email

ADDRESS: dict[str, Any] = {
    "recipient": "Ann Lee",
    "line1": "1 Elm Street",
    "city": "Boston",
    "region": "MA",
    "postal_code": "02108",
    "country": "US",
}


@pytest.fixture
async def server(service: UserService) -> AsyncIterator[InProcessServer]:
    """The user service as it is served."""
    async with served(service) as running:
        yield running


@asynccontextmanager
async def served(service: UserService) -> AsyncIterator[InProcessServer]:
    def add(_: object, to: grpc.aio.Server) -> None:
        user_pb2_grpc.add_UserServiceServicer_to_server(
            UserServicer(service.accounts, service.books, service.sessions, service.roles, service.privacy),
            to,
        )
        user_pb2_grpc.add_AuthServiceServicer_to_server(
            AuthServicer(service.accounts, service.sessions, service.guests, service.recovery), to
        )

    async with serve_in_process(add, None, name="user") as running:
        yield running


def users(server: InProcessServer, **caller: Any) -> user_pb2_grpc.UserServiceStub:
    return server.stub(user_pb2_grpc.UserServiceStub, **caller)


def auth(server: InProcessServer) -> user_pb2_grpc.AuthServiceStub:
    return server.stub(user_pb2_grpc.AuthServiceStub)


async def register(server: InProcessServer, **changes: str) -> user_pb2.User:
    fields = {"email": new_email(), "password": PASSWORD, "first_name": "Ann", "last_name": "Lee"} | changes
    made = await users(server).CreateUser(user_pb2.CreateUserRequest(**fields))
    return made.user


async def refusal(call: Any) -> RemoteError:
    with pytest.raises(RemoteError) as refused:
        await call
    return refused.value


def fields(error: RemoteError) -> set[str]:
    return {violation.field for violation in error.violations}


async def test_anyone_registers_and_the_owner_reads_the_account(server: InProcessServer) -> None:
    made = await register(server, first_name=" Ann ")
    assert (made.first_name, made.last_name) == ("Ann", "Lee")
    assert made.created_at == made.updated_at
    me = users(server, as_user=made.user_id)
    assert (await me.GetUser(user_pb2.GetUserRequest(user_id=made.user_id))).user == made


async def test_an_owner_sees_what_she_has_just_changed_and_others_may_see_what_was_a_moment_ago(
    passwords: Argon2Passwords, issuer: JwtIssuer, in_memory: Store
) -> None:
    a_moment_ago = Profiles(lambda: MemoryStore(Rows()))
    service = UserService(replace(in_memory, profiles=a_moment_ago), passwords, issuer)
    user = await service.register()
    assert await service.accounts.get(user.user_id) == user
    async with served(service) as server:
        request = user_pb2.GetUserRequest(user_id=str(user.user_id))
        for own_id in (str(user.user_id), str(user.user_id).upper()):
            await users(server, as_user=own_id).GetUser(request)
        support = users(server, as_user=str(uuid4()), staff_roles=("support",))
        assert (await refusal(support.GetUser(request))).code is Code.NOT_FOUND


async def test_a_taken_email_already_exists_and_is_named(server: InProcessServer) -> None:
    made = await register(server)
    error = await refusal(register(server, email=made.email.upper()))
    assert (error.code, error.reason, fields(error)) == (Code.ALREADY_EXISTS, "EMAIL_TAKEN", {"email"})


@pytest.mark.parametrize(
    "name",
    [
        "O`Toole",
        "O\u2019Toole",
        "\u0418\u0432\u0430\u043d",
        "M\u00fcller-L\u00fcdenscheidt",
        "X",
        "\U0001f600",
        "Jo\u00e3o d'Arc 3rd.",
        "{{var this}} <b>",
    ],
)
async def test_people_are_called_as_they_say(server: InProcessServer, name: str) -> None:
    made = await register(server, first_name=name, last_name=name)
    assert (made.first_name, made.last_name) == (name, name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "nowhere"),
        ("email", "   "),
        ("email", ""),
        ("email", "a@b.example\0"),
        ("email", f"{'a' * 250}@b.example"),
        ("password", "short"),
        ("password", "iloveyou"),
        ("password", "        "),
        ("password", "x" * 129),
        ("first_name", "   "),
        ("first_name", "A\0nn"),
        ("first_name", "A\nnn"),
        ("last_name", ""),
        ("last_name", "x" * 101),
    ],
)
async def test_a_bad_field_is_named_and_its_value_not_repeated(
    server: InProcessServer, field: str, value: str
) -> None:
    error = await refusal(register(server, **{field: value}))
    assert (error.code, fields(error)) == (Code.INVALID_ARGUMENT, {field})
    assert field != "password" or value not in error.message


async def test_a_password_may_hold_any_character(server: InProcessServer) -> None:
    password = " \t\n\x00 \u0085\u200b é "
    made = await register(server, password=password)
    right = user_pb2.LoginRequest(email=made.email, password=password)
    assert (await auth(server).Login(right)).tokens.access_token
    wrong = user_pb2.LoginRequest(email=made.email, password=password.strip())
    assert (await refusal(auth(server).Login(wrong))).code is Code.UNAUTHENTICATED


@pytest.mark.parametrize("field", ["recipient", "line1", "line2", "city", "region", "postal_code", "country"])
async def test_a_control_character_in_an_address_is_refused_by_name(
    server: InProcessServer, field: str
) -> None:
    me = await register(server)
    address = user_pb2.UserAddress(**ADDRESS | {field: "U\0S"})
    error = await refusal(
        users(server, as_user=me.user_id).CreateAddress(
            user_pb2.CreateAddressRequest(user_id=me.user_id, address=address)
        )
    )
    assert (error.code, fields(error)) == (Code.INVALID_ARGUMENT, {field})


async def test_another_users_account_is_out_of_reach_whether_or_not_it_exists(
    server: InProcessServer,
) -> None:
    me, other = users(server, as_user=uuid4()), await register(server)
    for user_id in (other.user_id, str(uuid4())):
        error = await refusal(me.GetUser(user_pb2.GetUserRequest(user_id=user_id)))
        assert error.code is Code.PERMISSION_DENIED
        change = user_pb2.UpdateUserRequest(user_id=user_id, user=user_pb2.UserPatch(first_name="Eve"))
        assert (await refusal(me.UpdateUser(change))).code is Code.PERMISSION_DENIED


async def test_staff_reads_and_changes_accounts_and_learns_which_do_not_exist(
    server: InProcessServer,
) -> None:
    staff, other = users(server, as_user=uuid4(), staff=True), await register(server)
    assert (await staff.GetUser(user_pb2.GetUserRequest(user_id=other.user_id))).user == other
    change = user_pb2.UpdateUserRequest(user_id=other.user_id, user=user_pb2.UserPatch(first_name="Anne"))
    assert (await staff.UpdateUser(change)).user.first_name == "Anne"
    error = await refusal(staff.GetUser(user_pb2.GetUserRequest(user_id=str(uuid4()))))
    assert (error.code, error.reason) == (Code.NOT_FOUND, "USER_NOT_FOUND")


async def test_only_what_is_sent_is_changed(server: InProcessServer) -> None:
    made = await register(server)
    me = users(server, as_user=made.user_id)
    change = user_pb2.UpdateUserRequest(user_id=made.user_id, user=user_pb2.UserPatch(first_name="Anne"))
    changed = (await me.UpdateUser(change)).user
    assert (changed.first_name, changed.last_name, changed.email) == ("Anne", "Lee", made.email)
    both = user_pb2.UpdateUserRequest(
        user_id=made.user_id,
        user=user_pb2.UserPatch(first_name="Ann", last_name="Smith"),
        update_mask=FieldMask(paths=["last_name"]),
    )
    changed = (await me.UpdateUser(both)).user
    assert (changed.first_name, changed.last_name) == ("Anne", "Smith")


async def test_another_email_needs_the_password_and_keeps_the_session_that_asks(
    server: InProcessServer, service: UserService
) -> None:
    made = await register(server)
    login = user_pb2.LoginRequest(email=made.email, password=PASSWORD)
    here, elsewhere = [(await auth(server).Login(login)).tokens for _ in range(2)]
    session_id = jwt.decode(here.access_token, options={"verify_signature": False})["sid"]
    token = server.mint.token(made.user_id, sid=session_id)
    me = users(server, token=token)
    new = new_email()
    change = user_pb2.UpdateUserRequest(user_id=made.user_id, user=user_pb2.UserPatch(email=new))
    for password, why in (
        ("", "is needed to change the email address or the password"),
        ("wrong", "is wrong"),
    ):
        change.user.current_password = password
        error = await refusal(me.UpdateUser(change))
        assert (error.code, fields(error)) == (Code.INVALID_ARGUMENT, {"current_password"})
        assert error.message == f"current_password: {why}"
    change.user.current_password = PASSWORD
    change.update_mask.paths.extend(["email", "current_password"])
    changed = (await me.UpdateUser(change)).user
    assert (changed.email, changed.pending_email, changed.email_verified) == (made.email, new, False)
    (_, token) = await service.mailed(UUID(made.user_id), Purpose.CONFIRM_EMAIL)
    await auth(server).ConfirmEmail(user_pb2.ConfirmEmailRequest(token=token))
    moved = (await me.GetUser(user_pb2.GetUserRequest(user_id=made.user_id))).user
    assert (moved.email, moved.pending_email, moved.email_verified) == (new, "", True)
    await auth(server).Refresh(user_pb2.RefreshRequest(refresh_token=here.refresh_token))
    error = await refusal(
        auth(server).Refresh(user_pb2.RefreshRequest(refresh_token=elsewhere.refresh_token))
    )
    assert error.reason == "INVALID_REFRESH_TOKEN"


async def test_who_has_a_token_of_another_issuer_changes_a_profile_but_no_email(
    server: InProcessServer,
) -> None:
    made = await register(server)
    staff = users(server, token=server.mint.token("somebody", staff=True, sid="some session"))
    change = user_pb2.UpdateUserRequest(user_id=made.user_id, user=user_pb2.UserPatch(first_name="Anne"))
    assert (await staff.UpdateUser(change)).user.first_name == "Anne"
    change.user.email, change.user.current_password = new_email(), PASSWORD
    assert fields(await refusal(staff.UpdateUser(change))) == {"current_password"}


async def test_failures_are_counted_by_the_address_that_the_edge_names(server: InProcessServer) -> None:
    made = await register(server)
    right = user_pb2.LoginRequest(email=made.email, password=PASSWORD)
    wrong = user_pb2.LoginRequest(email=made.email, password="wrong")
    here, there = (
        server.stub(user_pb2_grpc.AuthServiceStub, metadata=(("x-stoa-client-address", address),))
        for address in ("192.0.2.1", "198.51.100.1")
    )
    await here.Login(right)
    for _ in range(10):
        await refusal(there.Login(wrong))
    assert (await refusal(there.Login(right))).reason == "SIGN_IN_LOCKED"
    assert (await here.Login(right)).tokens.access_token


@pytest.mark.parametrize(
    ("path", "field"), [("user_id", "update_mask"), ("roles", "update_mask"), ("email", "email")]
)
async def test_a_mask_that_can_not_be_followed_is_refused(
    server: InProcessServer, path: str, field: str
) -> None:
    made = await register(server)
    change = user_pb2.UpdateUserRequest(
        user_id=made.user_id,
        user=user_pb2.UserPatch(first_name="Anne"),
        update_mask=FieldMask(paths=[path]),
    )
    error = await refusal(users(server, as_user=made.user_id).UpdateUser(change))
    assert (error.code, fields(error)) == (Code.INVALID_ARGUMENT, {field})


async def test_an_address_book_is_kept_by_its_owner_alone(server: InProcessServer) -> None:
    owner = (await register(server)).user_id
    me = users(server, as_user=owner)
    new = user_pb2.CreateAddressRequest(user_id=owner, address=user_pb2.UserAddress(**ADDRESS))
    made = (await me.CreateAddress(new)).address
    assert (made.kind, made.is_default) == (user_pb2.UserAddress.KIND_SHIPPING, True)
    moved = user_pb2.UpdateAddressRequest(
        user_id=owner,
        address_id=made.address_id,
        address=user_pb2.UserAddress(**ADDRESS | {"city": "Salem", "kind": "KIND_BILLING"}),
    )
    assert (await me.UpdateAddress(moved)).address.city == "Salem"
    moved.address.ClearField("kind")  # it stays what it is
    assert (await me.UpdateAddress(moved)).address.kind == user_pb2.UserAddress.KIND_BILLING
    (listed,) = (await me.ListAddresses(user_pb2.ListAddressesRequest(user_id=owner))).addresses
    assert (listed.city, listed.kind, listed.is_default) == (
        "Salem",
        user_pb2.UserAddress.KIND_BILLING,
        True,
    )
    delete = user_pb2.DeleteAddressRequest(user_id=owner, address_id=made.address_id)
    for stranger in ({"as_user": uuid4()}, {"as_user": uuid4(), "staff": True}):
        they = users(server, **stranger)
        for call in (they.DeleteAddress(delete), they.UpdateAddress(moved), they.CreateAddress(new)):
            assert (await refusal(call)).code is Code.PERMISSION_DENIED
    await me.DeleteAddress(delete)
    error = await refusal(me.DeleteAddress(delete))
    assert (error.code, error.reason) == (Code.NOT_FOUND, "ADDRESS_NOT_FOUND")


async def test_addresses_come_in_pages_whose_tokens_can_not_be_made_up(server: InProcessServer) -> None:
    owner = (await register(server)).user_id
    me = users(server, as_user=owner)
    for city in ("Avon", "Bath", "Cork"):
        address = user_pb2.UserAddress(**ADDRESS | {"city": city})
        await me.CreateAddress(user_pb2.CreateAddressRequest(user_id=owner, address=address))
    request = user_pb2.ListAddressesRequest(user_id=owner, page_size=2)
    first = await me.ListAddresses(request)
    request.page_token = first.next_page_token
    request.user_id = owner.upper()
    second = await me.ListAddresses(request)
    assert [a.city for a in (*first.addresses, *second.addresses)] == ["Avon", "Cork", "Bath"]
    assert second.next_page_token == ""
    request.page_token = "made-up"
    assert fields(await refusal(me.ListAddresses(request))) == {"page_token"}


async def test_only_the_order_service_reads_an_address_of_an_account(server: InProcessServer) -> None:
    owner = (await register(server)).user_id
    new = user_pb2.CreateAddressRequest(user_id=owner, address=user_pb2.UserAddress(**ADDRESS))
    made = (await users(server, as_user=owner).CreateAddress(new)).address
    request = user_pb2.GetAddressRequest(user_id=owner, address_id=made.address_id)
    order = users(server, as_service="order")
    assert (await order.GetAddress(request)).address.line1 == "1 Elm Street"
    for stranger in ({"as_user": owner}, {"as_service": "cart"}):
        assert (await refusal(users(server, **stranger).GetAddress(request))).code is Code.PERMISSION_DENIED
    request.user_id = str(uuid4())
    assert (await refusal(order.GetAddress(request))).reason == "ADDRESS_NOT_FOUND"


async def test_signing_in_gives_tokens_that_the_published_keys_prove(server: InProcessServer) -> None:
    made = await register(server)
    tokens = (await auth(server).Login(user_pb2.LoginRequest(email=made.email, password=PASSWORD))).tokens
    assert (tokens.token_type, tokens.expires_in) == ("Bearer", 900)
    (key,) = (await auth(server).GetJwks(user_pb2.GetJwksRequest())).keys
    public = jwt.PyJWK({field.name: value for field, value in key.ListFields()})
    claims = jwt.decode(tokens.access_token, public, ["ES256"], issuer="stoa", audience="stoa")
    assert (claims["sub"], public.key_id) == (made.user_id, key.kid)


async def test_tokens_are_refreshed_once_and_signing_out_always_succeeds(
    server: InProcessServer, service: UserService
) -> None:
    made = await register(server)
    tokens = (await auth(server).Login(user_pb2.LoginRequest(email=made.email, password=PASSWORD))).tokens
    refresh = user_pb2.RefreshRequest(refresh_token=tokens.refresh_token)
    fresh = (await auth(server).Refresh(refresh)).tokens
    assert fresh.refresh_token != tokens.refresh_token
    assert (await auth(server).Refresh(refresh)).tokens.refresh_token == fresh.refresh_token
    service.clock.advance(seconds=11)
    error = await refusal(auth(server).Refresh(refresh))
    assert (error.code, error.reason) == (Code.UNAUTHENTICATED, "INVALID_REFRESH_TOKEN")
    for token in (fresh.refresh_token, "\0never given out"):
        await auth(server).Logout(user_pb2.LogoutRequest(refresh_token=token))


async def test_a_locked_sign_in_says_when_to_come_back(server: InProcessServer) -> None:
    made = await register(server)
    wrong = user_pb2.LoginRequest(email=made.email, password="wrong")
    for _ in range(10):
        assert (await refusal(auth(server).Login(wrong))).code is Code.UNAUTHENTICATED
    error = await refusal(auth(server).Login(user_pb2.LoginRequest(email=made.email, password=PASSWORD)))
    assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "SIGN_IN_LOCKED")
    assert error.retry_after
    assert error.retry_after.total_seconds() in range(50, 61)


async def test_nothing_of_a_password_or_token_is_logged(
    server: InProcessServer, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "a very secret password"
    made = await register(server, password=secret)
    await refusal(auth(server).Login(user_pb2.LoginRequest(email=made.email, password=f"{secret}!")))
    tokens = (await auth(server).Login(user_pb2.LoginRequest(email=made.email, password=secret))).tokens
    await auth(server).Refresh(user_pb2.RefreshRequest(refresh_token=tokens.refresh_token))
    change = user_pb2.UpdateUserRequest(user_id=made.user_id, user=user_pb2.UserPatch(email=new_email()))
    change.user.current_password = f"{secret}!"
    await refusal(users(server, as_user=made.user_id).UpdateUser(change))
    out, err = capfd.readouterr()
    logged = out + err
    assert "AuthService/Login" in logged
    assert secret not in logged
    assert made.email not in logged
    assert "Example.com" not in logged
    assert tokens.refresh_token not in logged
    assert tokens.access_token not in logged


# ------------------------------------------------------------------------------------------------- mapping


def names(message: Message) -> set[str]:
    return {field.name for field in message.DESCRIPTOR.fields}


def values(message: Message) -> dict[str, Any]:
    """The fields that have a value."""
    return {field.name: value for field, value in message.ListFields()}


async def test_an_answer_carries_every_field_of_an_account_but_its_secrets(
    server: InProcessServer, memory: MemoryStore[Rows]
) -> None:
    user = a_user()
    user.verified_email = user.email
    memory.rows = Rows(users={user.user_id: user})
    me = users(server, as_user=user.user_id)
    answer = (await me.GetUser(user_pb2.GetUserRequest(user_id=str(user.user_id)))).user
    shown = {each.name for each in fields_of(User)} - {"password_hash", "events", "erased_at"}
    assert names(answer) == shown - {"verified_email"} | {"email_verified"}
    assert values(answer) == {
        "user_id": str(user.user_id),
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "locale": user.locale,
        "email_verified": True,
        "pending_email": user.pending_email,
        "roles": ["support"],
        "created_at": to_timestamp(user.created_at),
        "updated_at": to_timestamp(user.updated_at),
    }


async def test_answers_carry_every_field_of_an_address(
    server: InProcessServer, memory: MemoryStore[Rows]
) -> None:
    user, address = a_user(), an_address()
    memory.rows = Rows(users={user.user_id: user}, addresses={address.address_id: (user.user_id, address)})
    me = users(server, as_user=user.user_id)
    (listed,) = (await me.ListAddresses(user_pb2.ListAddressesRequest(user_id=str(user.user_id)))).addresses
    request = user_pb2.GetAddressRequest(user_id=str(user.user_id), address_id=str(address.address_id))
    postal = (await users(server, as_service="order").GetAddress(request)).address
    parts = {each.name: getattr(address.postal, each.name) for each in fields_of(PostalAddress)}
    assert names(postal) == set(parts)
    assert values(postal) == parts
    shown = {each.name for each in fields_of(Address)} - {"postal", "created_at", "updated_at"}
    assert names(listed) == shown | set(parts)
    assert values(listed) == parts | {
        "address_id": str(address.address_id),
        "kind": user_pb2.UserAddress.KIND_BILLING,
        "is_default": True,
    }


async def test_an_address_is_stored_with_every_field_that_was_sent(server: InProcessServer) -> None:
    owner = (await register(server)).user_id
    me = users(server, as_user=owner)
    parts = {each.name: getattr(an_address().postal, each.name) for each in fields_of(PostalAddress)}
    sent = user_pb2.UserAddress(kind=user_pb2.UserAddress.KIND_BILLING, is_default=True, **parts)
    made = (await me.CreateAddress(user_pb2.CreateAddressRequest(user_id=owner, address=sent))).address
    sent.address_id = made.address_id
    assert made == sent


# ------------------------------------------------------------------------------------- guests and recovery


def claims(tokens: user_pb2.Tokens) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(tokens.access_token, options={"verify_signature": False})
    return found


async def test_anyone_is_a_guest_and_keeps_what_was_the_guests_by_signing_in_or_registering(
    server: InProcessServer, memory: MemoryStore[Rows]
) -> None:
    def merged() -> list[UserGuestMerged]:
        return memory.payloads(UserGuestMerged)

    made = await register(server)
    guest, another = [
        (await auth(server).CreateGuest(user_pb2.CreateGuestRequest())).tokens for _ in range(2)
    ]
    assert (guest.token_type, guest.expires_in, claims(guest)["guest"]) == ("Bearer", 900, True)
    login = user_pb2.LoginRequest(email=made.email, password=PASSWORD, guest_token=guest.refresh_token)
    await auth(server).Login(login)
    registered = await register(server, guest_token=another.access_token)
    assert [(str(each.user_id), str(each.guest_id)) for each in merged()] == [
        (made.user_id, claims(guest)["sub"]),
        (registered.user_id, claims(another)["sub"]),
    ]
    login.guest_token = another.refresh_token
    error = await refusal(auth(server).Login(login))
    assert (error.code, error.reason, fields(error)) == (
        Code.FAILED_PRECONDITION,
        "GUEST_MERGED",
        {"guest_token"},
    )
    login.guest_token = "nothing"
    error = await refusal(auth(server).Login(login))
    assert (error.code, fields(error)) == (Code.INVALID_ARGUMENT, {"guest_token"})


async def test_a_guest_may_not_do_what_needs_an_account(server: InProcessServer) -> None:
    guest_id = str(uuid4())
    guest = users(server, as_user=guest_id, guest=True)
    for call in (
        guest.GetUser(user_pb2.GetUserRequest(user_id=guest_id)),
        guest.UpdateUser(user_pb2.UpdateUserRequest(user_id=guest_id, user=user_pb2.UserPatch())),
        guest.ListAddresses(user_pb2.ListAddressesRequest(user_id=guest_id)),
        guest.CreateAddress(user_pb2.CreateAddressRequest(user_id=guest_id)),
        guest.ListSessions(user_pb2.ListSessionsRequest(user_id=guest_id)),
        guest.ExportUser(user_pb2.ExportUserRequest(user_id=guest_id)),
        guest.EraseUser(user_pb2.EraseUserRequest(user_id=guest_id, current_password=PASSWORD)),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (Code.PERMISSION_DENIED, "ACCOUNT_NEEDED")


async def test_a_password_is_set_anew_by_mail(server: InProcessServer, service: UserService) -> None:
    made = await register(server)
    stub = auth(server)
    ask = user_pb2.RequestPasswordResetRequest
    known = await stub.RequestPasswordReset(ask(email=made.email.upper()))
    assert known == await stub.RequestPasswordReset(ask(email=new_email()))
    (token,) = await service.mailed(UUID(made.user_id), Purpose.RESET_PASSWORD)
    confirm = user_pb2.ConfirmPasswordResetRequest(token=token, password="password")
    error = await refusal(stub.ConfirmPasswordReset(confirm))
    assert (error.code, fields(error)) == (Code.INVALID_ARGUMENT, {"password"})
    confirm.password = "another good password"
    await stub.ConfirmPasswordReset(confirm)
    await stub.Login(user_pb2.LoginRequest(email=made.email, password=confirm.password))
    error = await refusal(stub.ConfirmPasswordReset(confirm))
    assert (error.code, fields(error)) == (Code.INVALID_ARGUMENT, {"token"})
    for email in ("ann", "", "a" * 300):
        error = await refusal(stub.RequestPasswordReset(ask(email=email)))
        assert (error.code, fields(error)) == (Code.INVALID_ARGUMENT, {"email"})


async def test_an_owner_sets_another_password_and_no_mask_is_needed_for_it(server: InProcessServer) -> None:
    made = await register(server)
    me, new = users(server, as_user=made.user_id), "another good password"
    patch = user_pb2.UserPatch(password=new, current_password=PASSWORD)
    masked = user_pb2.UpdateUserRequest(user_id=made.user_id, user=patch)
    masked.update_mask.paths.extend(["first_name"])
    assert fields(await refusal(me.UpdateUser(masked))) == {"first_name"}
    await me.UpdateUser(user_pb2.UpdateUserRequest(user_id=made.user_id, user=patch))
    await auth(server).Login(user_pb2.LoginRequest(email=made.email, password=new))
    for wrong in ("short", "x" * 129):
        patch = user_pb2.UserPatch(password=wrong, current_password=new)
        error = await refusal(me.UpdateUser(user_pb2.UpdateUserRequest(user_id=made.user_id, user=patch)))
        assert (error.code, fields(error)) == (Code.INVALID_ARGUMENT, {"password"})


async def test_one_place_is_told_when_it_may_ask_again(server: InProcessServer) -> None:
    stub = server.stub(user_pb2_grpc.AuthServiceStub, metadata=(("x-stoa-client-address", "192.0.2.99"),))
    for _ in range(5):
        await stub.CreateGuest(user_pb2.CreateGuestRequest())
    error = await refusal(stub.CreateGuest(user_pb2.CreateGuestRequest()))
    assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS")
    assert error.retry_after == timedelta(hours=1)


async def test_an_address_is_confirmed_by_who_has_the_mail(
    server: InProcessServer, service: UserService
) -> None:
    made = await register(server, locale="de")
    me = users(server, as_user=made.user_id)
    assert (made.locale, made.email_verified) == ("de", False)
    again = user_pb2.RequestEmailVerificationRequest(user_id=made.user_id)
    await me.RequestEmailVerification(again)
    (_, token) = await service.mailed(UUID(made.user_id), Purpose.CONFIRM_EMAIL)
    await auth(server).ConfirmEmail(user_pb2.ConfirmEmailRequest(token=token))
    assert (await me.GetUser(user_pb2.GetUserRequest(user_id=made.user_id))).user.email_verified
    error = await refusal(me.RequestEmailVerification(again))
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "EMAIL_VERIFIED")
    error = await refusal(auth(server).ConfirmEmail(user_pb2.ConfirmEmailRequest(token=token)))
    assert (error.code, fields(error)) == (Code.INVALID_ARGUMENT, {"token"})


@pytest.mark.parametrize("locale", ["fr", "EN", "de-DE"])
async def test_a_language_that_nobody_writes_is_refused(server: InProcessServer, locale: str) -> None:
    error = await refusal(register(server, locale=locale))
    assert (error.code, fields(error)) == (Code.INVALID_ARGUMENT, {"locale"})
    made = await register(server)
    patch = user_pb2.UserPatch(locale=locale)
    change = user_pb2.UpdateUserRequest(user_id=made.user_id, user=patch)
    error = await refusal(users(server, as_user=made.user_id).UpdateUser(change))
    assert (error.code, fields(error)) == (Code.INVALID_ARGUMENT, {"locale"})


# --------------------------------------------------------------------------- sessions, export and erasure


async def test_sessions_are_listed_with_every_field_and_ended(server: InProcessServer) -> None:
    made = await register(server)
    stub = server.stub(
        user_pb2_grpc.AuthServiceStub,
        metadata=(("x-stoa-client-address", "192.0.2.7"), ("x-stoa-user-agent", "curl/8")),
    )
    login = user_pb2.LoginRequest(email=made.email, password=PASSWORD)
    here, elsewhere = [claims((await stub.Login(login)).tokens)["sid"] for _ in range(2)]
    me = users(server, token=server.mint.token(made.user_id, sid=here))
    listed = await me.ListSessions(user_pb2.ListSessionsRequest(user_id=made.user_id))
    first, second = listed.sessions
    assert (first.session_id, first.current) == (elsewhere, False)
    assert names(second) == {each.name for each in user_pb2.Session.DESCRIPTOR.fields}
    assert (second.session_id, second.device, second.network) == (here, "curl", "192.0.2.x")
    page = await me.ListSessions(user_pb2.ListSessionsRequest(user_id=made.user_id, page_size=1))
    rest = await me.ListSessions(
        user_pb2.ListSessionsRequest(user_id=made.user_id, page_size=1, page_token=page.next_page_token)
    )
    assert [each.session_id for each in rest.sessions] == [here]
    await me.RevokeSession(user_pb2.RevokeSessionRequest(user_id=made.user_id, session_id=elsewhere))
    (left,) = (await me.ListSessions(user_pb2.ListSessionsRequest(user_id=made.user_id))).sessions
    assert left.session_id == here
    error = await refusal(
        me.RevokeSession(user_pb2.RevokeSessionRequest(user_id=made.user_id, session_id=str(uuid4())))
    )
    assert (error.code, error.reason) == (Code.NOT_FOUND, "SESSION_NOT_FOUND")


async def test_a_session_of_before_is_shown_without_what_is_not_known_of_it(
    server: InProcessServer, memory: MemoryStore[Rows]
) -> None:
    made = await register(server)
    await auth(server).Login(user_pb2.LoginRequest(email=made.email, password=PASSWORD))
    (session,) = memory.rows.sessions.values()
    old = replace(session, created_at=None, last_used_at=None, device="", network="")
    memory.rows = replace(memory.rows, sessions={session.session_id: old})
    me = users(server, as_user=made.user_id)
    (shown,) = (await me.ListSessions(user_pb2.ListSessionsRequest(user_id=made.user_id))).sessions
    assert set(values(shown)) == {"session_id", "expires_at"}


async def test_an_export_has_what_is_kept_here_and_says_where_the_rest_is(server: InProcessServer) -> None:
    guest = (await auth(server).CreateGuest(user_pb2.CreateGuestRequest())).tokens
    made = await register(server, guest_token=guest.refresh_token)
    await auth(server).Login(user_pb2.LoginRequest(email=made.email, password=PASSWORD))
    me = users(server, as_user=made.user_id)
    address = user_pb2.UserAddress(**ADDRESS)
    await me.CreateAddress(user_pb2.CreateAddressRequest(user_id=made.user_id, address=address))
    export = await me.ExportUser(user_pb2.ExportUserRequest(user_id=made.user_id))
    assert export.user == (await me.GetUser(user_pb2.GetUserRequest(user_id=made.user_id))).user
    assert [each.line1 for each in export.addresses] == [ADDRESS["line1"]]
    assert len(export.sessions) == 1
    assert list(export.guest_ids) == [claims(guest)["sub"]]
    assert {f"/api/v1/users/{made.user_id}/orders", f"/api/v1/cart/{made.user_id}"} <= {*export.elsewhere}
    assert not [path for path in export.elsewhere if "{" in path or path.endswith("/addresses")]


async def test_an_account_is_erased_by_its_owner_with_the_password_or_by_support(
    server: InProcessServer,
) -> None:
    made = await register(server)
    me = users(server, as_user=made.user_id)
    for password, field in (("", "current_password"), ("wrong", "current_password")):
        request = user_pb2.EraseUserRequest(user_id=made.user_id, current_password=password)
        error = await refusal(me.EraseUser(request))
        assert (error.code, fields(error)) == (Code.INVALID_ARGUMENT, {field})
    await me.EraseUser(user_pb2.EraseUserRequest(user_id=made.user_id, current_password=PASSWORD))
    error = await refusal(me.GetUser(user_pb2.GetUserRequest(user_id=made.user_id)))
    assert error.reason == "USER_NOT_FOUND"
    again = await register(server, email=made.email)
    support = await register(server)
    by_support = users(server, as_user=support.user_id, staff_roles=("support",))
    request = user_pb2.EraseUserRequest(user_id=again.user_id, current_password=PASSWORD)
    for other in (
        users(server, as_user=support.user_id),
        users(server, as_user=support.user_id, staff_roles=("warehouse",)),
    ):
        assert (await refusal(other.EraseUser(request))).reason == "NOT_OWNER"
    await by_support.EraseUser(request)
    assert (await refusal(by_support.EraseUser(request))).reason == "USER_NOT_FOUND"


# --------------------------------------------------------------------------------------------------- staff


async def test_an_admin_says_who_is_staff_and_sees_who_said_so(server: InProcessServer) -> None:
    made, boss = await register(server), str(uuid4())
    admin = users(server, as_user=boss, staff=True)
    change = user_pb2.SetUserRolesRequest(user_id=made.user_id, roles=["support"], reason=" hired ")
    changed = (await admin.SetUserRoles(change)).roles
    assert changed == (await admin.GetUserRoles(user_pb2.GetUserRolesRequest(user_id=made.user_id))).roles
    assert (changed.user_id, list(changed.roles)) == (made.user_id, ["support"])
    (noted,) = changed.changes
    assert (noted.changed_by, list(noted.before), list(noted.after)) == (boss, [], ["support"])
    assert (noted.reason, noted.HasField("at")) == ("hired", True)
    (listed,) = (await admin.ListStaff(user_pb2.ListStaffRequest())).staff
    assert (listed.user_id, list(listed.roles)) == (made.user_id, ["support"])
    user = await users(server, as_user=made.user_id).GetUser(user_pb2.GetUserRequest(user_id=made.user_id))
    assert user.user.roles == ["support"]


async def test_roles_are_for_admins_alone(server: InProcessServer) -> None:
    made = await register(server)
    request = user_pb2.SetUserRolesRequest(user_id=made.user_id, roles=["admin"], reason="please")
    for caller, reason in (
        ({"as_user": made.user_id}, "STAFF_ONLY"),
        ({"as_user": made.user_id, "guest": True}, "ACCOUNT_NEEDED"),
        ({"as_user": made.user_id, "staff_roles": ("support", "warehouse", "catalogue")}, "ROLE_NEEDED"),
    ):
        error = await refusal(users(server, **caller).SetUserRoles(request))
        assert (error.code, error.reason) == (Code.PERMISSION_DENIED, reason)
    foreign = users(server, token=server.mint.token("auth0|boss", staff=True))
    assert (await refusal(foreign.SetUserRoles(request))).reason == "SUBJECT_UNUSABLE"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"roles": ["boss"]}, "roles[0]"),
        ({"roles": ["staff"]}, "roles[0]"),
        ({"roles": ["support", "support"]}, "roles"),
        ({"roles": ["support", "admin", "warehouse", "catalogue", "boss"]}, "roles"),
        ({"reason": ""}, "reason"),
        ({"reason": " "}, "reason"),
        ({"user_id": "me"}, "user_id"),
    ],
)
async def test_roles_that_there_are_not_are_refused(
    server: InProcessServer, changes: dict[str, Any], field: str
) -> None:
    made = await register(server)
    asked = {"user_id": made.user_id, "roles": ["support"], "reason": "hired"} | changes
    admin = users(server, as_user=uuid4(), staff=True)
    error = await refusal(admin.SetUserRoles(user_pb2.SetUserRolesRequest(**asked)))
    assert (error.code, field in fields(error)) == (Code.INVALID_ARGUMENT, True)
    assert not (await admin.ListStaff(user_pb2.ListStaffRequest())).staff
