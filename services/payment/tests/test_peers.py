"""The adapter to the gateway: what it asks, and what it makes of an answer that is bad or does not come."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeAlias
from uuid import uuid4

import orjson
import pytest

from stoa_chassis.errors import InvalidArgument
from stoa_contracts.money import Money
from stoa_payment.model import (
    BadSignature,
    Charge,
    ChargeStatus,
    GatewayRefund,
    Notice,
    OutsideRefund,
    Payment,
    PaymentStatus,
    Refund,
    RefundTerms,
    RequestKey,
    RetryPolicy,
)
from stoa_payment.peers import HttpGateway
from stoa_payment.ports import NoAnswer

Answering: TypeAlias = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]

NOW = datetime.now(UTC)
TIMEOUT = timedelta(seconds=0.3)
PAYMENT = Payment.begin(
    order_id=uuid4(),
    user_id=uuid4(),
    amount=Money(Decimal("12.34"), "USD"),
    token="tok_visa",
    correlation_id="a-request",
    retry=RetryPolicy(timedelta(1), timedelta(1)),
    now=NOW,
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
REFUND = {
    "id": "re_1",
    "charge": "ch_1",
    "amount": 234,
    "currency": "USD",
    "status": "succeeded",
    "metadata": {},
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
        async with HttpGateway.connect(f"http://127.0.0.1:{port}/shop", "key", "secret", TIMEOUT) as gateway:
            yield gateway


async def test_a_request_says_who_asks_for_what_and_with_which_key() -> None:
    requests: list[bytes] = []

    async def answering(request: bytes, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        writer.write(response(200, CHARGE if request.startswith(b"POST") else {"data": [CHARGE]}))

    async with speaking_to(answering) as gateway:
        charge = await gateway.charge(PAYMENT)
        assert await gateway.find(PAYMENT) == charge
    assert (charge.status, charge.amount) == (ChargeStatus.SUCCEEDED, PAYMENT.amount)
    (head, _, body), (found, _, _) = (request.partition(b"\r\n\r\n") for request in requests)
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


async def test_a_currency_in_lower_case_is_the_same() -> None:
    async with speaking_to(says(response(200, {**CHARGE, "currency": "usd"}))) as gateway:
        assert (await gateway.charge(PAYMENT)).amount == PAYMENT.amount


def a_refund() -> Refund:
    payment = replace(PAYMENT, status=PaymentStatus.SUCCEEDED, charge_id="ch_1")
    return payment.refund(
        RefundTerms(Money(Decimal("2.34"), "USD"), "broken"),
        key=RequestKey("user", "what a client sent"),
        correlation_id="c",
        retry=RetryPolicy(timedelta(1), timedelta(1)),
        now=NOW,
    )


async def test_a_refund_is_asked_for_with_a_key_of_ours_whatever_the_client_sent() -> None:
    requests: list[bytes] = []

    async def answering(request: bytes, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        writer.write(response(200, REFUND))

    refund, payment = a_refund(), replace(PAYMENT, charge_id="ch_1")
    async with speaking_to(answering) as gateway:
        assert await gateway.refund(payment, refund) == GatewayRefund("re_1", refund.refund_id)
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert f"idempotency-key: {refund.refund_id}" in head.decode().lower().split("\r\n")
    assert orjson.loads(body) == {
        "charge": "ch_1",
        "amount": 234,
        "metadata": {"refund_id": str(refund.refund_id), "order_id": str(PAYMENT.order_id)},
    }


@pytest.mark.parametrize("status", ["pending", "requires_action", "failed", "canceled"])
async def test_a_refund_that_waits_or_fails_at_the_gateway_is_not_made(status: str) -> None:
    async with speaking_to(says(response(200, {**REFUND, "status": status}))) as gateway:
        with pytest.raises(NoAnswer, match=status):
            await gateway.refund(PAYMENT, a_refund())


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
        pytest.param(says(response(200, {**CHARGE, "amount": 10**12})), id="an amount that nobody has"),
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


def signed(notice: object, *, secret: str = "secret", age: float = 0) -> tuple[bytes, str]:
    """Return the body and the signature of a notice, as the gateway would send them."""
    body, timestamp = orjson.dumps(notice), int(NOW.timestamp() - age)
    digest = hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()
    return body, f"t={timestamp},v1={digest}"


def a_notice(kind: str, resource: object) -> dict[str, object]:
    return {"id": "evt_1", "type": kind, "data": {"object": resource}}


async def test_a_notice_is_read_as_what_it_is_about() -> None:
    refund_id = uuid4()
    async with speaking_to(says(b"")) as gateway:
        for notice, subject in (
            (a_notice("charge.succeeded", CHARGE), ChargeStatus.SUCCEEDED),
            (a_notice("charge.failed", DECLINED), ChargeStatus.FAILED),
        ):
            charge = gateway.read_notice(*signed(notice), NOW).subject
            assert isinstance(charge, Charge)
            assert (charge.order_id, charge.status) == (PAYMENT.order_id, subject)
        refund = {**REFUND, "metadata": {"refund_id": str(refund_id)}}
        made = gateway.read_notice(*signed(a_notice("refund.succeeded", refund)), NOW)
        assert made == Notice("evt_1", GatewayRefund("re_1", refund_id))
        by_hand = gateway.read_notice(*signed(a_notice("refund.succeeded", REFUND)), NOW)
        assert by_hand == Notice("evt_1", OutsideRefund("re_1", "ch_1", Money(Decimal("2.34"), "USD")))
        waits = a_notice("refund.succeeded", {**REFUND, "status": "pending"})
        assert gateway.read_notice(*signed(waits), NOW) == Notice("evt_1", None)
        other = gateway.read_notice(*signed(a_notice("dispute.opened", {"id": "dp_1"})), NOW)
        assert other == Notice("evt_1", None)


async def test_a_notice_counts_only_if_the_gateway_signed_it_just_now() -> None:
    notice = a_notice("charge.succeeded", CHARGE)
    body, signature = signed(notice)
    async with speaking_to(says(b"")) as gateway:
        gateway.read_notice(*signed(notice, age=299), NOW)
        for forged in (
            signed(notice, secret="guessed"),
            signed(notice, age=301),
            signed(notice, age=-301),
            (body + b" ", signature),
            (body, ""),
            (body, "t=1,v1="),
            (body, signature.replace("t=", "t=x")),
            (body, "\u00e9"),
        ):
            with pytest.raises(BadSignature):
                gateway.read_notice(*forged, NOW)


async def test_a_signed_notice_that_makes_no_sense_is_the_senders_error() -> None:
    async with speaking_to(says(b"")) as gateway:
        for notice in (
            {},
            a_notice("charge.succeeded", {"id": "ch_1"}),
            a_notice("charge.succeeded", {**CHARGE, "amount": 10**12}),
            a_notice("charge.succeeded", {**CHARGE, "amount": -1}),
            a_notice("charge.succeeded", {**CHARGE, "currency": "dollars"}),
            a_notice("refund.succeeded", {**REFUND, "metadata": {"refund_id": "1"}}),
        ):
            with pytest.raises(InvalidArgument):
                gateway.read_notice(*signed(notice), NOW)


async def test_nobody_there_is_no_answer_and_soon_nobody_is_asked() -> None:
    async with HttpGateway.connect("http://127.0.0.1:1", "key", "secret", TIMEOUT) as gateway:
        for _ in range(5):
            with pytest.raises(NoAnswer, match="Connect"):
                await gateway.find(PAYMENT)
        with pytest.raises(NoAnswer, match="for a while"):
            await gateway.find(PAYMENT)
