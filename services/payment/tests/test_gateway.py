"""What the adapter makes of a gateway that answers badly or not at all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeAlias
from uuid import uuid4

import orjson
import pytest

from stoa_contracts.money import Money
from stoa_payment.gateway import HttpGateway, NoAnswer
from stoa_payment.model import ChargeStatus, Payment, RetryPolicy

Answering: TypeAlias = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]

PATIENCE = timedelta(seconds=0.3)
PAYMENT = Payment.begin(
    uuid4(),
    uuid4(),
    Money(Decimal("12.34"), "USD"),
    "tok_visa",
    "a-request",
    RetryPolicy(timedelta(1), timedelta(1), timedelta(1), timedelta(1)),
    datetime.now(UTC),
)
CHARGE = {
    "id": "ch_1",
    "amount": 1234,
    "currency": "USD",
    "status": "succeeded",
    "failure_code": None,
    "card": {"brand": "visa", "last4": "4242"},
    "metadata": {"order_id": str(PAYMENT.order_id)},
}
DECLINED = {**CHARGE, "status": "failed", "failure_code": "card_declined"}


def response(status: int, content: object, headers: str = "") -> bytes:
    body = orjson.dumps(content)
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body


def says(answer: bytes) -> Answering:
    """Answer each request with the same bytes and keep the connection."""

    async def answering(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return answering


async def hangs_up(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def hangs_up_in_the_middle(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(response(200, CHARGE)[:-20])
    writer.close()


@asynccontextmanager
async def speaking_to(answering: Answering) -> AsyncIterator[HttpGateway]:
    """Connect to a gateway that answers like this."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await answering(head + await reader.readexactly(int(length or 0)), writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with HttpGateway.connect(f"http://127.0.0.1:{port}/shop", "key", "secret", PATIENCE) as gateway:
            yield gateway


async def test_a_request_says_who_asks_for_what_and_with_which_key() -> None:
    heard: list[bytes] = []

    async def answering(request: bytes, writer: asyncio.StreamWriter) -> None:
        heard.append(request)
        writer.write(response(200, CHARGE if request.startswith(b"POST") else {"data": [CHARGE]}))

    async with speaking_to(answering) as gateway:
        charge = await gateway.charge(PAYMENT)
        assert await gateway.find(PAYMENT) == charge
    assert (charge.status, charge.amount) == (ChargeStatus.SUCCEEDED, PAYMENT.amount)
    (head, _, body), (found, _, _) = (request.partition(b"\r\n\r\n") for request in heard)
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /shop/v1/charges http/1.1"
    assert {"authorization: bearer key", f"idempotency-key: {PAYMENT.order_id}"} < set(lines)
    assert orjson.loads(body) == {
        "amount": 1234,
        "currency": "USD",
        "token": "tok_visa",
        "metadata": {"order_id": str(PAYMENT.order_id)},
    }
    assert found.startswith(b"GET /shop/v1/charges?idempotency_key=%s " % str(PAYMENT.order_id).encode())


async def test_a_decline_is_an_answer() -> None:
    async with speaking_to(says(response(402, {"error": {"charge": DECLINED}}))) as gateway:
        charge = await gateway.charge(PAYMENT)
    assert (charge.status, charge.failure_code) == (ChargeStatus.FAILED, "card_declined")


@pytest.mark.parametrize(
    "answering",
    [
        pytest.param(says(b""), id="silence"),
        pytest.param(says(response(200, CHARGE)[:-20]), id="an answer that never ends"),
        pytest.param(hangs_up, id="a closed connection"),
        pytest.param(hangs_up_in_the_middle, id="a connection closed in the middle"),
        pytest.param(says(b"SSH-2.0-OpenSSH_9.6\r\n"), id="another protocol"),
        pytest.param(says(response(200, {"id": "ch_1"})), id="another content"),
        pytest.param(says(response(302, {}, "location: /elsewhere\r\n")), id="a redirect"),
        pytest.param(says(response(409, {})), id="a refusal"),
        pytest.param(says(response(500, CHARGE)), id="an error"),
    ],
)
async def test_anything_else_is_no_answer(answering: Answering) -> None:
    async with speaking_to(answering) as gateway:
        with pytest.raises(NoAnswer):
            await gateway.charge(PAYMENT)


async def test_a_connection_that_closed_while_it_was_idle_is_not_used_again() -> None:
    async def answering(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(200, CHARGE))
        writer.close()

    async with speaking_to(answering) as gateway:
        for _ in range(3):
            assert (await gateway.charge(PAYMENT)).charge_id == "ch_1"
            await asyncio.sleep(0.05)


async def test_nobody_there_is_no_answer_and_soon_nobody_is_asked() -> None:
    async with HttpGateway.connect("http://127.0.0.1:1", "key", "secret", PATIENCE) as gateway:
        for _ in range(5):
            with pytest.raises(NoAnswer, match="Connect"):
                await gateway.find(PAYMENT)
        with pytest.raises(NoAnswer, match="for a while"):
            await gateway.find(PAYMENT)
