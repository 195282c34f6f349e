"""What a client gets to see of what happens behind the edge."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2

from stoa.catalog.v1 import catalog_pb2
from stoa.inventory.v1 import inventory_pb2
from stoa.shipping.v1 import shipping_pb2
from stoa_chassis.testing import eventually
from stoa_gateway import Limit, RateLimits

from .conftest import (
    ORIGIN,
    SERVICES,
    Edge,
    ServiceError,
    check_may_be_read,
    knows_the_keys,
    reason,
    running,
)

GET_ORDER = "stoa.order.v1.OrderService/GetOrder"
PLACE_ORDER = "stoa.order.v1.OrderService/PlaceOrder"
GET_INVENTORY = "stoa.inventory.v1.InventoryService/GetInventory"
GET_LABEL = "stoa.shipping.v1.ShippingService/GetShipmentLabel"
LIST_PRODUCTS = "stoa.catalog.v1.CatalogService/ListProducts"
CREATE_USER = "stoa.user.v1.UserService/CreateUser"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (code_pb2.INVALID_ARGUMENT, 400),
        (code_pb2.FAILED_PRECONDITION, 400),
        (code_pb2.UNAUTHENTICATED, 401),
        (code_pb2.PERMISSION_DENIED, 403),
        (code_pb2.NOT_FOUND, 404),
        (code_pb2.ALREADY_EXISTS, 409),
        (code_pb2.ABORTED, 409),
        (code_pb2.RESOURCE_EXHAUSTED, 429),
        (code_pb2.INTERNAL, 500),
        (code_pb2.UNAVAILABLE, 503),
        (code_pb2.DEADLINE_EXCEEDED, 504),
    ],
)
async def test_an_error_of_a_service_keeps_its_details(code: int, status: int, edge: Edge) -> None:
    def refuse(_: object) -> None:
        raise ServiceError(code, "it is so – because", "BECAUSE")

    with edge.answering(CREATE_USER, refuse):
        answer = await edge.client.post("/api/v1/users", json={}, headers={"origin": ORIGIN})
    assert (answer.status_code, reason(answer)) == (status, "BECAUSE")
    check_may_be_read(answer)
    assert answer.json()["code"] == code
    assert answer.json()["message"] == "it is so – because"


async def test_a_file_is_answered_byte_for_byte(edge: Edge) -> None:
    pdf = b"%PDF-1.4\n\x00\xff" * 3
    label = HttpBody(content_type="application/pdf", data=pdf)
    with edge.answering(GET_LABEL, shipping_pb2.GetShipmentLabelResponse(label=label)):
        answer = await edge.client.get(f"/api/v1/shipments/{uuid4()}/label", headers=edge.bearer())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf")
    assert answer.content == pdf


async def test_a_file_that_can_not_be_had_is_an_error_as_any(edge: Edge) -> None:
    def refuse(_: object) -> None:
        raise ServiceError(code_pb2.NOT_FOUND, "the order has no shipment", "SHIPMENT_NOT_FOUND")

    with edge.answering(GET_LABEL, refuse):
        answer = await edge.client.get(f"/api/v1/shipments/{uuid4()}/label", headers=edge.bearer())
    assert (answer.status_code, reason(answer)) == (404, "SHIPMENT_NOT_FOUND")
    assert answer.headers["content-type"] == "application/json"


async def test_what_fails_for_a_moment_is_asked_again_if_that_is_safe(edge: Edge) -> None:
    tries = 0

    def fail_once(_: object) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ServiceError(code_pb2.UNAVAILABLE, "not now", "NOT_NOW")

    with edge.answering(PLACE_ORDER, fail_once):
        answer = await edge.client.post("/api/v1/orders", json={}, headers=edge.bearer())
    assert (answer.status_code, tries) == (200, 2)
    tries = 0
    with edge.answering(CREATE_USER, fail_once):
        answer = await edge.client.post("/api/v1/users", json={})
    assert (answer.status_code, tries) == (503, 1)


async def test_a_service_that_is_down_is_unavailable(tmp_path: Path) -> None:
    async with running(tmp_path, upstreams=dict.fromkeys(SERVICES, "127.0.0.1:9")) as edge:
        began = time.perf_counter()
        answer = await edge.client.get("/api/v1/products", headers={"origin": ORIGIN})
        assert (answer.status_code, reason(answer)) == (503, "UPSTREAM_UNAVAILABLE")
        assert answer.json()["details"][1]["@type"] == "type.googleapis.com/google.rpc.RetryInfo"
        assert answer.headers["retry-after"] == "1"
        check_may_be_read(answer)
        assert time.perf_counter() - began < 3


async def test_a_service_that_is_slow_is_given_up(tmp_path: Path) -> None:
    async def dawdle(_: object) -> None:
        await asyncio.sleep(5)

    async with running(tmp_path, timeouts={GET_ORDER: 0.3}) as edge:
        await knows_the_keys(edge)
        with edge.answering(GET_ORDER, dawdle):
            headers = edge.bearer() | {"origin": ORIGIN}
            answer = await edge.client.get(f"/api/v1/orders/{uuid4()}", headers=headers)
        assert (answer.status_code, reason(answer)) == (504, "UPSTREAM_TIMEOUT")
        check_may_be_read(answer)
        assert answer.json()["code"] == code_pb2.DEADLINE_EXCEEDED
        assert edge.services.last.seconds_left <= 0.35, "the service knows that nobody waits longer"


async def test_more_than_a_service_can_bear_is_refused_at_once(edge: Edge) -> None:
    released = asyncio.Event()

    async def wait(_: object) -> None:
        await released.wait()

    with edge.answering(LIST_PRODUCTS, wait):
        calls = [asyncio.create_task(_head(edge, "GET /api/v1/products")) for _ in range(300)]
        await eventually(lambda: sum(call.done() for call in calls) >= 300 - 256)
        released.set()
        answers = await asyncio.gather(*calls)
    assert Counter(answer.status_code for answer in answers) == {429: 300 - 256, 200: 256}
    for answer in answers:
        check_may_be_read(answer)


@pytest.mark.slow
async def test_a_body_that_does_not_arrive_is_waited_for_half_a_minute(edge: Edge) -> None:
    answer = await _head(edge, "POST /api/v1/auth/login", "content-length: 2")
    assert answer.status_code == 408
    check_may_be_read(answer)


async def _head(edge: Edge, request: str, *headers: str) -> httpx.Response:
    """Send a request without a body on a connection of its own; return the answer without its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(
        "\r\n".join([f"{request} HTTP/1.1", "host: x", f"origin: {ORIGIN}", *headers, "", ""]).encode()
    )
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    writer.close()
    named = [line.partition(": ") for line in lines if line]
    return httpx.Response(int(status.split()[1]), headers=[(name, value) for name, _, value in named])


async def test_a_browser_of_a_known_origin_may_call(edge: Edge) -> None:
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "PUT",
        "access-control-request-headers": "authorization,content-type",
    }
    preflight = await edge.client.options(f"/api/v1/orders/{uuid4()}/cancel", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "origin" in preflight.headers["vary"]
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    for headers in ({}, edge.bearer(), {"authorization": "Bearer x"}):
        answer = await edge.client.get(f"/api/v1/orders/{uuid4()}", headers={**headers, "origin": ORIGIN})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in answer.headers["access-control-expose-headers"]


async def test_a_browser_of_another_origin_may_not(edge: Edge) -> None:
    asked = {"origin": "http://evil.example", "access-control-request-method": "PUT"}
    for path in ("/api/v1/orders", "/nowhere"):
        preflight = await edge.client.options(path, headers=asked)
        assert preflight.status_code == 200
        assert "access-control-allow-origin" not in preflight.headers
        assert "origin" in preflight.headers["vary"]
    for path in ("/api/v1/products", "/healthz", "/nowhere"):
        answer = await edge.client.get(path, headers={"origin": "http://evil.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "origin" in answer.headers["vary"]


# What needs a service, or an edge of its own, is checked where it is provoked: 403, 408, 409, 429, 500, 503,
# 504. Who sends more than 64 KiB of headers (431) is refused before her origin is read.
EVERY_KIND_OF_ANSWER = [
    # method, path, headers, body, status
    ("GET", "/api/v1/products", {}, b"", 200),
    ("GET", "/healthz", {}, b"", 200),
    ("OPTIONS", "/api/v1/products", {}, b"", 204),
    ("GET", "/api/v1/products?x=1", {}, b"", 400),
    ("GET", "/api/v1/products/a%00b", {}, b"", 400),
    ("GET", "/api/v1/orders/0198c3a2", {}, b"", 401),
    ("GET", "/api/v1/products", {"authorization": "Bearer x"}, b"", 401),
    ("GET", "/nowhere", {}, b"", 404),
    ("DELETE", "/api/v1/products", {}, b"", 405),
    ("POST", "/api/v1/auth/login", {}, b" " * 2_000_000, 413),
    ("GET", f"/api/v1/products?tag={'x' * 17_000}", {}, b"", 414),
    ("POST", "/api/v1/auth/login", {"content-type": "text/plain"}, b"x", 415),
    ("GET", "/api/v1/products", {"authorization": f"Basic {'x' * 8000}"}, b"", 401),
    ("GET", "/api/v1/products", {"traceparent": "x" * 8000}, b"", 431),
]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    EVERY_KIND_OF_ANSWER,
    ids=[f"{status} {method} {path[:30]}" for method, path, _, _, status in EVERY_KIND_OF_ANSWER],
)
async def test_a_known_origin_may_read_every_answer(
    method: str, path: str, headers: dict[str, str], body: bytes, status: int, edge: Edge
) -> None:
    headers = headers | {"origin": ORIGIN}
    answer = await edge.client.request(method, path, headers=headers, content=body)
    assert answer.status_code == status, answer.text
    check_may_be_read(answer)


async def test_without_known_origins_no_answer_differs_by_it(tmp_path: Path) -> None:
    async with running(tmp_path, cors_origins=()) as edge:
        answer = await edge.client.get("/nowhere", headers={"origin": ORIGIN})
        assert "access-control-allow-origin" not in answer.headers
        assert "vary" not in answer.headers


@pytest.mark.parametrize("coding", ["gzip", "br"])
async def test_a_long_answer_is_compressed(coding: str, edge: Edge) -> None:
    products = [catalog_pb2.Product(name="Lamp", description="x" * 500) for _ in range(20)]
    with edge.answering(LIST_PRODUCTS, catalog_pb2.ListProductsResponse(products=products)):
        request = edge.client.build_request("GET", "/api/v1/products", headers={"accept-encoding": coding})
        answer = await edge.client.send(request, stream=True)
        raw = b"".join([part async for part in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == coding
    assert len(raw) < 1000
    assert "Accept-Encoding" in answer.headers["vary"]


@pytest.mark.parametrize("path", ["/api/v1/products", "/api/v1/orders/0198c3a2", "/nowhere", "/healthz"])
async def test_no_answer_tells_what_it_need_not(path: str, edge: Edge) -> None:
    headers = (await edge.client.get(path, headers=edge.bearer())).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert not [name for name in headers if name == "server" or name.startswith(("x-envoy", "grpc"))]


async def test_only_what_anyone_may_read_is_kept_by_caches(edge: Edge) -> None:
    async def caching(method: str, path: str) -> str:
        answer = await edge.client.request(method, path, headers=edge.bearer())
        return str(answer.headers["cache-control"])

    assert await caching("GET", "/api/v1/products") == "no-cache"
    assert await caching("GET", f"/api/v1/orders/{uuid4()}") == "no-store"
    assert await caching("POST", "/api/v1/auth/login") == "no-store"
    assert await caching("GET", "/nowhere") == "no-store"


async def test_the_edge_says_what_there_is(edge: Edge) -> None:
    assert (await edge.client.get("/healthz")).json() == {"status": "ok"}
    assert (await edge.client.head("/healthz")).status_code == 200
    links = (await edge.client.get("/")).json()
    description = await edge.client.get(links["openapi"])
    assert description.headers["content-type"] == "application/yaml"
    assert "openapi: 3" in description.text


async def test_what_no_service_reads_does_not_reach_one(edge: Edge) -> None:
    unread = {
        "cookie": "; ".join(f"other_{n}={'x' * 1000}" for n in range(32)),
        "user-agent": "x" * 2000,
        "referer": "http://localhost/" + "x" * 2000,
        "x-forwarded-for": ", ".join(["192.0.2.1"] * 200),
        "baggage": "x" * 2000,
        "tracestate": "x" * 2000,
    }
    read = edge.bearer() | {"traceparent": f"00-{uuid4().hex}-{uuid4().hex[:16]}-01"}
    path = f"/api/v1/orders/{'x' * 15_000}"
    answer = await edge.client.get(path, headers=unread | read)
    assert answer.status_code == 200, answer.text
    got = edge.services.last.metadata
    assert {name: got[name] for name in read} == read
    assert got.keys() == {*read, "x-request-id", "x-stoa-client-address"}


@pytest.mark.parametrize(
    ("path", "headers", "status", "expected"),
    [
        ("/api/v1/products", {"x-long": "x" * 70_000}, 431, "HEADERS_TOO_LARGE"),
        ("/api/v1/products", {"traceparent": "x" * 8_000}, 431, "HEADERS_TOO_LARGE"),
        (f"/api/v1/products/{'x' * 17_000}", {}, 414, "PATH_TOO_LONG"),
        (f"/api/v1/products?tag={'x' * 17_000}", {}, 414, "PATH_TOO_LONG"),
    ],
)
async def test_what_is_truly_too_large_is_refused_by_the_edge(
    path: str, headers: dict[str, str], status: int, expected: str, edge: Edge
) -> None:
    calls = len(edge.services.calls)
    answer = await edge.client.get(path, headers=headers)
    assert (answer.status_code, reason(answer)) == (status, expected)
    assert not any(name in answer.text for name in ("traceparent", "x-envoy", ":path", "metadata"))
    assert len(edge.services.calls) == calls


@pytest.mark.parametrize("seconds", ["0.2", "1", "1.000000001", "37"])
async def test_every_error_that_says_when_to_try_again_says_so_in_a_header(seconds: str, edge: Edge) -> None:
    whole, _, fraction = seconds.partition(".")
    delay = Duration(seconds=int(whole), nanos=int(fraction.ljust(9, "0") or "0"))
    expected = str(int(whole) + bool(fraction))
    for code in (code_pb2.RESOURCE_EXHAUSTED, code_pb2.UNAVAILABLE, code_pb2.ABORTED):

        def refuse(_: object, code: int = code) -> None:
            raise ServiceError(code, "not now", "NOT_NOW", error_details_pb2.RetryInfo(retry_delay=delay))

        with edge.answering(CREATE_USER, refuse):
            answer = await edge.client.post("/api/v1/users", json={})
        assert reason(answer) == "NOT_NOW"
        assert answer.json()["details"][1]["@type"] == "type.googleapis.com/google.rpc.RetryInfo"
        assert answer.headers["retry-after"] == expected


async def test_an_error_that_says_nothing_of_trying_again_has_no_header_for_it(edge: Edge) -> None:
    def refuse(_: object) -> None:
        told = '"type.googleapis.com/google.rpc.RetryInfo","retry_delay":"5s"'
        raise ServiceError(code_pb2.INVALID_ARGUMENT, told, "BECAUSE")

    with edge.answering(CREATE_USER, refuse):
        answer = await edge.client.post("/api/v1/users", json={})
    assert "retry-after" not in answer.headers


async def test_head_answers_as_get_does_without_the_body(edge: Edge) -> None:
    products = [catalog_pb2.Product(name="Lamp", description="x" * 500) for _ in range(20)]
    stock = inventory_pb2.Inventory(variant_id=str(uuid4()), stock_count=3, available=3)
    plain = edge.bearer() | {"accept-encoding": "identity"}
    with (
        edge.answering(LIST_PRODUCTS, catalog_pb2.ListProductsResponse(products=products)),
        edge.answering(GET_INVENTORY, inventory_pb2.GetInventoryResponse(inventory=stock)),
    ):
        for path in ("/api/v1/products", f"/api/v1/inventory/{stock.variant_id}", "/healthz", "/nowhere"):
            get = await edge.client.get(path, headers=plain)
            for coding in ("identity", "gzip"):
                head = await edge.client.head(path, headers=plain | {"accept-encoding": coding})
                assert (head.status_code, head.content) == (get.status_code, b"")
                varying = {"date", "x-request-id", "vary"}
                expected = {name: value for name, value in get.headers.items() if name not in varying}
                assert {n: v for n, v in head.headers.items() if n not in varying} == expected


async def test_head_is_refused_as_get_is(edge: Edge) -> None:
    def refuse(_: object) -> None:
        delay = Duration(seconds=3)
        raise ServiceError(
            code_pb2.NOT_FOUND, "no such order", "GONE", error_details_pb2.RetryInfo(retry_delay=delay)
        )

    mine = f"/api/v1/orders/{uuid4()}"
    head = await edge.client.head(mine)
    assert (head.status_code, head.content) == (401, b"")
    with edge.answering(GET_ORDER, refuse):
        head = await edge.client.head(mine, headers=edge.bearer())
    assert (head.status_code, head.content, head.headers["retry-after"]) == (404, b"", "3")
    assert int(head.headers["content-length"]) > 50
    # The connection is still in step.
    assert (await edge.client.get("/healthz")).json() == {"status": "ok"}
    assert (await edge.client.head("/api/v1/products?x=1")).status_code == 400
    login = await edge.client.head("/api/v1/auth/login")
    assert (login.status_code, login.headers["allow"]) == (405, "OPTIONS, POST")


async def test_the_access_log_knows_head(edge: Edge) -> None:
    request_id = str(uuid4())
    await edge.client.head("/api/v1/products", headers={"x-request-id": request_id})
    entry = await edge.logged(request_id)
    assert (entry["method"], entry["path"], entry["rpc"]) == ("HEAD", "/api/v1/products", LIST_PRODUCTS)


async def _until_refused(edge: Edge, method: str, path: str, **request: Any) -> int:
    request["headers"] = request.get("headers", {}) | {"origin": ORIGIN}
    for count in range(100):
        answer = await edge.client.request(method, path, **request)
        if answer.status_code == 429:
            assert reason(answer) == "RATE_LIMITED"
            assert answer.json()["code"] == code_pb2.RESOURCE_EXHAUSTED
            assert answer.json()["details"][1]["retry_delay"] == "1s"
            assert answer.headers["retry-after"] == "1"
            assert len(answer.headers["x-request-id"]) == 36
            check_may_be_read(answer)
            return count
        assert answer.status_code == 200
    raise AssertionError("never refused")


async def test_a_client_that_asks_too_much_is_slowed_down(tmp_path: Path) -> None:
    slow = RateLimits(
        by_address=Limit(per_second=1, burst=40),
        by_user=Limit(per_second=1, burst=5),
        sign_in=Limit(per_second=1, burst=3),
    )
    async with running(tmp_path, rate_limits=slow) as edge:
        await knows_the_keys(edge)
        mine = f"/api/v1/orders/{uuid4()}"
        first, second = edge.bearer(), edge.bearer()
        assert await _until_refused(edge, "GET", mine, headers=first) in (5, 6)
        assert await _until_refused(edge, "GET", mine, headers=second) in (5, 6), "each user has their own"
        assert await _until_refused(edge, "POST", "/api/v1/auth/login", json={}) in (3, 4)
        assert await _until_refused(edge, "POST", "/api/v1/users", json={}) in (3, 4)
        assert await _until_refused(edge, "POST", "/api/v1/auth/guest") in (3, 4)
        assert await _until_refused(edge, "GET", "/api/v1/products") > 5
