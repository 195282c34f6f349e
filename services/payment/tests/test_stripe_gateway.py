"""The adapter to Stripe: its requests on Stripe's own mock, and what it makes of answers and of events."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import aiohttp
import orjson
import pytest
import stripe
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.payment.tests import stripe_mock
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
from stoa_payment.ports import NoAnswer
from stoa_payment.stripe_gateway import StripeGateway

NOW = datetime.now(UTC)
RETRY = RetryPolicy(timedelta(1), timedelta(1))
SECRET = "whsec_secret"
PAYMENT = Payment.begin(
    order_id=uuid4(),
    user_id=uuid4(),
    amount=Money(Decimal("12.34"), "USD"),
    token="pm_card_visa",
    correlation_id="a-request",
    retry=RETRY,
    now=NOW,
)
HELD = replace(PAYMENT, held=True)
MADE = replace(PAYMENT, status=PaymentStatus.SUCCEEDED, charge_id="pi_1", token=None, next_check_at=None)
CHARGE = {
    "id": "ch_1",
    "object": "charge",
    "payment_intent": "pi_1",
    "amount": 1234,
    "currency": "usd",
    "status": "succeeded",
    "captured": True,
    "failure_code": None,
    "payment_method_details": {"type": "card", "card": {"brand": "visa", "last4": "4242"}},
    "metadata": {"order_id": str(PAYMENT.order_id)},
}
INTENT = {
    "id": "pi_1",
    "object": "payment_intent",
    "amount": 1234,
    "currency": "usd",
    "status": "succeeded",
    "latest_charge": CHARGE,
    "last_payment_error": None,
    "metadata": {"order_id": str(PAYMENT.order_id)},
}
DECLINED = {
    **INTENT,
    "status": "requires_payment_method",
    "last_payment_error": {"code": "card_declined", "decline_code": "insufficient_funds"},
}
TAKEN = Charge("pi_1", PAYMENT.order_id, PAYMENT.amount, ChargeStatus.SUCCEEDED, "visa", "4242")
UNEXPECTED = {"error": {"type": "invalid_request_error", "code": "payment_intent_unexpected_state"}}


def a_refund(attempts: int = 0) -> Refund:
    terms = RefundTerms(Money(Decimal("2.34"), "USD"), "broken")
    key = RequestKey("user", "what a client sent")
    refund = replace(MADE).refund(terms, key=key, correlation_id="c", retry=RETRY, now=NOW)
    return replace(refund, attempts=attempts)


def stripe_refund(refund: Refund | None, status: str = "succeeded") -> dict[str, Any]:
    return {
        "id": "re_1",
        "object": "refund",
        "amount": 234,
        "currency": "usd",
        "status": status,
        "payment_intent": "pi_1",
        "metadata": {"refund_id": str(refund.refund_id)} if refund else {},
    }


@dataclass
class FakeStripe:
    """Answers by the path of a request, with 404 what it has no answer to."""

    answers: Mapping[str, tuple[int, object]]
    requests: list[tuple[str, Mapping[str, str], str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        path = f"{request.method} {request.path.removeprefix('/v1/')}"
        self.requests.append((path, form, request.headers.get("idempotency-key", "")))
        status, body = self.answers.get(path, (404, {"error": {"code": "resource_missing"}}))
        headers = {"request-id": "req_1"}
        return web.Response(
            body=orjson.dumps(body), status=status, headers=headers, content_type="application/json"
        )

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[StripeGateway]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        async with (
            TestServer(app) as server,
            StripeGateway.connect(str(server.make_url("/")), "sk_1", SECRET, timedelta(seconds=2)) as gateway,
        ):
            yield gateway


@asynccontextmanager
async def answering(status: int, body: object, path: str) -> AsyncIterator[StripeGateway]:
    """Connect to a Stripe that has one answer, to one request."""
    async with FakeStripe({path: (status, body)}).gateway() as gateway:
        yield gateway


# ------------------------------------------------------------------------------- on Stripe's own mock


@pytest.fixture(scope="module")
def mock() -> Iterator[str]:
    with stripe_mock.running(stripe_mock.binary()) as url:
        yield url


@pytest.mark.slow
@pytest.mark.timeout(700)
async def test_every_request_is_one_that_stripe_describes(mock: str) -> None:
    connection = StripeGateway.connect(mock, "sk_test_123", SECRET, timedelta(seconds=5))
    async with connection as gateway:
        for payment in (PAYMENT, HELD):  # it answers with examples, of another state
            charge = await gateway.charge(payment)
            assert (charge.order_id, charge.amount) == (PAYMENT.order_id, PAYMENT.amount)
        assert await gateway.find(PAYMENT) is None  # the example is of another order
        assert (await gateway.capture(MADE)).charge_id == "pi_1"
        for refund in (a_refund(), a_refund(attempts=1)):
            assert (await gateway.refund(MADE, refund)).refund_id == refund.refund_id
        assert (await gateway.release(MADE, refund)).refund_id == refund.refund_id


@pytest.mark.slow
@pytest.mark.timeout(700)
async def test_the_mock_refuses_what_stripe_does_not_describe(mock: str) -> None:
    form = {"amount": "1234", "currency": "usd", "capture_method": "someday"}
    headers = {"authorization": "Bearer sk_test_123"}
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.post(f"{mock}/v1/payment_intents", data=form) as answer,
    ):
        assert answer.status == 400


# ------------------------------------------------------------------------------------------- charges


async def test_a_payment_is_an_intent_that_is_confirmed_at_once_with_the_order_as_its_key() -> None:
    fake = FakeStripe({"POST payment_intents": (200, INTENT)})
    async with fake.gateway() as gateway:
        assert await gateway.charge(PAYMENT) == TAKEN
        await gateway.charge(HELD)
    (path, form, key), (_, held, _) = fake.requests
    assert (path, key) == ("POST payment_intents", str(PAYMENT.order_id))
    assert form == {
        "amount": "1234",
        "currency": "usd",
        "payment_method": "pm_card_visa",
        "automatic_payment_methods[enabled]": "true",
        "automatic_payment_methods[allow_redirects]": "never",
        "capture_method": "automatic",
        "confirm": "true",
        "error_on_requires_action": "true",
        "metadata[order_id]": str(PAYMENT.order_id),
        "expand[0]": "latest_charge",
    }
    assert held["capture_method"] == "manual"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("succeeded", ChargeStatus.SUCCEEDED),
        ("requires_capture", ChargeStatus.AUTHORIZED),
        ("processing", ChargeStatus.PENDING),
        ("requires_action", ChargeStatus.FAILED),
        ("canceled", ChargeStatus.FAILED),
    ],
)
async def test_what_became_of_a_payment_is_the_state_of_its_intent(
    status: str, outcome: ChargeStatus
) -> None:
    async with answering(200, {**INTENT, "status": status}, "POST payment_intents") as gateway:
        charge = await gateway.charge(PAYMENT)
    assert charge.status is outcome
    assert charge.failure_code == (status if outcome is ChargeStatus.FAILED else "")


async def test_a_decline_is_an_outcome_with_the_banks_reason() -> None:
    error = {"error": {"type": "card_error", "code": "card_declined", "payment_intent": DECLINED}}
    async with answering(402, error, "POST payment_intents") as gateway:
        charge = await gateway.charge(PAYMENT)
    assert (charge.status, charge.failure_code) == (ChargeStatus.FAILED, "insufficient_funds")
    assert (charge.charge_id, charge.last4) == ("pi_1", "4242")


async def test_a_token_that_stripe_does_not_know_is_a_decline() -> None:
    error = {
        "error": {"type": "invalid_request_error", "code": "resource_missing", "param": "payment_method"}
    }
    async with answering(400, error, "POST payment_intents") as gateway:
        charge = await gateway.charge(PAYMENT)
    assert (charge.status, charge.failure_code) == (ChargeStatus.FAILED, "invalid_token")
    assert charge.charge_id == "req_1"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(500, {"error": {"type": "api_error"}}, id="an error"),
        pytest.param(429, {"error": {"type": "invalid_request_error", "code": "rate_limit"}}, id="too many"),
        pytest.param(401, {"error": {"type": "invalid_request_error"}}, id="a wrong key"),
        pytest.param(400, {"error": {"type": "idempotency_error"}}, id="a key of another request"),
        pytest.param(400, {"error": {"type": "invalid_request_error", "param": "amount"}}, id="a refusal"),
        pytest.param(200, {"id": "pi_1"}, id="another content"),
        pytest.param(200, {**INTENT, "amount": 10**12}, id="more than money can be"),
        pytest.param(200, {**INTENT, "currency": "dollars"}, id="a currency that is none"),
        pytest.param(200, {**INTENT, "status": "meditating"}, id="a state that nobody knows"),
    ],
)
async def test_anything_else_is_no_answer(status: int, body: object) -> None:
    async with answering(status, body, "POST payment_intents") as gateway:
        with pytest.raises(NoAnswer):
            await gateway.charge(PAYMENT)


async def test_nobody_there_is_no_answer_and_soon_nobody_is_asked() -> None:
    async with StripeGateway.connect("http://127.0.0.1:1", "sk_1", SECRET, timedelta(seconds=1)) as gateway:
        for _ in range(5):
            with pytest.raises(NoAnswer, match="APIConnectionError"):
                await gateway.find(PAYMENT)
        with pytest.raises(NoAnswer, match="for a while"):
            await gateway.find(PAYMENT)


async def test_a_payment_is_found_by_its_order_and_no_other_is_taken_for_it() -> None:
    other = {**INTENT, "metadata": {"order_id": str(uuid4())}}
    for data, found in (([INTENT], TAKEN), ([other], None), ([], None)):
        listed = {"object": "search_result", "data": data, "has_more": False}
        async with answering(200, listed, "GET payment_intents/search") as gateway:
            assert await gateway.find(PAYMENT) == found


# ------------------------------------------------------------------- capture, release and refunds


async def test_what_is_held_is_captured_once() -> None:
    fake = FakeStripe({"POST payment_intents/pi_1/capture": (200, INTENT)})
    async with fake.gateway() as gateway:
        assert await gateway.capture(replace(MADE, held=True)) == TAKEN
    assert fake.requests[0][2] == f"capture-{PAYMENT.order_id}"
    fake = FakeStripe(
        {
            "POST payment_intents/pi_1/capture": (400, UNEXPECTED),
            "GET payment_intents/pi_1": (200, INTENT),
        }
    )
    async with fake.gateway() as gateway:
        assert await gateway.capture(replace(MADE, held=True)) == TAKEN


async def test_what_is_still_open_is_asked_for_again_and_what_was_captured_not_released() -> None:
    held = replace(MADE, held=True)
    for asked, state in (("capture", "processing"), ("cancel", "succeeded")):
        fake = FakeStripe(
            {
                f"POST payment_intents/pi_1/{asked}": (400, UNEXPECTED),
                "GET payment_intents/pi_1": (200, {**INTENT, "status": state}),
            }
        )
        async with fake.gateway() as gateway:
            with pytest.raises(NoAnswer, match="unexpected_state"):
                await (gateway.capture(held) if asked == "capture" else gateway.release(held, a_refund()))


async def test_what_has_lapsed_or_was_cancelled_has_failed_when_it_is_to_be_captured() -> None:
    fake = FakeStripe(
        {
            "POST payment_intents/pi_1/capture": (400, UNEXPECTED),
            "GET payment_intents/pi_1": (200, {**INTENT, "status": "canceled"}),
        }
    )
    async with fake.gateway() as gateway:
        charge = await gateway.capture(replace(MADE, held=True))
    assert charge == replace(TAKEN, status=ChargeStatus.FAILED, failure_code="canceled")


async def test_what_is_held_is_released_by_cancelling_its_intent_once() -> None:
    refund, canceled = a_refund(), {**INTENT, "status": "canceled"}
    for answer in ((200, canceled), (400, UNEXPECTED)):
        fake = FakeStripe(
            {"POST payment_intents/pi_1/cancel": answer, "GET payment_intents/pi_1": (200, canceled)}
        )
        async with fake.gateway() as gateway:
            made = await gateway.release(replace(MADE, held=True), refund)
        assert made == GatewayRefund("canceled_pi_1", refund.refund_id)


async def test_a_refund_is_asked_for_with_a_key_of_ours() -> None:
    refund = a_refund()
    fake = FakeStripe({"POST refunds": (200, stripe_refund(refund))})
    async with fake.gateway() as gateway:
        assert await gateway.refund(MADE, refund) == GatewayRefund("re_1", refund.refund_id)
    [(_, form, key)] = fake.requests
    assert key == str(refund.refund_id)
    assert form == {
        "payment_intent": "pi_1",
        "amount": "234",
        "metadata[refund_id]": str(refund.refund_id),
        "metadata[order_id]": str(PAYMENT.order_id),
    }


async def test_a_refund_that_was_tried_is_looked_for_before_it_is_made() -> None:
    refund = a_refund(attempts=1)
    for data, requests in (([stripe_refund(refund)], ["GET refunds"]), ([], ["GET refunds", "POST refunds"])):
        fake = FakeStripe(
            {
                "GET refunds": (200, {"object": "list", "data": data, "has_more": False}),
                "POST refunds": (200, stripe_refund(refund)),
            }
        )
        async with fake.gateway() as gateway:
            assert await gateway.refund(MADE, refund) == GatewayRefund("re_1", refund.refund_id)
        assert [path for path, _, _ in fake.requests] == requests


@pytest.mark.parametrize("status", ["pending", "requires_action", "failed", "canceled"])
async def test_a_refund_that_waits_or_fails_is_not_made(status: str) -> None:
    refund = a_refund()
    async with answering(200, stripe_refund(refund, status), "POST refunds") as gateway:
        with pytest.raises(NoAnswer, match=status):
            await gateway.refund(MADE, refund)


# ------------------------------------------------------------------------------------------- notices


def signed(event: object, *, secret: str = SECRET, age: float = 0) -> tuple[bytes, str]:
    """Return the body and the signature of an event, as Stripe would send them."""
    body, timestamp = orjson.dumps(event), int(NOW.timestamp() - age)
    return body, stripe.WebhookSignature.generate_signature_header(body.decode(), secret, timestamp)


def an_event(kind: str, resource: object) -> dict[str, object]:
    return {"id": "evt_1", "object": "event", "type": kind, "data": {"object": resource}}


@pytest.fixture
async def gateway() -> AsyncIterator[StripeGateway]:
    async with FakeStripe({}).gateway() as gateway:
        yield gateway


async def test_an_event_is_read_as_what_it_is_about(gateway: StripeGateway) -> None:
    refund = a_refund()
    authorized = replace(TAKEN, status=ChargeStatus.AUTHORIZED)
    failed = replace(TAKEN, status=ChargeStatus.FAILED, failure_code="card_declined")
    outside = OutsideRefund("re_1", "pi_1", Money(Decimal("2.34"), "USD"))
    for kind, resource, subject in (
        ("charge.succeeded", CHARGE, TAKEN),
        ("charge.captured", CHARGE, TAKEN),
        ("charge.succeeded", {**CHARGE, "captured": False}, authorized),
        ("charge.failed", {**CHARGE, "status": "failed", "failure_code": "card_declined"}, failed),
        ("charge.succeeded", {**CHARGE, "payment_intent": None}, None),
        ("charge.succeeded", {**CHARGE, "metadata": {}}, None),
        ("refund.created", stripe_refund(refund), GatewayRefund("re_1", refund.refund_id)),
        ("refund.updated", stripe_refund(refund), GatewayRefund("re_1", refund.refund_id)),
        ("refund.created", stripe_refund(refund, "pending"), None),
        ("refund.created", stripe_refund(None), outside),
        ("customer.created", {"id": "cus_1"}, None),
    ):
        assert gateway.read_notice(*signed(an_event(kind, resource)), NOW) == Notice("evt_1", subject)


async def test_an_event_counts_only_if_stripe_signed_it_just_now(gateway: StripeGateway) -> None:
    event = an_event("charge.succeeded", CHARGE)
    body, signature = signed(event)
    gateway.read_notice(*signed(event, age=299), NOW)
    gateway.read_notice(body, f"{signature},v0=0,v1=of an older secret", NOW)
    for forged in (
        signed(event, secret="guessed"),
        signed(event, age=301),
        signed(event, age=-301),
        (body + b" ", signature),
        (b"\xff" + body, signature),
        (body, ""),
        (body, "t=1"),
        (body, "t=1,v1="),
        (body, signature.replace("t=", "t=x")),
        (body, signature.replace("v1=", "v0=")),
        (body, "\u00e9"),
    ):
        with pytest.raises(BadSignature):
            gateway.read_notice(*forged, NOW)


async def test_a_signed_event_that_makes_no_sense_is_the_senders_error(gateway: StripeGateway) -> None:
    for event in (
        {},
        {"id": "", "type": "charge.succeeded", "data": {"object": CHARGE}},
        an_event("charge.succeeded", {"id": "ch_1"}),
        an_event("charge.succeeded", {**CHARGE, "amount": "much"}),
        an_event("charge.succeeded", {**CHARGE, "amount": 10**12}),
        an_event("charge.succeeded", {**CHARGE, "currency": "dollars"}),
        an_event("refund.created", {**stripe_refund(None), "metadata": {"refund_id": "1"}}),
    ):
        with pytest.raises(InvalidArgument):
            gateway.read_notice(*signed(event), NOW)
