"""What must not go through: each gets a 4xx with a Status that names the field, and changes nothing."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from stoa_rest import ADD_CART_ITEM, GET_CART, UPDATE_PRODUCT, UserAddress
from stoa_stack.rest import ApiError
from stoa_stack.shopping import ADDRESS, new_product
from tests.e2e.shop import Customer, Shop, order_body, refusal

ID = "01900000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
async def ada(shop: Shop) -> AsyncIterator[Customer]:
    """A shopper with something in the cart, which none of this may change."""
    ada = await shop.shopper()
    await ada.add(await shop.item(), 2)
    before = await ada.get_cart(ada.user_id)
    yield ada
    assert await ada.get_cart(ada.user_id) == before
    assert not (await ada.list_user_orders(ada.user_id))["orders"]


def body_of_order(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (order_body() | changes).items() if value is not None}


def without(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


def variant(**changes: Any) -> dict[str, Any]:
    product = dict(new_product())
    return product | {"variants": [dict(variant) | changes for variant in new_product()["variants"]]}


def usd(units: str, nanos: int = 0, currency: str = "USD") -> dict[str, Any]:
    return {"price": {"currency_code": currency, "units": units, "nanos": nanos}}


CART = "/api/v1/cart/{user_id}/items"
ITEM = {"product_id": ID, "variant_id": ID, "quantity": 1}
ADDRESSES = "/api/v1/users/{user_id}/addresses"
ADJUSTMENTS = f"/api/v1/inventory/{ID}/adjustments"
USER = {"email": "x@example.com", "password": "long enough", "first_name": "A", "last_name": "B"}

# who, method, path, body, field
WRONG_BODIES = [
    ("ada", "POST", CART, {**ITEM, "quantity": 0}, "quantity"),
    ("ada", "POST", CART, {**ITEM, "quantity": -1}, "quantity"),
    ("ada", "POST", CART, {**ITEM, "quantity": 1000}, "quantity"),
    ("ada", "POST", CART, {**ITEM, "quantity": "many"}, "quantity"),
    ("ada", "POST", CART, {**ITEM, "quantity": 1.5}, "quantity"),
    ("ada", "POST", CART, {**ITEM, "quantity": 10**12}, "quantity"),
    ("ada", "POST", CART, without(ITEM, "quantity"), "quantity"),
    ("ada", "POST", CART, without(ITEM, "variant_id"), "variant_id"),
    ("ada", "POST", CART, {**ITEM, "variant_id": "no id"}, "variant_id"),
    ("ada", "POST", CART, {**ITEM, **usd("1")}, "price"),
    ("ada", "POST", CART, {**ITEM, "currency": "EUR"}, "currency"),
    ("ada", "POST", "/api/v1/orders", body_of_order(request_id=None), "request_id"),
    ("ada", "POST", "/api/v1/orders", body_of_order(request_id="x" * 200), "request_id"),
    ("ada", "POST", "/api/v1/orders", body_of_order(payment_token=None), "payment_token"),
    ("ada", "POST", "/api/v1/orders", body_of_order(payment_token="4242424242424242"), "payment_token"),
    ("ada", "POST", "/api/v1/orders", body_of_order(shipping_address=None), "shipping_address"),
    ("ada", "POST", "/api/v1/orders", body_of_order(shipping_address=without(ADDRESS, "city")), "city"),
    ("ada", "POST", "/api/v1/orders", body_of_order(shipping_address={**ADDRESS, "country": "u"}), "country"),
    ("ada", "POST", "/api/v1/orders", body_of_order(shipping_address=ADDRESS | {"country": "XX"}), "country"),
    ("ada", "POST", "/api/v1/orders", body_of_order(shipping_address=ADDRESS | {"region": "XX"}), "region"),
    ("ada", "POST", "/api/v1/orders", body_of_order(shipping_address=without(ADDRESS, "region")), "region"),
    ("ada", "POST", "/api/v1/orders", body_of_order(shipping_method="teleport"), "shipping_method"),
    ("ada", "POST", "/api/v1/orders", body_of_order(total_amount=usd("1")["price"]), "total_amount"),
    ("ada", "POST", "/api/v1/orders", body_of_order(shipping_address=None, address_id=ID), "address_id"),
    ("ada", "POST", ADDRESSES, without(ADDRESS, "line1"), "line1"),
    ("ada", "POST", ADDRESSES, {**ADDRESS, "country": "XX"}, "country"),
    ("ada", "POST", ADDRESSES, {**ADDRESS, "postal_code": "0410"}, "postal_code"),
    ("ada", "POST", ADDRESSES, {**ADDRESS, "city": " \u00a0 "}, "city"),
    ("ada", "POST", ADDRESSES, {**ADDRESS, "recipient": "x" * 300}, "recipient"),
    ("ada", "POST", ADDRESSES, {**ADDRESS, "recipient": "nul\u0000byte"}, "recipient"),
    ("ada", "PATCH", "/api/v1/users/{user_id}", {"email": "nowhere"}, "email"),
    ("nobody", "POST", "/api/v1/users", {**USER, "email": "nowhere"}, "email"),
    ("nobody", "POST", "/api/v1/users", {**USER, "password": "short"}, "password"),
    ("nobody", "POST", "/api/v1/users", {**USER, "first_name": "\u0000"}, "first_name"),
    ("nobody", "POST", "/api/v1/users", without(USER, "last_name"), "last_name"),
    ("nobody", "POST", "/api/v1/users", {**USER, "is_admin": True}, "is_admin"),
    ("staff", "POST", "/api/v1/products", without(new_product(), "name"), "name"),
    ("staff", "POST", "/api/v1/products", {**new_product(), "variants": []}, "variants"),
    ("staff", "POST", "/api/v1/products", variant(**usd("0")), "price"),
    ("staff", "POST", "/api/v1/products", variant(**usd("-1")), "price"),
    ("staff", "POST", "/api/v1/products", variant(**usd("1", 1)), "price"),
    ("staff", "POST", "/api/v1/products", variant(**usd("1", currency="EUR")), "price"),
    ("staff", "POST", "/api/v1/products", variant(weight_grams=-1), "weight_grams"),
    ("staff", "POST", "/api/v1/products", variant(weight_grams=1_000_001), "weight_grams"),
    ("staff", "POST", "/api/v1/products", variant(weight_grams="heavy"), "weight_grams"),
    ("staff", "POST", "/api/v1/products", {**new_product(), "tags": ["x" * 60]}, "tags"),
    ("staff", "POST", ADJUSTMENTS, {"delta": 0, "reason": "x", "request_id": "a"}, "delta"),
    ("staff", "POST", ADJUSTMENTS, {"delta": 5, "request_id": "a"}, "reason"),
    ("staff", "POST", ADJUSTMENTS, {"reason": "x", "request_id": "a"}, "delta"),
    ("staff", "PUT", f"/api/v1/inventory/{ID}/threshold", {"threshold": -1}, "threshold"),
    ("staff", "PUT", f"/api/v1/inventory/{ID}/threshold", {}, "threshold"),
    ("staff", "PUT", f"/api/v1/inventory/{ID}/threshold", {"threshold": None}, "threshold"),
    ("staff", "PUT", f"/api/v1/inventory/{ID}/threshold", None, "threshold"),
    ("staff", "POST", f"/api/v1/payments/{ID}/refunds", {"reason": "x"}, "request_id"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("who", "method", "path", "body", "field"),
    WRONG_BODIES,
    ids=[
        f"{method} {path} {field} {number}" for number, (_, method, path, _, field) in enumerate(WRONG_BODIES)
    ],
)
async def test_a_wrong_field_is_named(
    shop: Shop, ada: Customer, who: str, method: str, path: str, body: Any, field: str
) -> None:
    caller = {"ada": ada, "staff": shop.staff, "nobody": shop.nobody()}[who]
    refused = await refusal(caller, method, path.format(user_id=ada.user_id), body)
    assert refused.status == 400, refused
    assert any(field in named for named in refused.violations), refused


async def test_a_field_goes_by_the_name_that_it_has_in_the_body(shop: Shop, ada: Customer) -> None:
    for caller, method, path, body, told in [
        (ada, "PATCH", f"/api/v1/users/{ada.user_id}", {"first_name": ""},
         {"first_name": "must not be empty"}),
        (ada, "POST", CART.format(user_id=ada.user_id), without(ITEM, "variant_id"),
         {"variant_id": "is missing"}),
        (ada, "POST", CART.format(user_id=ada.user_id), {**ITEM, "quantity": "2" * 20},
         {"quantity": "is out of range"}),
        (shop.staff, "POST", "/api/v1/products", variant(sku=""), {"variants[0].sku": "is missing"}),
        (shop.staff, "PUT", UPDATE_PRODUCT.target(ID), new_product(),
         {"etag": "is missing: it must be that of the version you read"}),
    ]:  # fmt: skip
        refused = await refusal(caller, method, path, body)
        assert (refused.status, refused.violations) == (400, told)
        assert refused.message == "; ".join(f"{field}: {words}" for field, words in told.items())


async def test_hundreds_of_wrong_fields_are_one_answer_that_touches_nobody_else(shop: Shop) -> None:
    """What is said of them goes into headers of the connection that everybody's calls are on."""
    attributes = {f"{number} {'é' * 40}": "" for number in range(30)}
    one = dict(new_product()["variants"][0])
    broken = new_product() | {"variants": [one | {"attributes": attributes} for _ in range(20)]}
    ids = [f"product_ids=lamp{number}" for number in range(500)]
    others = [asyncio.create_task(shop.staff.create_product(**new_product())) for _ in range(30)]
    for _ in range(5):
        refused = await refusal(shop.staff, "POST", "/api/v1/products", broken)
        assert (refused.status, refused.reason) == (400, "INVALID_ARGUMENT")
        assert len(refused.violations) > 10
        assert refused.violations[""].startswith("and 5")
        refused = await refusal(shop.nobody(), "GET", f"/api/v1/products:batchGet?{'&'.join(ids[:100])}")
        assert (refused.status, refused.violations["product_ids[0]"]) == (400, "must be a UUID")
        refused = await refusal(shop.nobody(), "GET", f"/api/v1/products:batchGet?{'&'.join(ids)}")
        assert (refused.status, refused.violations) == (
            400,
            {"product_ids": "must have at most 100 entries"},
        )
    assert len({product["product_id"] for product in await asyncio.gather(*others)}) == 30


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/v1/products?colour=red", "colour"),
        ("/api/v1/products?page_size=-1", "page_size"),
        ("/api/v1/products?page_size=many", "page_size"),
        ("/api/v1/products?page_size=1000", "page_size"),
        ("/api/v1/products?page_token=made-up", "page_token"),
        ("/api/v1/products?min_price=cheap", "min_price"),
        ("/api/v1/products?min_price=9&max_price=1", "min_price"),
        ("/api/v1/products/lamp", "product_id"),
        ("/api/v1/inventory/lamp", "variant_id"),
        ("/api/v1/orders/none", "order_id"),
        ("/api/v1/users/{user_id}/orders?page_token=eyJhIjoxfQ", "page_token"),
    ],
)
async def test_a_wrong_parameter_is_named(ada: Customer, path: str, field: str) -> None:
    refused = await refusal(ada, "GET", path.format(user_id=ada.user_id))
    assert refused.status == 400, refused
    assert any(field in named for named in refused.violations), refused


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        '"text"',
        "null",
        "{'single': 1}",
        '{"quantity": 1, "quantity": 2}',
        "\xff\xfe",
        "[" * 100_000,
    ],
)
async def test_malformed_json_is_refused(ada: Customer, body: str) -> None:
    response = await ada.send(
        "POST",
        ADD_CART_ITEM.target(ada.user_id),
        content=body.encode("latin-1"),
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 400, response.text
    assert response.json()["code"] == 3


async def test_json_is_read_as_json_however_it_is_written(shop: Shop) -> None:
    body = json.dumps(USER | {"email": f"{uuid4()}@example.com"}).replace("email", r"em\u0061il")
    response = await shop.nobody().send(
        "POST", "/api/v1/users", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 200, response.text
    assert response.json()["email"].endswith("@example.com")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/v1/products", {"cookie": "; ".join(f"c{n}={'x' * 1000}" for n in range(32))}, 200),
        (f"/api/v1/products?tag={'x' * 15_000}", {}, 400),
        (f"/api/v1/products/{'x' * 15_000}", {}, 400),
        (f"/api/v1/products?tag={'x' * 20_000}", {}, 414),
        ("/api/v1/products", {"traceparent": "x" * 10_000}, 431),
        ("/api/v1/products", {"cookie": "x" * 80_000}, 431),
    ],
)
async def test_what_no_service_reads_is_dropped_and_what_is_too_large_refused(
    shop: Shop, path: str, headers: Mapping[str, str], status: int
) -> None:
    response = await shop.nobody().send("GET", path, headers=headers)
    assert response.status_code == status, response.text[:500]
    assert "metadata size" not in response.text
    assert "x-envoy" not in response.text


async def test_the_edge_answers_browsers_as_they_expect(shop: Shop, ada: Customer) -> None:
    origin = {"origin": "http://localhost:5173"}
    mine = GET_CART.target(ada.user_id)
    got = await ada.send("GET", mine, headers={"accept-encoding": "identity"})
    head = await ada.send("HEAD", mine)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content))
    options = await shop.nobody().send("OPTIONS", mine)
    assert (options.status_code, options.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS")
    shouted = Customer(shop.http, authorization=f"BEARER {ada.access_token}")
    assert (await shouted.send("GET", mine)).status_code == 200
    refused = await shop.nobody().send("GET", mine, headers=origin)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin["origin"])
    assert "origin" in refused.headers["vary"]
    stranger = {"origin": "http://evil.example", "access-control-request-method": "PUT"}
    preflight = await shop.nobody().send("OPTIONS", mine, headers=stranger)
    assert preflight.status_code == 200
    assert "access-control-allow-origin" not in preflight.headers


async def test_a_huge_body_is_refused(ada: Customer) -> None:
    """Who listens while it sends reads why, as in a browser; httpx listens afterwards, and may be cut off."""
    body = json.dumps({"product_id": "x" * 3_000_000}).encode()
    head = [
        f"POST {ADD_CART_ITEM.target(ada.user_id)} HTTP/1.1",
        f"host: {ada.http.base_url.netloc.decode()}",
        f"authorization: Bearer {ada.access_token}",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    url = ada.http.base_url
    tls = url.scheme == "https"
    port = url.port or (443 if tls else 80)
    reader, writer = await asyncio.open_connection(url.host, port, ssl=tls or None)
    writer.write("\r\n".join([*head, "", ""]).encode() + body)
    status, *headers = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    length = next(int(header.split(":")[1]) for header in headers if header.startswith("content-length:"))
    assert status.split()[1] == "413", status
    assert json.loads(await reader.readexactly(length))["details"]
    writer.close()


async def test_another_users_things_are_out_of_reach(shop: Shop, ada: Customer) -> None:
    bob = await shop.shopper()
    order = await bob.buy(await shop.item())
    for method, path, body in [
        ("GET", f"/api/v1/cart/{bob.user_id}", None),
        ("POST", f"/api/v1/cart/{bob.user_id}/items", ITEM),
        ("DELETE", f"/api/v1/cart/{bob.user_id}", None),
        ("GET", f"/api/v1/users/{bob.user_id}", None),
        ("PATCH", f"/api/v1/users/{bob.user_id}", {"first_name": "Mallory"}),
        ("GET", f"/api/v1/users/{bob.user_id}/addresses", None),
        ("GET", f"/api/v1/users/{bob.user_id}/orders", None),
        ("GET", f"/api/v1/orders/{order['order_id']}", None),
        ("PUT", f"/api/v1/orders/{order['order_id']}/cancel", {}),
        ("GET", f"/api/v1/payments/{order['payment']['payment_id']}", None),
    ]:
        response = await ada.send(method, path, json=body)
        assert response.status_code in (403, 404), (method, path, response.text)
        assert response.json()["code"] in (5, 7)
    assert (await bob.get_order(order["order_id"]))["status"] == "confirmed"


async def test_tokens_that_are_not_right_are_refused(shop: Shop, ada: Customer) -> None:
    claims = jwt.decode(ada.access_token, options={"verify_signature": False})
    header = jwt.get_unverified_header(ada.access_token)
    stranger = ec.generate_private_key(ec.SECP256R1())
    signed = ada.access_token.rsplit(".", 1)[0]
    forged = {
        "unsigned": jwt.encode(claims, "", "none"),
        "by a stranger": jwt.encode(claims, stranger, "ES256", {"kid": header["kid"]}),
        "by a stranger as staff": jwt.encode(
            {**claims, "roles": ["staff"]}, stranger, "ES256", {"kid": header["kid"]}
        ),
        "expired": jwt.encode(
            {**claims, "exp": int(time.time()) - 60}, stranger, "ES256", {"kid": header["kid"]}
        ),
        "signature cut off": f"{signed}.",
        "not a token": "lamp",
    }
    for kind, token in forged.items():
        mallory = Customer(shop.http, authorization=f"Bearer {token}")
        for method, path, body in [
            ("GET", f"/api/v1/cart/{ada.user_id}", None),
            ("POST", "/api/v1/orders", body_of_order()),
            ("POST", "/api/v1/products", new_product()),
        ]:
            response = await mallory.send(method, path, json=body)
            assert response.status_code == 401, (kind, response.text)
            assert response.json()["code"] == 16
    nobody = await shop.nobody().send("GET", GET_CART.target(ada.user_id))
    assert nobody.status_code == 401
    assert nobody.headers["content-type"] == "application/json"


async def test_identity_headers_of_a_client_count_for_nothing(shop: Shop, ada: Customer) -> None:
    claimed = {
        "x-user-id": ada.user_id,
        "x-user-roles": "staff",
        "x-forwarded-client-cert": "URI=spiffe://stoa.local/ns/stoa/sa/order",
        "x-stoa-subject": ada.user_id,
    }
    mallory = Customer(shop.http, **claimed)
    assert (await mallory.send("GET", GET_CART.target(ada.user_id))).status_code == 401
    with pytest.raises(ApiError) as refused:
        await mallory.create_product(**new_product())
    assert refused.value.status == 401


async def test_errors_of_the_edge_itself_are_statuses_too(shop: Shop) -> None:
    for method, path, code in [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/nothing", 404),
        ("DELETE", "/api/v1/products", 405),
    ]:
        response = await shop.nobody().send(method, path)
        assert response.status_code == code
        assert set(response.json()) == {"code", "message", "details"}
        assert response.headers["x-request-id"]


async def test_internal_methods_cannot_be_reached_through_the_edge(shop: Shop) -> None:
    for path in [
        "/stoa.cart.v1.CartService/GetCartForCheckout",
        "/stoa.payment.v1.PaymentService/ProcessPayment",
        "/stoa.order.v1.OrderService/PlaceOrder",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.health.v1.Health/Check",
    ]:
        for content_type in ("application/grpc", "application/grpc-web", "application/json"):
            response = await shop.staff.send(
                "POST", path, content=b"\0\0\0\0\0", headers={"content-type": content_type, "te": "trailers"}
            )
            if response.status_code == 200:  # the refusal of a native call is in its own terms
                assert response.headers["grpc-status"] not in ("", "0"), (path, content_type)
            else:
                assert response.status_code in (403, 404, 415), (path, content_type, response.text)


async def test_a_webhook_with_a_wrong_signature_is_refused(shop: Shop) -> None:
    response = await shop.nobody().send(
        "POST",
        "/api/v1/payments/webhook",
        content=json.dumps({"type": "charge.succeeded"}),
        headers={"content-type": "application/json", "x-gateway-signature": "t=1,v1=00"},
    )
    assert response.status_code in (400, 401, 403), response.text


async def test_what_is_typed_is_put_in_order(shop: Shop) -> None:
    bob = await shop.shopper()
    in_hong_kong: UserAddress = {
        "recipient": " Rene\u0301 Chan ",
        "line1": "8 Nathan Road\t",
        "region": "Kowloon",
        "country": "HK",
    }
    kept = await bob.create_address(bob.user_id, **in_hong_kong)
    assert (kept["recipient"], kept["line1"]) == ("Ren\u00e9 Chan", "8 Nathan Road")
    product = new_product()
    sku = product["variants"][0]["sku"]
    await shop.staff.create_product(**product)
    for typed in (f"{sku} ", sku.lower(), sku.upper()):
        again = {**product, "variants": [{**product["variants"][0], "sku": typed}]}
        assert (await refusal(shop.staff, "POST", "/api/v1/products", again)).status == 409


async def test_a_threshold_of_zero_can_be_set(shop: Shop) -> None:
    item = await shop.item()
    path = f"/api/v1/inventory/{item.variant_id}/threshold"
    response = await shop.staff.send("PUT", path, json={"threshold": 0})
    assert response.is_success, response.text
    assert response.json()["threshold"] == 0


async def test_a_taken_email_and_a_taken_sku_are_conflicts(shop: Shop, ada: Customer) -> None:
    taken = {**USER, "email": ada.email.upper()}
    assert (await refusal(shop.nobody(), "POST", "/api/v1/users", taken)).status == 409
    product = new_product()
    await shop.staff.create_product(**product)
    with pytest.raises(ApiError) as refused:
        await shop.staff.create_product(**product)
    assert refused.value.status == 409


async def test_a_stale_etag_is_a_conflict(shop: Shop) -> None:
    product = await shop.staff.create_product(**new_product())
    path = UPDATE_PRODUCT.target(product["product_id"])
    better, other = ({**product, "name": name} for name in ("Better lamp", "Other lamp"))
    assert (await shop.staff.send("PUT", path, json=better)).is_success
    assert (await refusal(shop.staff, "PUT", path, other)).status == 409
    assert (await shop.nobody().get_product(product["product_id"]))["name"] == "Better lamp"
