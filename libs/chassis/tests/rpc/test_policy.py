"""Who may call what, as the contract says; with real certificates, tokens and sockets."""

import asyncio
import base64
import json
import math
import time
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from chassis_example import echo_pb2, echo_pb2_grpc
from chassis_example.echo_pb2 import EchoRequest, Thing
from chassis_example.echo_pb2_grpc import EchoStub

from stoa_chassis.auth import (
    NOBODY,
    Authorizer,
    ContractError,
    PeerUnknown,
    Policy,
    Principal,
    acting_as,
    current_principal,
    no_identity,
    sidecar_identity,
)
from stoa_chassis.errors import Code, PermissionDenied, RemoteError, Unauthenticated
from stoa_chassis.ids import new_id
from stoa_chassis.testing import SPIFFE_PREFIX, InProcessServer, TokenMint, serve_in_process
from stoa_chassis.tokens import StaticKeys, TokenVerifier

ANN, BOB = "ann", "bob"
MINE = EchoRequest(user_id=ANN, thing=Thing(owner_id=ANN))
NOBODYS: dict[str, Any] = {}
A_USER: dict[str, Any] = {"as_user": ANN}
GUEST: dict[str, Any] = {"as_user": ANN, "guest": True}
CATALOGUE: dict[str, Any] = {"as_user": BOB, "staff_roles": ("catalogue",)}
WAREHOUSE: dict[str, Any] = {"as_user": BOB, "staff_roles": ("warehouse",)}
ADMIN: dict[str, Any] = {"as_user": BOB, "staff_roles": ("admin",)}
ORDER: dict[str, Any] = {"as_service": "order"}
SEARCH: dict[str, Any] = {"as_service": "search"}
OK, NO_TOKEN, NO_ACCOUNT, NOT_OWN = "ok", "TOKEN_MISSING", "ACCOUNT_NEEDED", "NOT_OWNER"
USERS = {
    # method: what nobody, Ann, Ann as a guest, and staff of the catalogue, of the warehouse and an admin get
    "Anyone": (OK, OK, OK, OK, OK, OK),
    "Customer": (NO_TOKEN, OK, NO_ACCOUNT, OK, OK, OK),
    "CustomerOrWarehouse": (NO_TOKEN, OK, OK, OK, OK, OK),
    "Staff": (NO_TOKEN, "STAFF_ONLY", NO_ACCOUNT, OK, OK, OK),
    "Warehouse": (NO_TOKEN, "STAFF_ONLY", NO_ACCOUNT, "ROLE_NEEDED", OK, OK),
    "Owner": (NO_TOKEN, OK, NO_ACCOUNT, NOT_OWN, NOT_OWN, NOT_OWN),
    "NestedOwner": (NO_TOKEN, OK, NO_ACCOUNT, NOT_OWN, NOT_OWN, NOT_OWN),
    "GuestOwner": (NO_TOKEN, OK, OK, NOT_OWN, NOT_OWN, NOT_OWN),
    "OwnerOrStaff": (NO_TOKEN, OK, NO_ACCOUNT, OK, OK, OK),
    "Internal": ("SERVICES_ONLY",) * 6,
}
SERVICES = {"OwnerOrStaff": (OK, "SERVICE_NOT_ALLOWED"), "Internal": (OK, "SERVICE_NOT_ALLOWED")}
"""What the order service and the search service get; all else is for users alone."""


@pytest.mark.parametrize("method", USERS)
async def test_a_method_admits_exactly_whom_its_policy_names(echo: InProcessServer, method: str) -> None:
    async def outcome(caller: dict[str, Any]) -> tuple[str, Code]:
        try:
            await getattr(echo.stub(EchoStub, **caller), method)(MINE)
        except RemoteError as error:
            return error.reason, error.code
        return "ok", Code.OK

    callers = (NOBODYS, A_USER, GUEST, CATALOGUE, WAREHOUSE, ADMIN, ORDER, SEARCH)
    expected = (*USERS[method], *SERVICES.get(method, ("SERVICE_NOT_ALLOWED",) * 2))
    code = {OK: Code.OK, NO_TOKEN: Code.UNAUTHENTICATED}
    assert [await outcome(caller) for caller in callers] == [
        (reason, code.get(reason, Code.PERMISSION_DENIED)) for reason in expected
    ]


async def test_staff_that_is_admitted_as_a_customer_acts_for_nobody_else(echo: InProcessServer) -> None:
    async def acts_for_another(caller: dict[str, Any]) -> str:
        stub = echo.stub(EchoStub, **caller)
        return str((await stub.CustomerOrWarehouse(EchoRequest(text="for-another"))).text)

    assert [await acts_for_another(caller) for caller in (A_USER, GUEST, CATALOGUE)] == ["False"] * 3
    assert [await acts_for_another(caller) for caller in (WAREHOUSE, ADMIN)] == ["True"] * 2


async def test_who_lacks_a_role_is_told_which(echo: InProcessServer) -> None:
    with pytest.raises(RemoteError, match="only staff with the role support or warehouse may do this"):
        await echo.stub(EchoStub, **CATALOGUE).Warehouse(MINE)


@pytest.mark.parametrize("roles", [["warehouse"], ["admin"], ["staff"]])
async def test_a_role_alone_makes_nobody_staff(echo: InProcessServer, roles: list[str]) -> None:
    with pytest.raises(RemoteError) as refused:
        await echo.stub(EchoStub, token=echo.mint.token(ANN, roles=roles)).Warehouse(MINE)
    assert refused.value.code is Code.PERMISSION_DENIED


@pytest.mark.parametrize("guest", [True, "true", 1])
async def test_a_guest_is_never_staff_whatever_else_the_token_says(
    echo: InProcessServer, guest: object
) -> None:
    token = echo.mint.token(ANN, staff=True, guest=guest)
    for method in ("Staff", "Warehouse", "OwnerOrStaff"):
        with pytest.raises(RemoteError) as refused:
            await getattr(echo.stub(EchoStub, token=token), method)(MINE)
        assert refused.value.reason == "ACCOUNT_NEEDED"


async def test_a_subject_that_is_no_uuid_is_refused_where_a_user_of_the_shop_is_needed(
    echo: InProcessServer,
) -> None:
    with pytest.raises(RemoteError, match="is not a UUID") as refused:
        await echo.stub(EchoStub, as_user="auth0|ann").Customer(EchoRequest(text="whose"))
    assert (refused.value.code, refused.value.reason) == (Code.PERMISSION_DENIED, "SUBJECT_UNUSABLE")
    user_id = str(new_id())
    answer = await echo.stub(EchoStub, as_user=user_id).Customer(EchoRequest(text="whose"))
    assert answer.text == user_id


async def test_an_owner_must_be_named_in_full(echo: InProcessServer) -> None:
    with pytest.raises(RemoteError, match="user_id is not yours"):
        await echo.stub(EchoStub, as_user=ANN).Owner(EchoRequest())


async def test_an_owner_is_known_by_the_id_whatever_its_case(echo: InProcessServer) -> None:
    user_id = str(new_id())
    mine = EchoRequest(user_id=user_id.upper(), thing=Thing(owner_id=user_id.upper()))
    stub = echo.stub(EchoStub, as_user=user_id)
    await stub.Owner(mine)
    await stub.NestedOwner(mine)
    with pytest.raises(RemoteError, match="user_id is not yours"):
        await echo.stub(EchoStub, as_user=str(new_id())).Owner(mine)
    # Who is no UUID is known by the name as it is written.
    with pytest.raises(RemoteError, match="user_id is not yours"):
        await echo.stub(EchoStub, as_user=ANN).Owner(EchoRequest(user_id=ANN.upper()))


async def test_a_servicer_sees_who_calls(echo: InProcessServer) -> None:
    who = EchoRequest(text="who", user_id=ANN)
    assert (await echo.stub(EchoStub).Anyone(who)).text == "None None []"
    assert (await echo.stub(EchoStub, as_user=ANN).Anyone(who)).text == "ann None ['customer']"
    assert (await echo.stub(EchoStub, as_service="order").Internal(who)).text == "None order []"
    assert current_principal() is NOBODY


def test_keys_that_a_service_chooses_and_those_that_users_send_are_in_different_namespaces() -> None:
    callers = [Principal(service="order"), Principal(service="user"), Principal(ANN), NOBODY]
    assert [caller.key_namespace for caller in callers] == ["service:order", "service:user", "user", "user"]


def test_a_test_acts_as_a_caller_for_as_long_as_it_says() -> None:
    order = Principal(service="order")
    with acting_as(order):
        assert current_principal() is order
    assert current_principal() is NOBODY


def _forged(mint: TokenMint) -> dict[str, str]:
    """Tokens that are not right, each in one way."""
    good = mint.token(ANN)
    header, payload, signature = good.split(".")

    def part(content: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    claims = jwt.decode(good, options={"verify_signature": False})
    return {
        "no signature": f"{header}.{payload}.",
        "alg none": f"{part({'alg': 'none', 'kid': mint.jwks['keys'][0]['kid']})}.{payload}.",
        "payload changed": f"{header}.{part({**claims, 'roles': ['staff']})}.{signature}",
        "an algorithm that is not ours": jwt.encode(
            claims, "shared secret of 32 bytes or more", "HS256", {"kid": mint.jwks["keys"][0]["kid"]}
        ),
        "key of somebody else": TokenMint().token(ANN),
        "no key id": jwt.encode(claims, mint._key, "ES256"),
        "wrong audience": mint.token(ANN, aud="another shop"),
        "wrong issuer": mint.token(ANN, iss="another shop"),
        "no subject": mint.token(""),
        "not yet valid": mint.token(ANN, nbf=claims["exp"]),
        "roles are not a list": mint.token(ANN, roles="staff"),
        "not a token": "ä" * 3,
        "empty": "",
    }


@pytest.mark.parametrize("flaw", _forged(TokenMint()))
@pytest.mark.parametrize("method", ["Customer", "Anyone"])
async def test_a_token_that_is_not_right_is_refused_even_where_none_is_needed(
    echo: InProcessServer, flaw: str, method: str
) -> None:
    token = _forged(echo.mint)[flaw].encode("ascii", "replace").decode()
    with pytest.raises(RemoteError) as refused:
        await getattr(echo.stub(EchoStub, token=token), method)(MINE)
    assert (refused.value.code, refused.value.reason) == (Code.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_an_expired_token_is_told_apart_so_that_a_client_can_refresh(echo: InProcessServer) -> None:
    expired = echo.mint.token(ANN, ttl=-6)
    with pytest.raises(RemoteError) as refused:
        await echo.stub(EchoStub, token=expired).Customer(MINE)
    assert (refused.value.code, refused.value.reason) == (Code.UNAUTHENTICATED, "TOKEN_EXPIRED")
    within_leeway = echo.mint.token(ANN, ttl=-3)
    await echo.stub(EchoStub, token=within_leeway).Customer(MINE)


async def test_a_remembered_token_expires_too() -> None:
    mint = TokenMint()
    verifier = TokenVerifier(StaticKeys(mint.jwks), "stoa", "stoa", leeway=0)
    expires_at = math.ceil(time.time() + 1)
    token = mint.token(ANN, exp=expires_at)
    assert (await verifier.verify(token)).subject == ANN
    await asyncio.sleep(expires_at - time.time() + 0.01)
    with pytest.raises(Unauthenticated) as refused:
        await verifier.verify(token)
    assert refused.value.reason == "TOKEN_EXPIRED"


async def test_without_mtls_nobody_is_a_service() -> None:
    mint = TokenMint()
    authorizer = Authorizer(no_identity, TokenVerifier(StaticKeys(mint.jwks), "stoa", "stoa"))
    internal = Policy(False, False, False, "", frozenset({"order"}))
    claimed = {"x-forwarded-client-cert": f"URI={SPIFFE_PREFIX}order"}
    with pytest.raises(PermissionDenied) as refused:
        await authorizer.admit(internal, SimpleNamespace(), claimed)  # type: ignore[arg-type]
    assert refused.value.reason == "SERVICES_ONLY"


def test_a_sidecar_names_the_nearest_peer() -> None:
    identify = sidecar_identity(SPIFFE_PREFIX)

    def known(header: str) -> str | None:
        return identify(SimpleNamespace(), {"x-forwarded-client-cert": header})  # type: ignore[arg-type]

    spoofed = f"URI={SPIFFE_PREFIX}order"
    added = f'By=spiffe://x/y;Hash=ab;Subject="";URI={SPIFFE_PREFIX}cart'
    assert known(added) == "cart"
    for sent in (spoofed, f'Subject="{spoofed}', f"{spoofed};Hash=", f'"{spoofed}"'):
        assert known(f"{sent},{added}") == "cart"
    assert known(added.replace('""', '"CN=cart,O=a shop"')) == "cart"
    for wrong in (
        "",
        f"URI={SPIFFE_PREFIX}",
        "By=a;Hash=b",
        "URI=spiffe://other.org/ns/stoa/sa/order",
        f"{spoofed}/more",
        f"{spoofed};{spoofed}",
    ):
        with pytest.raises(PeerUnknown) as refused:
            known(wrong)
        assert refused.value.reason == "PEER_UNKNOWN"


@pytest.mark.parametrize(
    ("service", "complaint"),
    [
        ("Unguarded", "chassis_example.Unguarded.Forgotten has no policy"),
        ("WrongOwner", "chassis_example.WrongOwner.Misspelt: policy owner 'userid' is not a string field"),
        ("UnknownRole", "chassis_example.UnknownRole.Misspelt: there is no role 'catalog' of staff"),
        ("EdgeAsService", "chassis_example.EdgeAsService.Listed: the edge speaks for users"),
        ("Broken", "chassis_example.BrokenRequest"),
        ("Upload", "chassis_example.Upload.Send: streams from a client are not supported"),
    ],
)
async def test_a_server_does_not_start_with_a_contract_that_it_cannot_keep(
    service: str, complaint: str
) -> None:
    servicer = getattr(echo_pb2_grpc, f"{service}Servicer")()
    with pytest.raises(ContractError) as refused:
        async with serve_in_process(getattr(echo_pb2_grpc, f"add_{service}Servicer_to_server"), servicer):
            pass
    assert complaint in str(refused.value)


@pytest.mark.parametrize("method", ["Misspelt", "OfNoThing", "OfText", "OfMany", "Many", "Number"])
def test_an_owner_is_one_text_of_the_request(method: str) -> None:
    declared = echo_pb2.DESCRIPTOR.services_by_name["WrongOwner"].methods_by_name[method]
    with pytest.raises(ContractError, match=rf"\.{method}: policy owner '.*' is not a string field"):
        Policy.of(declared)


async def test_of_a_user_is_known_to_which_sign_in_the_token_goes_back() -> None:
    mint = TokenMint()
    authorizer = Authorizer(no_identity, TokenVerifier(StaticKeys(mint.jwks), "stoa", "stoa"))
    customers = Policy(False, True, False, "", frozenset())
    sent = {"authorization": f"Bearer {mint.token(ANN, sid='the sign-in')}"}
    with acting_as(NOBODY):
        caller = await authorizer.admit(customers, SimpleNamespace(), sent)  # type: ignore[arg-type]
        assert current_principal() is caller
    assert caller == Principal(ANN, frozenset({"customer"}), session_id="the sign-in")


async def test_a_token_is_a_bearers_however_that_is_written() -> None:
    mint = TokenMint()
    authorizer = Authorizer(no_identity, TokenVerifier(StaticKeys(mint.jwks), "stoa", "stoa"))
    customers = Policy(False, True, False, "", frozenset())

    async def admit(scheme: str) -> Principal:
        sent = {"authorization": f"{scheme}{mint.token(ANN)}"}
        with acting_as(NOBODY):
            return await authorizer.admit(customers, SimpleNamespace(), sent)  # type: ignore[arg-type]

    for scheme in ("Bearer ", "bearer ", "BEARER  "):
        assert (await admit(scheme)).subject == ANN
    for scheme in ("Basic ", "", "bearer"):
        with pytest.raises(Unauthenticated) as refused:
            await admit(scheme)
        assert refused.value.reason == "TOKEN_INVALID"


def test_who_may_act_for_a_user() -> None:
    assert Principal(ANN).may_act_for(ANN)
    assert not Principal(ANN).may_act_for(BOB)
    user_id = str(new_id())
    assert Principal(user_id).may_act_for(user_id.upper())
    assert Principal(ANN, acts_as_staff=True).may_act_for(BOB)
    assert not Principal(ANN, frozenset({"staff", "catalogue"})).may_act_for(BOB)
    assert Principal(service="order").may_act_for(BOB)
    assert not NOBODY.may_act_for(ANN)
    with pytest.raises(Unauthenticated):
        _ = NOBODY.user_id


def test_who_administers_is_staff_with_that_role() -> None:
    staff, admin = frozenset({"staff", "support"}), frozenset({"staff", "admin"})
    assert [Principal(ANN, roles).is_staff for roles in (frozenset(), staff, admin)] == [False, True, True]
    assert [Principal(ANN, roles).is_admin for roles in (frozenset(), staff, admin)] == [False, False, True]
    assert not Principal(ANN, frozenset({"admin"})).is_admin


def test_of_nobody_nothing_is_known() -> None:
    assert Principal(None, frozenset(), None, "", is_guest=False, acts_as_staff=False) == NOBODY
    assert not NOBODY.is_staff


def test_only_users_whose_ids_are_as_ours_are_known() -> None:
    user_id = new_id()
    callers = Principal(str(user_id)), Principal("auth0|ann"), Principal(service="order"), NOBODY
    assert [caller.known_user for caller in callers] == [user_id, None, None, None]
