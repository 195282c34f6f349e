"""The client of the REST API tries again what may pass, tells why it was refused, and stays signed in."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest

from stoa_rest import LIST_ORDERS, UPDATE_ADDRESS
from stoa_stack.rest import ApiError, Client

TOKEN = jwt.encode({"sub": "ada"}, "a secret that is long enough for it", "HS256")
TOKENS = {"access_token": TOKEN, "refresh_token": "r", "token_type": "Bearer", "expires_in": 900}
EMPTY: dict[str, Any] = {"user_id": "ada", "items": []}


def client(answer: Callable[[httpx.Request], httpx.Response], **options: Any) -> Client:
    return Client(httpx.AsyncClient(base_url="http://shop", transport=httpx.MockTransport(answer)), **options)


def refused(status: int, *details: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.Response(
        status, json={"code": 3, "message": "no", "details": list(details)}, headers=headers
    )


def test_parameters_and_queries_are_escaped_and_what_is_not_given_left_out() -> None:
    assert UPDATE_ADDRESS.target("a/b", "c?") == "/api/v1/users/a%2Fb/addresses/c%3F"
    assert LIST_ORDERS.target(status=None, low=True, page_size=2) == "/api/v1/orders?low=true&page_size=2"


async def test_a_file_is_answered_as_it_is() -> None:
    pdf = httpx.Response(200, content=b"%PDF-1.4", headers={"content-type": "application/pdf"})
    assert await client(lambda _: pdf).get_shipment_label("an order") == b"%PDF-1.4"


async def test_what_is_shed_or_unreachable_is_tried_again_and_a_refusal_is_not() -> None:
    answers: list[httpx.Response | httpx.TransportError] = [
        refused(503),
        httpx.ConnectError("gone"),
        httpx.Response(200, json=EMPTY),
        refused(404),
    ]
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        given = answers[len(sent) - 1]
        if isinstance(given, httpx.TransportError):
            raise given
        return given

    ada = client(answer)
    assert await ada.get_cart("ada") == EMPTY
    with pytest.raises(ApiError) as error:
        await ada.get_cart("ada")
    assert (error.value.status, len(sent)) == (404, 4)


async def test_one_who_tries_once_is_told_at_once() -> None:
    with pytest.raises(ApiError) as error:
        await client(lambda _: refused(429, **{"retry-after": "2"}), tries=1).list_categories()
    assert error.value.retry_after == 2


async def test_an_error_names_the_reason_and_each_wrong_field() -> None:
    details: list[dict[str, Any]] = [
        {"reason": "INVALID", "metadata": {"variant_id": "v"}},
        {"fieldViolations": [{"field": "quantity", "description": "at least 1"}]},
    ]
    with pytest.raises(ApiError, match="quantity: at least 1") as error:
        await client(lambda _: refused(400, *details)).get_cart("ada")
    assert (error.value.reason, error.value.metadata) == ("INVALID", {"variant_id": "v"})
    assert error.value.violations == {"quantity": "at least 1"}


async def test_who_is_signed_in_signs_in_again_before_the_token_expires() -> None:
    seen: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.path, request.headers.get("authorization", "")))
        return httpx.Response(200, json=TOKENS | {"expires_in": 0} if "login" in str(request.url) else EMPTY)

    ada = await client(answer).sign_in("ada@stoa.example", "secret")
    assert ada.user_id == "ada"
    await ada.get_cart(ada.user_id)
    login, cart = ("/api/v1/auth/login", ""), ("/api/v1/cart/ada", f"Bearer {TOKEN}")
    assert seen == [login, login, cart]


async def test_a_body_carries_what_was_named() -> None:
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((request.method, json.loads(request.content)))
        return httpx.Response(200, json={})

    await client(answer).cancel_order("o", reason="changed my mind")
    assert sent == [("PUT", {"reason": "changed my mind"})]
