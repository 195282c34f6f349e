"""What a caller learns when a call does not go well, and what it does not."""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import grpc
import pytest
from chassis_example import echo_pb2_grpc
from chassis_example.echo_pb2 import EchoRequest
from chassis_example.echo_pb2_grpc import EchoStub
from google.rpc import error_details_pb2, status_pb2

from stoa_chassis import context
from stoa_chassis.errors import (
    AlreadyExists,
    Code,
    FieldViolation,
    RemoteError,
    RequestIdReused,
    check_same_request,
)
from stoa_chassis.outages import is_outage, register_outage
from stoa_chassis.status import answer
from stoa_chassis.testing import InProcessServer, eventually, serve_in_process
from stoa_contracts.declarations import EDGE
from stoa_contracts.money import Money
from stoa_example.servicer import EchoServicer


async def refusal(echo: InProcessServer, text: str) -> RemoteError:
    with pytest.raises(RemoteError) as refused:
        await echo.stub(EchoStub).Write(EchoRequest(text=text))
    return refused.value


async def test_a_domain_error_arrives_with_all_that_it_says(echo: InProcessServer) -> None:
    error = await refusal(echo, "out-of-stock")
    assert (error.code, error.reason, error.message) == (
        Code.FAILED_PRECONDITION,
        "OUT_OF_STOCK",
        "only 2 left",
    )
    assert error.metadata == {"variant": "v1"}
    assert error.retry_after == timedelta(seconds=3)


async def test_the_status_is_the_standard_one(echo: InProcessServer) -> None:
    credentials = echo.certificates(EDGE).current().channel_credentials()
    options = (("grpc.ssl_target_name_override", f"{echo.name}.stoa.internal"),)
    async with grpc.aio.secure_channel(echo.target, credentials, options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await EchoStub(channel).Anyone(EchoRequest(text="out-of-stock"))
    raw = dict(refused.value.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(raw)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, info.reason, info.domain) == (9, "OUT_OF_STOCK", "stoa")


@pytest.mark.parametrize("defect", ["crash", "wrong-type"])
async def test_a_defect_of_ours_tells_the_caller_nothing(echo: InProcessServer, defect: str) -> None:
    error = await refusal(echo, defect)
    assert (error.code, error.reason, error.message) == (Code.INTERNAL, "INTERNAL", "internal error")


async def test_an_outage_of_a_store_says_come_back_later(echo: InProcessServer) -> None:
    error = await refusal(echo, "store-down")
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "DEPENDENCY_DOWN")
    assert error.retry_after
    assert "10.0.0.1" not in error.message


async def test_a_stream_ends_with_the_error_as_well(echo: InProcessServer) -> None:
    items = echo.stub(EchoStub, as_user="ann").Count(EchoRequest(quantity=2, text="out-of-stock"))
    assert [(await anext(items)).text, (await anext(items)).text] == ["0", "1"]
    with pytest.raises(RemoteError) as refused:
        await anext(items)
    assert refused.value.reason == "OUT_OF_STOCK"


def test_adapters_say_what_an_outage_is() -> None:
    class DriverLostConnection(Exception):
        pass

    assert not is_outage(DriverLostConnection())
    register_outage(DriverLostConnection)
    assert is_outage(DriverLostConnection())


def test_our_own_mistake_in_calling_a_peer_is_not_blamed_on_the_caller() -> None:
    def told(code: Code, reason: str) -> Code:
        return answer(RemoteError("payment", "/p/M", code, reason, "no")).code

    assert told(Code.UNAUTHENTICATED, "TOKEN_MISSING") is Code.INTERNAL
    assert told(Code.PERMISSION_DENIED, "SERVICE_NOT_ALLOWED") is Code.INTERNAL
    assert told(Code.FAILED_PRECONDITION, "CARD_DECLINED") is Code.FAILED_PRECONDITION
    assert told(Code.UNAVAILABLE, "CIRCUIT_OPEN") is Code.UNAVAILABLE


@dataclass(frozen=True)
class Place:
    city: str
    floor: int


TEN = Money(Decimal(10), "USD")


@dataclass(frozen=True)
class Asked:
    amount: Money | None = TEN
    reason: str = "broken"
    quantity: int = 1
    place: Place | UUID | None = Place("Oslo", 2)


@pytest.mark.parametrize(
    ("again", "differing"),
    [
        (Asked(amount=None), {"amount": "was 10.00 USD the first time, now it is left out"}),
        (
            Asked(amount=Money(Decimal(9), "USD")),
            {"amount": "was 10.00 USD the first time, now it is 9.00 USD"},
        ),
        (Asked(reason="late"), {"reason": "is not what it was the first time"}),
        (Asked(reason=""), {"reason": "is not what it was the first time"}),
        (Asked(place=Place("Oslo", 3)), {"place.floor": "was 2 the first time, now it is 3"}),
        (Asked(place=Place("Bergen", 2)), {"place.city": "is not what it was the first time"}),
        (
            Asked(quantity=2, reason="late"),
            {
                "reason": "is not what it was the first time",
                "quantity": "was 1 the first time, now it is 2",
            },
        ),
    ],
)
def test_a_key_that_comes_again_with_another_request_is_refused_field_by_field(
    again: Asked, differing: dict[str, str]
) -> None:
    with pytest.raises(RequestIdReused) as refused:
        check_same_request(Asked(), again)
    error = refused.value
    assert isinstance(error, AlreadyExists)
    assert (error.code, error.reason) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert error.violations == tuple(FieldViolation(*each) for each in differing.items())


def test_a_key_that_is_refused_says_what_to_do() -> None:
    with pytest.raises(RequestIdReused) as refused:
        check_same_request(Asked(), Asked(amount=None, reason="late"))
    assert refused.value.message == (
        "this request_id was used for another request: "
        "amount was 10.00 USD the first time, now it is left out; "
        "reason is not what it was the first time. A new request needs a new request_id"
    )


def test_a_key_that_comes_again_with_the_same_request_is_welcome() -> None:
    check_same_request(Asked(), Asked())


def test_texts_of_the_first_request_are_not_told_to_who_sends_the_second() -> None:
    with pytest.raises(RequestIdReused) as refused:
        check_same_request(Asked(reason="a secret", place=Place("Oslo", 1)), Asked(place=UUID(int=1)))
    told = refused.value.message + str(refused.value.violations)
    assert "secret" not in told
    assert "Oslo" not in told


async def test_load_above_the_limit_is_shed_and_the_rest_served() -> None:
    servicer = EchoServicer()
    async with serve_in_process(
        echo_pb2_grpc.add_EchoServicer_to_server, servicer, max_concurrent_rpcs=3
    ) as server:
        stub = server.stub(EchoStub)
        calls = [asyncio.ensure_future(stub.Anyone(EchoRequest(text="wait"))) for _ in range(8)]
        await eventually(lambda: sum(call.done() for call in calls) == 5)
        servicer.released.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        shed = [result for result in results if isinstance(result, RemoteError)]
        assert len(shed) == 5
        assert {(error.code, error.reason) for error in shed} == {(Code.RESOURCE_EXHAUSTED, "OVERLOADED")}
        assert all(error.retry_after for error in shed)
        await stub.Anyone(EchoRequest())


async def test_a_caller_that_gives_up_stops_the_work() -> None:
    servicer = EchoServicer()
    async with serve_in_process(
        echo_pb2_grpc.add_EchoServicer_to_server, servicer, max_concurrent_rpcs=1
    ) as server:
        stub = server.stub(EchoStub)
        call = asyncio.ensure_future(stub.Anyone(EchoRequest(text="sleep:30")))
        await eventually(lambda: servicer.calls["sleep:30"])
        call.cancel()
        await asyncio.wait_for(servicer.cancelled.wait(), 30)
        await stub.Anyone(EchoRequest())  # its place is free again


async def test_a_call_ends_at_its_deadline(echo: InProcessServer) -> None:
    began = time.monotonic()
    with pytest.raises(RemoteError) as refused:
        await echo.stub(EchoStub).Anyone(EchoRequest(text="sleep:30"), timeout=0.2)
    assert refused.value.code is Code.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 20


async def test_the_correlation_id_travels_and_nonsense_is_replaced(echo: InProcessServer) -> None:
    stub = echo.stub(EchoStub)
    with context.bound("order-42"):
        assert (await stub.Anyone(EchoRequest(text="correlation"))).text == "order-42"
    for key, given, kept in (
        ("x-request-id", "a-b-1", True),
        ("x-correlation-id", "spoofed line {}", False),
        ("x-request-id", "x" * 200, False),
    ):
        got = (await stub.Anyone(EchoRequest(text="correlation"), metadata=((key, given),))).text
        assert (got == given) is kept
        assert got
