"""Who is calling: tokens, and the headers by which nobody may pretend to be somebody."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest

from stoa_chassis.testing import eventually

from .conftest import ORIGIN, ROUTES, Edge, Issuer, check_may_be_read, knows_the_keys, reason, running

UUID = "0198c3a2-7b1e-7c44-9a51-3f1f6f0a2b6d"
MINE = f"/api/v1/orders/{UUID}"
PUBLIC = "/api/v1/products"
LOGIN = "/api/v1/auth/login"


def _unsigned(claims: dict[str, Any]) -> str:
    return jwt.encode(claims, "", "none")


def _bad_tokens(edge: Edge) -> dict[str, str]:
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    good = edge.issuer.token()
    head, body, signature = good.split(".")
    return {
        "expired": edge.issuer.token(exp=long_ago),
        "forged": Issuer().token(),
        "of another key": Issuer(kid="other").token(),
        "unsigned": _unsigned({"iss": "stoa", "aud": "stoa", "sub": "x", "exp": 9999999999}),
        "cut": good[:-4],
        "altered": f"{head}.{body[:-4]}AAAA.{signature}",
        "for others": edge.issuer.token(aud="others"),
        "by others": edge.issuer.token(iss="others"),
        "not valid yet": edge.issuer.token(nbf=datetime.now(UTC) + timedelta(hours=1)),
        "nonsense": "nonsense",
        "symmetric": jwt.encode(
            {"iss": "stoa", "aud": "stoa", "sub": "x"}, "k" * 32, "HS256", {"kid": "test"}
        ),
    }


async def test_what_needs_a_user_is_refused_without_a_token(edge: Edge) -> None:
    answer = await edge.client.get(MINE)
    assert (answer.status_code, reason(answer)) == (401, "TOKEN_MISSING")
    assert answer.json()["code"] == 16
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", [MINE, PUBLIC])
async def test_a_bad_token_is_refused_even_where_none_is_needed(path: str, edge: Edge) -> None:
    calls = len(edge.services.calls)
    for kind, token in _bad_tokens(edge).items():
        answer = await edge.client.get(path, headers={"authorization": f"Bearer {token}"})
        expected = "TOKEN_EXPIRED" if kind == "expired" else "TOKEN_INVALID"
        assert (answer.status_code, reason(answer)) == (401, expected), (kind, answer.text)
    assert len(edge.services.calls) == calls


async def test_a_stale_token_does_not_keep_anybody_from_signing_in(edge: Edge) -> None:
    headers = {"authorization": f"Bearer {edge.issuer.token(exp=1)}"}
    for path in ("/api/v1/auth/login", "/api/v1/auth/refresh", "/api/v1/auth/logout"):
        assert (await edge.client.post(path, json={}, headers=headers)).status_code == 200
        assert "authorization" not in edge.services.last.metadata, "the service would refuse it"
    assert (await edge.client.get("/api/v1/auth/jwks", headers=headers)).status_code == 200


async def test_a_good_token_is_passed_on_for_the_service_to_check(edge: Edge) -> None:
    headers = edge.bearer()
    assert (await edge.client.get(MINE, headers=headers)).status_code == 200
    assert edge.services.last.metadata["authorization"] == headers["authorization"]


async def test_a_service_learns_the_address_of_the_client_which_can_not_say_another(edge: Edge) -> None:
    for headers in (
        {},
        {"x-stoa-client-address": "192.0.2.1"},
        {"x-forwarded-for": "192.0.2.1"},
        {"x-envoy-external-address": "192.0.2.1"},
    ):
        assert (await edge.client.post(LOGIN, json={}, headers=headers)).status_code == 200
        assert edge.services.last.metadata["x-stoa-client-address"] == "127.0.0.1"


async def test_a_service_learns_with_what_somebody_signs_in_in_short_and_not_with_what_she_reads(
    edge: Edge,
) -> None:
    long = f"Mozilla/5.0 {'x' * 2000}"
    for sent, got in (("Firefox/140.0", "Firefox/140.0"), (long, long[:256])):
        headers = {"user-agent": sent, "x-stoa-user-agent": "curl"}
        assert (await edge.client.post(LOGIN, json={}, headers=headers)).status_code == 200
        assert edge.services.last.metadata["x-stoa-user-agent"] == got
    await edge.client.get(MINE, headers=edge.bearer() | {"user-agent": long})
    assert not [name for name in edge.services.last.metadata if name.endswith("user-agent")]


async def test_a_client_that_says_nothing_of_itself_is_none(edge: Edge) -> None:
    assert (await edge.client.post(LOGIN, json={}, headers={"user-agent": ""})).status_code == 200
    assert edge.services.last.metadata.get("x-stoa-user-agent", "") in ("", "-")


async def test_a_proxy_that_is_trusted_says_who_the_client_is(tmp_path: Path) -> None:
    async with running(tmp_path, trusted_hops=1) as edge:
        for header, client in (("192.0.2.1", "192.0.2.1"), ("198.51.100.9, 2001:db8::7", "2001:db8::7")):
            await edge.client.post(LOGIN, json={}, headers={"x-forwarded-for": header})
            assert edge.services.last.metadata["x-stoa-client-address"] == client


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR", "Bearer "])
async def test_a_scheme_is_known_whatever_its_case(scheme: str, edge: Edge) -> None:
    headers = {"authorization": f"{scheme} {edge.issuer.token()}"}
    assert (await edge.client.get(MINE, headers=headers)).status_code == 200
    assert edge.services.last.metadata["authorization"] == headers["authorization"]


@pytest.mark.parametrize("authorization", ["Basic eDp5", "bearer", "token", ""])
async def test_what_is_no_bearer_token_lets_nobody_in(authorization: str, edge: Edge) -> None:
    answer = await edge.client.get(MINE, headers={"authorization": authorization})
    assert (answer.status_code, reason(answer)[:6]) == (401, "TOKEN_")


async def test_every_rpc_that_is_not_for_anyone_needs_a_token(edge: Edge) -> None:
    for each in ROUTES:
        path = each.route.path
        for name in each.route.bound:
            path = path.replace(f"{{{name}}}", str(uuid4()))
        answer = await edge.client.request(each.route.verb, path)
        assert answer.status_code == (200 if each.anyone else 401), (each.name, answer.text)


async def test_identity_and_internals_that_a_client_claims_do_not_get_through(edge: Edge) -> None:
    claimed = {
        "x-user-id": "u", "x-user-roles": "staff", "x-forwarded-client-cert": "URI=spiffe://stoa.local/x",
        "x-correlation-id": "c", "x-envoy-retry-on": "5xx", "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-original-path": "/x", "grpc-timeout": "1n", "grpc-encoding": "gzip", "x-stoa-anything": "1",
    }  # fmt: skip
    answer = await edge.client.get(PUBLIC, headers=claimed)
    assert answer.status_code == 200
    assert not claimed.keys() & edge.services.last.metadata.keys()


async def test_a_client_may_ask_for_the_new_version_of_a_service(edge: Edge) -> None:
    await edge.client.get(PUBLIC, headers={"x-canary": "catalog"})
    assert edge.services.last.metadata["x-canary"] == "catalog"


@pytest.mark.parametrize("given", [UUID, UUID.upper()])
async def test_a_client_may_name_its_request_by_a_uuid(given: str, edge: Edge) -> None:
    answer = await edge.client.get(PUBLIC, headers={"x-request-id": given})
    assert answer.headers["x-request-id"] == given
    assert edge.services.last.metadata["x-request-id"] == given


@pytest.mark.parametrize(
    "given", ["", "1", "x" * 5000, 'a","status":200,"x":"', f"{UUID} {UUID}", f"{UUID}x"]
)
async def test_another_name_of_a_request_is_replaced(given: str, edge: Edge) -> None:
    answer = await edge.client.get(PUBLIC, headers={"x-request-id": given})
    named = answer.headers["x-request-id"]
    assert len(named) == 36
    assert named not in given
    assert edge.services.last.metadata["x-request-id"] == named


@pytest.mark.parametrize(
    "path", [PUBLIC, MINE, "/nowhere", "/healthz", "/api/v1/products?x=1", "/api/v1/products/a%00b"]
)
async def test_every_answer_names_its_request(path: str, edge: Edge) -> None:
    given = str(uuid4())
    answers = [await edge.client.get(path, headers={"x-request-id": given}), await edge.client.get(path)]
    assert [len(answer.headers["x-request-id"]) for answer in answers] == [36, 36]
    # What is no path at all is refused before anything else of the request is looked at.
    assert answers[0].headers["x-request-id"] == given or "%00" in path


async def test_the_access_log_tells_who_asked_what(edge: Edge) -> None:
    request_id, subject = str(uuid4()), str(uuid4())
    headers = edge.bearer(subject) | {"x-request-id": request_id}
    await edge.client.post("/api/v1/orders?", json={}, headers=headers)
    entry = await edge.logged(request_id)
    facts = {"request_id", "method", "path", "rpc", "status", "subject", "client", "upstream"}
    assert {fact: entry[fact] for fact in facts} == {
        "request_id": request_id,
        "method": "POST",
        "path": "/api/v1/orders",
        "rpc": "stoa.order.v1.OrderService/PlaceOrder",
        "status": 200,
        "subject": subject,
        "client": "127.0.0.1",
        "upstream": "order",
    }
    assert "authorization" not in str(entry).lower()


async def test_tokens_that_nobody_can_check_yet_are_not_called_bad(tmp_path: Path) -> None:
    async with running(tmp_path, jwks_url="http://127.0.0.1:9/keys") as edge:
        answer = await edge.client.get(MINE, headers=edge.bearer() | {"origin": ORIGIN})
        assert (answer.status_code, reason(answer)) == (503, "KEYS_UNAVAILABLE")
        check_may_be_read(answer)
        assert answer.headers["retry-after"] == "1"
        assert (await edge.client.get(PUBLIC)).status_code == 200


async def test_another_issuer_can_be_trusted(tmp_path: Path, edge: Edge) -> None:
    keys = f"http://127.0.0.1:{edge.port}/api/v1/auth/jwks"
    async with running(
        tmp_path, jwks_url=keys, jwt_issuer="https://id.example", jwt_audience="shop"
    ) as other:
        other.issuer = edge.issuer
        headers = edge.bearer(iss="https://id.example", aud=["shop", "more"])

        async def admitted() -> bool:
            return (await other.client.get(MINE, headers=headers)).status_code == 200

        await eventually(admitted)
        assert (await other.client.get(MINE, headers=edge.bearer())).status_code == 401


async def test_keys_that_the_issuer_adds_are_learnt(tmp_path: Path) -> None:
    async with running(tmp_path, jwks_seconds=1) as edge:
        await knows_the_keys(edge)
        edge.issuer = Issuer(kid="new")
        edge.services.answers["stoa.user.v1.AuthService/GetJwks"] = edge.issuer.jwks()
        await knows_the_keys(edge)
