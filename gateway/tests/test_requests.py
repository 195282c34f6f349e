"""What the edge lets through, and how it says what is wrong with the rest."""

import json
import random
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from google.protobuf import json_format

from stoa.catalog.v1 import catalog_pb2
from stoa.inventory.v1 import inventory_pb2
from stoa.order.v1 import order_pb2, order_pb2_grpc

from .conftest import ROUTES, Edge, reason, violations

PRODUCT_ID = str(uuid4())
CREATE = "stoa.catalog.v1.CatalogService/CreateProduct"
PRODUCT = {
    "name": "Lamp €",
    "category": "lighting",
    "tags": ["a", "b"],
    "variants": [
        {
            "sku": "L-1",
            "attributes": {"colour": "red", "": "x"},
            "price": {"currency_code": "USD", "units": "19", "nanos": 900000000},
        }
    ],
    "specifications": {"height": "30 cm"},
    "rating": {"average": 4.5, "count": 2},
}


async def create(edge: Edge, body: Any) -> httpx.Response:
    """Send a body, the richest that there is, as it is."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = edge.bearer() | {"content-type": "application/json"}
    return await edge.client.post("/api/v1/products", content=content, headers=headers)


async def test_a_body_reaches_the_service_as_it_was_sent(edge: Edge) -> None:
    assert (await create(edge, PRODUCT)).status_code == 200
    assert edge.services.last.request.product == json_format.ParseDict(PRODUCT, catalog_pb2.Product())


async def test_a_resource_comes_without_a_wrapper_and_with_its_empty_fields(edge: Edge) -> None:
    name = "stoa.inventory.v1.InventoryService/GetInventory"
    stock = inventory_pb2.Inventory(variant_id=PRODUCT_ID, stock_count=3, available=3)
    with edge.answering(name, inventory_pb2.GetInventoryResponse(inventory=stock)):
        answer = await edge.client.get(f"/api/v1/inventory/{PRODUCT_ID}")
    assert answer.json() == {
        "variant_id": PRODUCT_ID,
        "product_id": "",
        "stock_count": 3,
        "reserved_count": 0,
        "available": 3,
        "threshold": 0,
        "on_sale": False,
    }


async def test_a_large_resource_comes_whole(edge: Edge) -> None:
    product = catalog_pb2.Product(description="x" * 3_000_000)
    with edge.answering(CREATE, catalog_pb2.CreateProductResponse(product=product)):
        answer = await create(edge, PRODUCT)
    assert len(answer.json()["description"]) == 3_000_000


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"colour": 1}, "colour", "unknown field"),
        ({"variants": [{}, {"price": {"cents": 5}}]}, "variants[1].price.cents", "unknown field"),
        ({"product": {}}, "product", "unknown field"),
        ({"name": 5}, "name", "must be a string"),
        ({"name": ["x"]}, "name", "must be a string"),
        ({"name": {}}, "name", "must be a string"),
        ({"name": "\0"}, "name", "must not contain the character NUL"),
        ({"tags": "a"}, "tags", "must be a list"),
        ({"tags": {"a": "b"}}, "tags", "must be a list"),
        ({"tags": ["a", None]}, "tags[1]", "must be a string"),
        ({"specifications": []}, "specifications", "must be an object"),
        ({"specifications": {"a": 1}}, 'specifications["a"]', "must be a string"),
        ({"variants": ["x"]}, "variants[0]", "must be an object"),
        ({"variants": [[]]}, "variants[0]", "must be an object"),
        ({"rating": "good"}, "rating", "must be an object"),
        ({"rating": {"average": "good"}}, "rating.average", "must be a number"),
        ({"rating": {"count": 1.5}}, "rating.count", "must be a whole number"),
        ({"rating": {"count": "1.0"}}, "rating.count", "must be a whole number"),
        ({"rating": {"count": True}}, "rating.count", "must be a whole number"),
        ({"rating": {"count": 2**31}}, "rating.count", "is out of range"),
        ({"created_at": "yesterday"}, "created_at", "must be a time, such as 2026-01-31T12:00:00Z"),
        ({"created_at": 5}, "created_at", "must be a time, such as 2026-01-31T12:00:00Z"),
        ({"productId": "a", "product_id": "b"}, "product_id", "is given twice"),
    ],
)
async def test_a_wrong_field_of_a_body_is_named(
    changes: dict[str, Any], field: str, problem: str, edge: Edge
) -> None:
    calls = len(edge.services.calls)
    answer = await create(edge, PRODUCT | changes)
    assert violations(answer) == {field: problem}
    assert reason(answer) == "INVALID_ARGUMENT"
    assert len(edge.services.calls) == calls


def priced(units: str) -> bytes:
    return b'{"variants": [{"price": {"units": %s}}]}' % units.encode()


@pytest.mark.parametrize(
    ("units", "problem"),
    [
        ("9223372036854775808", "is out of range"),
        ('"9223372036854775808"', "is out of range"),
        ("-9223372036854775809", "is out of range"),
        ('"-9223372036854775809"', "is out of range"),
        ("1e19", "is out of range"),
        (f'"{"9" * 70}"', "must be a whole number"),
        ("1.5", "must be a whole number"),
        ('"1e2"', "must be a whole number"),
        ('""', "must be a whole number"),
        ('"+1"', "must be a whole number"),
        ('" 1"', "must be a whole number"),
        ("true", "must be a whole number"),
    ],
)
async def test_a_number_that_is_none_or_too_large_is_named(units: str, problem: str, edge: Edge) -> None:
    assert violations(await create(edge, priced(units))) == {"variants[0].price.units": problem}


@pytest.mark.parametrize(
    ("units", "value"),
    [
        ("9223372036854775807", 2**63 - 1),
        ('"9223372036854775807"', 2**63 - 1),
        ('"-9223372036854775808"', -(2**63)),
        ('"007"', 7),
        ("1e2", 100),
        ("-0", 0),
    ],
)
async def test_a_number_that_fits_arrives_exactly(units: str, value: int, edge: Edge) -> None:
    assert (await create(edge, priced(units))).status_code == 200
    assert edge.services.last.request.product.variants[0].price.units == value


async def test_every_wrong_field_is_named_at_once(edge: Edge) -> None:
    body = {
        "request_id": 1,
        "total_amount": 3,
        "currency": "EUR",
        "shipping_address": {"country": None, "x": 1},
    }
    answer = await edge.client.post("/api/v1/orders", json=body, headers=edge.bearer())
    assert violations(answer) == {
        "request_id": "must be a string",
        "total_amount": "unknown field",
        "currency": "unknown field",
        "shipping_address.x": "unknown field",
    }


async def test_of_thousands_of_wrong_fields_the_first_are_named_and_the_others_counted(edge: Edge) -> None:
    fields = [f"{number:05}" for number in range(50_000)]
    answer = await create(edge, dict.fromkeys(fields, 1))
    named = dict.fromkeys(fields[:20], "unknown field")
    assert violations(answer) == named | {"": "and 49980 more"}
    assert answer.json()["message"] == "00000: unknown field; and 49999 more"
    assert len(answer.content) < 2_000


async def test_a_long_name_is_cut_between_two_characters(edge: Edge) -> None:
    for letter, kept in (("x", 64), ("é", 32), ("€", 21), ("😀", 16)):
        body = json.dumps({letter * 100: 1}, ensure_ascii=False).encode()
        assert violations(await create(edge, body)) == {f"{letter * kept}…": "unknown field"}
        mapped = {"specifications": {"x" + letter * 100: 1}}
        ((field, _),) = violations(await create(edge, mapped)).items()
        assert field == f'specifications["x{letter * ((64 - 1) // len(letter.encode()))}…"]'
        assert list(violations(await edge.client.get("/api/v1/products", params={letter * 100: 1}))) == [
            f"{letter * kept}…"
        ]


@pytest.mark.parametrize("where", ["shipping_method", "shippingMethod"])
async def test_fields_go_by_both_spellings(where: str, edge: Edge) -> None:
    answer = await edge.client.post("/api/v1/orders", json={where: "express"}, headers=edge.bearer())
    assert answer.status_code == 200
    assert edge.services.last.request.shipping_method == "express"


async def test_fields_that_exclude_each_other_are_named(edge: Edge) -> None:
    body = {"address_id": PRODUCT_ID, "shipping_address": {}}
    answer = await edge.client.post("/api/v1/orders", json=body, headers=edge.bearer())
    assert violations(answer) == {"shipping_address": "can't be given together with address_id"}
    null = {"address_id": PRODUCT_ID, "shipping_address": None}
    assert (await edge.client.post("/api/v1/orders", json=null, headers=edge.bearer())).status_code == 200


async def test_a_wrong_enum_names_the_right_ones(edge: Edge) -> None:
    url = f"/api/v1/users/{uuid4()}/addresses"
    answer = await edge.client.post(url, json={"kind": "KIND_HOME"}, headers=edge.bearer())
    assert violations(answer) == {"kind": "must be KIND_SHIPPING or KIND_BILLING"}
    fine = await edge.client.post(url, json={"kind": "KIND_BILLING"}, headers=edge.bearer())
    assert fine.status_code == 200


async def test_a_field_of_the_path_is_not_one_of_the_body(edge: Edge) -> None:
    answer = await edge.client.put(
        f"/api/v1/orders/{uuid4()}/cancel", json={"order_id": str(uuid4())}, headers=edge.bearer()
    )
    assert violations(answer) == {"order_id": "unknown field"}


@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_a_body_without_required_fields_is_left_to_the_service(body: bytes, edge: Edge) -> None:
    answer = await edge.client.put(f"/api/v1/orders/{uuid4()}/cancel", content=body, headers=edge.bearer())
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"null", b'"x"', b"{} {}", b"{]", b"{name: 1}", b"{'name': 1}", b"{/* */}",
        b"\xef\xbb\xbf{}",
        b'{"name"}', b'{"name":}', b'{"name":"x",}', b'{"name" "x"}', b'{"name":"x}', b'{"name":"\n"}',
        b'{"name":tru}', b'{"name":nul', b'{"tags":["a",]}', b'{"tags":["a" "b"]}',
        b'{"name":"\\x"}', b'{"name":"\\u12g4"}',
        b'{"name":"\\ud800"}', b'{"name":"\\udc00"}', b'{"name":"\\ud800\\u0041"}', b'{"name":"\xff"}',
        b'{"name":"\xc0\x80"}', b'{"name":"\xed\xa0\x80"}', b'{"name":"\xe2\x82"}',
        b'{"name":"\xf4\x90\x80\x80"}',
        b'{"rating":{"count":01}}', b'{"rating":{"count":1.}}', b'{"rating":{"count":+1}}',
        b'{"rating":{"count":1e}}', b'{"rating":{"count":.5}}', b'{"rating":{"count":NaN}}',
        b'{"a":' * 50, b'{"tags":' + b"[" * 100_000,
    ],
)  # fmt: skip
async def test_a_body_that_is_no_json_is_refused(body: bytes, edge: Edge) -> None:
    answer = await create(edge, body)
    assert answer.status_code == 400
    assert reason(answer) in ("MALFORMED_BODY", "INVALID_ARGUMENT")


async def test_nested_too_deep_is_refused(edge: Edge) -> None:
    answer = await create(edge, b'{"x":' * 40 + b"1" + b"}" * 40)
    assert reason(answer) == "MALFORMED_BODY"
    assert "nested" in answer.json()["message"]


async def test_what_was_mangled_is_judged_as_python_and_protobuf_judge_it(edge: Edge) -> None:
    """Change good bodies at random; what the edge accepts must be right, and what it refuses wrong."""
    seed = random.Random(4)
    good = json.dumps(PRODUCT, ensure_ascii=False).encode()
    pieces = [
        b"\xc3",
        b"\n",
        *rb'"|\|{|}|[|]|,|:|0|-|1e9|null|true| |\u00e9|\ud83d|"name"|"x":1,'.split(b"|"),
    ]
    accepted = 0
    for _ in range(600):
        body = bytearray(good)
        for _ in range(seed.randint(1, 2)):
            at = seed.randrange(len(body))
            body[at : at + seed.choice([0, 0, 1, 1, 5])] = seed.choice([b"", *pieces])
        answer = await create(edge, bytes(body))
        try:
            expected = json_format.Parse(body.decode(), catalog_pb2.Product())
            # Protobuf's own parser is laxer than RFC 8259 and than Envoy on these.
            json.loads(body.decode(), parse_constant=lambda _: 1 / 0)
            body.decode().encode()
        except (json_format.ParseError, ValueError, ZeroDivisionError):
            assert answer.status_code == 400, bytes(body)
            continue
        if answer.status_code == 200:
            accepted += 1
            assert edge.services.last.request.product == expected, bytes(body)
        else:
            # The edge is stricter.
            assert answer.status_code == 400
            assert set(violations(answer).values()) <= {"unknown field", "must be a string"}, bytes(body)
    assert accepted > 20


def escaped(text: str) -> str:
    """The text as JSON may write it, each character escaped."""
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02X}" for at in range(0, len(units), 2))


async def test_json_means_the_same_however_it_is_written(edge: Edge) -> None:
    name, colour, blue = escaped("name"), escaped('c"\\/\b\f\n\r\to€😀'), escaped("bl€u😀")
    count, units, mapped = escaped("12"), escaped("19"), escaped("height")
    body = (
        f'{{"{name}": "{blue}", "v\\u0061riants": [{{"attributes": {{"{colour}": "{blue}"}},'
        f' "price": {{"unit\\u0073": "{units}"}}}}], "specific\\u0061tions": {{"{mapped}": "\\/x"}},'
        f' "rating": {{"count": "{count}"}}}}'
    )
    answer = await create(edge, body.encode())
    assert answer.status_code == 200, answer.text
    assert edge.services.last.request.product == json_format.ParseDict(
        json.loads(body), catalog_pb2.Product()
    )


@pytest.mark.parametrize(
    ("body", "field", "problem"),
    [
        (r'{"name": "x", "n\u0061me": "y"}', "name", "is given twice"),
        (r'{"specifications": {"a": "", "\u0061": ""}}', 'specifications["a"]', "is given twice"),
        (r'{"n\u0061m": "x"}', "nam", "unknown field"),
        (r'{"n\\u0061me": "x"}', r"n\u0061me", "unknown field"),
        (r'{"rating": {"count": "1\u002e5"}}', "rating.count", "must be a whole number"),
    ],
)
async def test_a_name_counts_as_what_it_stands_for(body: str, field: str, problem: str, edge: Edge) -> None:
    assert violations(await create(edge, body.encode())) == {field: problem}


async def test_the_worst_body_does_not_stall_the_edge(edge: Edge) -> None:
    for body in (
        b'{"tags":[' + b'"",' * 300_000 + b'""]}',
        b'{"name":"' + b"\\u00e9" * 170_000 + b'"}',
        b'{"' + b"\\u00e9" * 170_000 + b'":1}',
        b"{" + b",".join(b'"\\u0061%06d":1' % n for n in range(60_000)) + b"}",
        b'{"rating":{"count":"' + b"\\u0031" * 170_000 + b'"}}',
        ('{"name":"' + "€" * 340_000 + '"}').encode(),
        b"{" + b",".join(b'"%06d":1' % n for n in range(95_000)) + b"}",
        b'{"specifications":{' + b",".join(b'"%06d":""' % n for n in range(80_000)) + b"}}",
    ):
        began = edge.cpu_seconds()
        answer = await create(edge, body)
        assert answer.status_code in (200, 400)
        assert edge.cpu_seconds() - began < 1.5, body[:30]


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
async def test_a_body_of_another_type_is_refused(media: str, edge: Edge) -> None:
    headers = edge.bearer() | {"content-type": media}
    answer = await edge.client.post("/api/v1/orders", content=b"{}", headers=headers)
    assert (answer.status_code, reason(answer)) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("media", ["application/json; charset=utf-8", "Application/JSON"])
async def test_json_goes_by_its_media_type_however_written(media: str, edge: Edge) -> None:
    headers = edge.bearer() | {"content-type": media}
    assert (await edge.client.post("/api/v1/orders", content=b"{}", headers=headers)).status_code == 200


async def test_a_webhook_is_passed_on_byte_for_byte(edge: Edge) -> None:
    headers = {"content-type": "application/json", "x-gateway-signature": "t=1,v1=ab"}
    body = b'{"made": "by others",\n "a":1, "a":2}\xff'
    answer = await edge.client.post("/api/v1/payments/webhook", content=body, headers=headers)
    assert answer.status_code == 200
    assert edge.services.last.request.body.data == body
    assert edge.services.last.metadata["x-gateway-signature"] == "t=1,v1=ab"


@pytest.mark.parametrize(
    "path", ["/api/v1/products", "/api/v1/payments/webhook", "/api/v1/auth/login", "/nowhere"]
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_huge_body_is_refused(path: str, chunked: bool, edge: Edge) -> None:
    async def pieces() -> Any:
        for _ in range(40):
            yield b" " * 50_000

    content = pieces() if chunked else b" " * 2_000_000
    headers = edge.bearer() | {"content-type": "application/json"}
    answer = await edge.client.post(path, content=content, headers=headers)
    assert (answer.status_code, reason(answer)) in ((413, "BODY_TOO_LARGE"), (404, "ROUTE_NOT_FOUND"))
    assert (answer.status_code == 404) == (path == "/nowhere" and chunked)


@pytest.mark.parametrize(
    ("query", "field", "problem"),
    [
        ("colour=red", "colour", "unknown query parameter"),
        ("a.b=1", "a.b", "unknown query parameter"),
        ("page_size=abc", "page_size", "must be a whole number"),
        ("page_size=", "page_size", "must be a whole number"),
        ("page_size=1e1", "page_size", "must be a whole number"),
        ("page_size=99999999999", "page_size", "is out of range"),
        ("page_size=1&pageSize=2", "page_size", "is given twice"),
        ("category=%ff", "category", "is not text in percent-encoded UTF-8"),
        ("category=%zz", "category", "is not text in percent-encoded UTF-8"),
        ("category=%00", "category", "is not text in percent-encoded UTF-8"),
        ("%22%5c%0a=1", "?", "unknown query parameter"),
        ("%ff=1", "?", "is not text in percent-encoded UTF-8"),
    ],
)
async def test_a_wrong_query_parameter_is_named(query: str, field: str, problem: str, edge: Edge) -> None:
    found = violations(await edge.client.get(f"/api/v1/products?{query}"))
    assert list(found.values()) == [problem]
    assert field == "?" or field in found


async def test_query_parameters_set_fields(edge: Edge) -> None:
    query = "category=a+b%20c%26&tag=%F0%9F%98%80&page_size=5&min_price=1.50"
    assert (await edge.client.get(f"/api/v1/products?{query}")).status_code == 200
    expected = catalog_pb2.ListProductsRequest(category="a b c&", tag="😀", page_size=5, min_price="1.50")
    assert edge.services.last.request == expected


async def test_a_query_parameter_of_a_list_may_be_repeated(edge: Edge) -> None:
    answer = await edge.client.get("/api/v1/products:batchGet?product_ids=a&product_ids=b")
    assert answer.status_code == 200
    assert list(edge.services.last.request.product_ids) == ["a", "b"]


async def test_a_request_with_a_body_takes_no_query_parameters(edge: Edge) -> None:
    answer = await edge.client.post("/api/v1/orders?request_id=x", json={}, headers=edge.bearer())
    assert violations(answer) == {"request_id": "unknown query parameter"}


@pytest.mark.parametrize("path", ["/api/v1/products/%ff", "/api/v1/products/a%00b"])
async def test_a_path_that_is_no_text_is_refused(path: str, edge: Edge) -> None:
    answer = await edge.client.get(path)
    assert (answer.status_code, reason(answer)) == (400, "MALFORMED_REQUEST")


@pytest.mark.parametrize(
    "path", ["/nowhere", "/api/v1", "/api/v1/products/", "/api/v2/products", "/API/v1/products"]
)
async def test_an_unknown_path_is_not_found(path: str, edge: Edge) -> None:
    answer = await edge.client.get(path)
    assert (answer.status_code, reason(answer)) == (404, "ROUTE_NOT_FOUND")


async def test_a_method_that_a_path_does_not_have_is_not_allowed(edge: Edge) -> None:
    for path, method, allowed in [
        ("/api/v1/products", "DELETE", "GET, HEAD, OPTIONS, POST"),
        (f"/api/v1/orders/{uuid4()}/cancel", "POST", "OPTIONS, PUT"),
        ("/api/v1/auth/login", "GET", "OPTIONS, POST"),
        ("/healthz", "POST", "GET, HEAD, OPTIONS"),
    ]:
        answer = await edge.client.request(method, path)
        assert (answer.status_code, reason(answer)) == (405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == allowed
        # Not a preflight without both of its headers.
        for headers in ({}, {"origin": "http://evil.example"}, {"access-control-request-method": "PUT"}):
            options = await edge.client.options(path, headers=headers)
            assert (options.status_code, options.content) == (204, b"")
            assert options.headers["allow"] == allowed
    assert (await edge.client.options("/nowhere")).status_code == 404


async def test_native_grpc_is_refused_in_its_own_terms(edge: Edge) -> None:
    calls = len(edge.services.calls)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
        metadata = [("authorization", edge.bearer()["authorization"])]
        stub = order_pb2_grpc.OrderServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await stub.GetOrder(order_pb2.GetOrderRequest(order_id=str(uuid4())), metadata=metadata)
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert refusal.value.details() == "the edge serves JSON over HTTP, not gRPC"
    assert len(edge.services.calls) == calls


@pytest.mark.parametrize("media", ["application/grpc", "application/grpc+json", "application/grpc-web+proto"])
@pytest.mark.parametrize(
    "path",
    [
        "/stoa.order.v1.OrderService/GetOrder",
        "/stoa.cart.v1.CartService/GetCartForCheckout",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.health.v1.Health/Check",
        "/api/v1/orders",
    ],
)
async def test_no_grpc_path_leads_to_a_service(path: str, media: str, edge: Edge) -> None:
    calls = len(edge.services.calls)
    headers = edge.bearer() | {"content-type": media}
    answer = await edge.client.post(path, content=b"\0\0\0\0\0", headers=headers)
    assert answer.headers.get("grpc-status") == "12" or answer.status_code in (404, 415)
    assert len(edge.services.calls) == calls


async def test_every_public_rpc_is_reachable_by_its_path(edge: Edge) -> None:
    for each in ROUTES:
        path = each.route.path
        for name in each.route.bound:
            path = path.replace(f"{{{name}}}", str(uuid4()))
        answer = await edge.client.request(each.route.verb, path, headers=edge.bearer())
        assert answer.status_code == 200, (each.name, answer.text)
        if not each.name.endswith("/GetJwks"):
            assert edge.services.last.rpc == each.name


async def test_a_deletion_may_carry_what_proves_who_asks_for_it(edge: Edge) -> None:
    user_id, headers = str(uuid4()), edge.bearer()
    body = {"current_password": "correct horse"}
    path = f"/api/v1/users/{user_id}"
    assert (await edge.client.request("DELETE", path, json=body, headers=headers)).status_code == 200
    asked = edge.services.last.request
    assert (asked.user_id, asked.current_password) == (user_id, "correct horse")
    assert (await edge.client.request("DELETE", path, headers=headers)).status_code == 200
    assert edge.services.last.request.current_password == ""
    unknown = await edge.client.request("DELETE", path, json={"password": "x"}, headers=headers)
    assert set(violations(unknown)) == {"password"}


@pytest.mark.parametrize("content", [{}, {"json": {}}, {"content": b""}])
async def test_what_takes_no_body_may_be_sent_an_empty_one(edge: Edge, content: Any) -> None:
    assert (await edge.client.post("/api/v1/auth/guest", **content)).status_code == 200
    assert edge.services.last.rpc == "stoa.user.v1.AuthService/CreateGuest"
