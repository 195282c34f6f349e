"""The payment service over gRPC: who may call, what is refused, what the messages say."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.type.money_pb2 import Money

from stoa.payment.v1.payment_pb2 import (
    GetPaymentRequest,
    Payment,
    ProcessPaymentRequest,
    ReceiveWebhookRequest,
    Refund,
    RefundPaymentRequest,
)
from stoa.payment.v1.payment_pb2_grpc import PaymentServiceStub, add_PaymentServiceServicer_to_server
from stoa_chassis.errors import Code, FieldViolation, RemoteError
from stoa_chassis.memory import MemoryStore
from stoa_chassis.testing import InProcessServer, serve_in_process
from stoa_chassis.timestamps import to_timestamp
from stoa_contracts.money import Money as Amount
from stoa_payment import model, testing
from stoa_payment.api import PaymentServicer
from stoa_payment.service import Payments, ProcessPayment, RefundPayment
from stoa_payment.testing import FakeGateway


@pytest.fixture
async def server(payments: Payments) -> AsyncIterator[InProcessServer]:
    servicer = PaymentServicer(payments)
    async with serve_in_process(add_PaymentServiceServicer_to_server, servicer, name="payment") as server:
        yield server


@pytest.fixture
def order(server: InProcessServer) -> PaymentServiceStub:
    return server.stub(PaymentServiceStub, as_service="order")


USERS_KEY = model.RequestKey("user", "r1")


def usd(units: int, nanos: int = 0) -> Money:
    return Money(currency_code="USD", units=units, nanos=nanos)


def a_request(**changes: Any) -> ProcessPaymentRequest:
    fields: dict[str, Any] = {
        "order_id": str(uuid4()),
        "user_id": str(uuid4()),
        "amount": usd(12, 340_000_000),
        "payment_token": "tok_mastercard",
    }
    return ProcessPaymentRequest(**{**fields, **changes})


async def a_payment(order: PaymentServiceStub) -> Payment:
    return (await order.ProcessPayment(a_request())).payment


def a_full_refund(payment: model.Payment) -> model.Refund:
    return model.Refund(
        refund_id=uuid4(),
        payment_id=payment.payment_id,
        key=USERS_KEY,
        amount=payment.refunded,
        reason="broken",
        status=model.RefundStatus.SUCCEEDED,
        correlation_id="c",
        created_at=payment.created_at,
        updated_at=payment.updated_at,
        of_rest=True,
    )


@dataclass
class UseCases:
    """Takes note of the commands, in place of charging and refunding; the answers are always the same."""

    payment: model.Payment
    commands: list[ProcessPayment | RefundPayment] = field(default_factory=list)

    async def process(self, command: ProcessPayment) -> model.Payment:
        self.commands.append(command)
        return self.payment

    async def refund(self, command: RefundPayment) -> model.Refund:
        self.commands.append(command)
        return a_full_refund(self.payment)


@pytest.fixture
def use_cases(a_full_payment: model.Payment) -> UseCases:
    return UseCases(a_full_payment)


@pytest.fixture
async def noting(use_cases: Any) -> AsyncIterator[PaymentServiceStub]:
    """The order service's stub of a server that only takes note of its commands."""
    servicer = PaymentServicer(use_cases)
    async with serve_in_process(add_PaymentServiceServicer_to_server, servicer, name="payment") as server:
        yield server.stub(PaymentServiceStub, as_service="order")


async def test_every_field_of_a_charge_arrives_in_its_place(
    noting: PaymentServiceStub, use_cases: UseCases
) -> None:
    order_id, user_id = uuid4(), uuid4()
    request = ProcessPaymentRequest(
        order_id=str(order_id),
        user_id=str(user_id),
        amount=usd(12, 340_000_000),
        payment_token="tok_mastercard",
    )
    assert len(request.ListFields()) == len(request.DESCRIPTOR.fields)
    await noting.ProcessPayment(request)
    assert use_cases.commands == [
        ProcessPayment(
            order_id=order_id,
            user_id=user_id,
            amount=Amount(Decimal("12.34"), "USD"),
            token="tok_mastercard",
        )
    ]


async def test_every_field_of_a_refund_arrives_in_its_place(
    noting: PaymentServiceStub, use_cases: UseCases
) -> None:
    payment_id = uuid4()
    request = RefundPaymentRequest(
        payment_id=str(payment_id), request_id="a-request", amount=usd(2, 500_000_000), reason="broken"
    )
    assert len(request.ListFields()) == len(request.DESCRIPTOR.fields)
    await noting.RefundPayment(request)
    request.ClearField("amount")
    await noting.RefundPayment(request)
    part = RefundPayment(
        payment_id=payment_id,
        key=model.RequestKey("service:order", "a-request"),
        amount=Amount(Decimal("2.50"), "USD"),
        reason="broken",
    )
    assert use_cases.commands == [part, replace(part, amount=None)]


async def test_a_payment_tells_all_about_itself_but_the_token(order: PaymentServiceStub) -> None:
    request = a_request()
    payment = (await order.ProcessPayment(request)).payment
    assert (payment.order_id, payment.user_id) == (request.order_id, request.user_id)
    assert (payment.status, payment.method_type) == ("succeeded", "card")
    assert (payment.brand, payment.last4) == ("mastercard", "4444")
    assert payment.amount == usd(12, 340_000_000)
    assert payment.refunded_amount == usd(0)
    assert payment.created_at.ToDatetime() <= payment.updated_at.ToDatetime()
    assert "tok_" not in str(payment)


async def test_nothing_of_a_payment_or_a_refund_is_left_out(
    server: InProcessServer, store: MemoryStore[testing.Rows], a_full_payment: model.Payment
) -> None:
    """Every field of the message has the value of the entity's field, which is not empty."""
    stored, given_back = a_full_payment, a_full_refund(a_full_payment)
    store.rows = testing.Rows((testing.payment_row(stored),), (testing.refund_row(given_back),))
    staff = server.stub(PaymentServiceStub, as_user=uuid4(), staff=True)
    payment_id = str(stored.payment_id)
    payment = (await staff.GetPayment(GetPaymentRequest(payment_id=payment_id))).payment
    assert payment == Payment(
        payment_id=str(stored.payment_id),
        order_id=str(stored.order_id),
        user_id=str(stored.user_id),
        amount=usd(20),
        refunded_amount=usd(5),
        status="partially_refunded",
        method_type="card",
        brand="visa",
        last4="4242",
        failure_reason="none",
        created_at=to_timestamp(stored.created_at),
        updated_at=to_timestamp(stored.updated_at),
        captured=True,
    )
    request = RefundPaymentRequest(payment_id=payment_id, request_id="r1", reason="broken")
    refund = (await staff.RefundPayment(request)).refund
    assert refund == Refund(
        refund_id=str(given_back.refund_id),
        payment_id=str(stored.payment_id),
        amount=usd(5),
        status="succeeded",
        reason="broken",
        created_at=to_timestamp(stored.created_at),
    )
    for message in (payment, refund):
        assert len(message.ListFields()) == len(message.DESCRIPTOR.fields)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"order_id": "1"}, "order_id"),
        ({"user_id": ""}, "user_id"),
        ({"amount": None}, "amount"),
        ({"amount": usd(0)}, "amount"),
        ({"amount": usd(-1)}, "amount"),
        ({"amount": usd(1, 5_000_000)}, "amount.nanos"),
        ({"amount": Money(currency_code="dollars", units=1)}, "amount.currency_code"),
        ({"amount": usd(10**10)}, "amount"),
        ({"payment_token": ""}, "payment_token"),
        ({"payment_token": "4242424242424242"}, "payment_token"),
        ({"payment_token": "t" * 201}, "payment_token"),
    ],
)
async def test_a_bad_field_is_named_and_nothing_is_charged(
    gateway: FakeGateway, order: PaymentServiceStub, changes: dict[str, Any], field: str
) -> None:
    request = a_request(**changes)
    with pytest.raises(RemoteError) as refused:
        await order.ProcessPayment(request)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in refused.value.violations] == [field]
    assert not gateway.bank.charges


async def test_only_the_order_service_charges(server: InProcessServer) -> None:
    for stub in (
        server.stub(PaymentServiceStub),
        server.stub(PaymentServiceStub, as_user=uuid4()),
        server.stub(PaymentServiceStub, as_user=uuid4(), staff=True),
        server.stub(PaymentServiceStub, as_service="cart"),
    ):
        with pytest.raises(RemoteError) as refused:
            await stub.ProcessPayment(a_request())
        assert refused.value.code is Code.PERMISSION_DENIED


async def test_the_payer_and_staff_read_a_payment_and_to_others_it_is_not_there(
    server: InProcessServer, order: PaymentServiceStub
) -> None:
    payment = await a_payment(order)
    request = GetPaymentRequest(payment_id=payment.payment_id)
    for user, staff in ((payment.user_id, False), (uuid4(), True)):
        stub = server.stub(PaymentServiceStub, as_user=user, staff=staff)
        assert (await stub.GetPayment(request)).payment == payment
    with pytest.raises(RemoteError) as refused:
        await server.stub(PaymentServiceStub, as_user=uuid4()).GetPayment(request)
    assert (refused.value.code, refused.value.reason) == (Code.NOT_FOUND, "PAYMENT_NOT_FOUND")
    with pytest.raises(RemoteError) as refused:
        await server.stub(PaymentServiceStub).GetPayment(request)
    assert refused.value.code is Code.UNAUTHENTICATED


async def test_staff_refund_and_customers_do_not(server: InProcessServer, order: PaymentServiceStub) -> None:
    payment = await a_payment(order)
    request = RefundPaymentRequest(
        payment_id=payment.payment_id, request_id="r1", amount=usd(2), reason="late"
    )
    staff = server.stub(PaymentServiceStub, as_user=uuid4(), staff=True)
    refund = (await staff.RefundPayment(request)).refund
    assert (refund.payment_id, refund.amount, refund.reason) == (payment.payment_id, usd(2), "late")
    assert refund.status == "succeeded"
    assert (await staff.RefundPayment(request)).refund.refund_id == refund.refund_id
    read = (await staff.GetPayment(GetPaymentRequest(payment_id=payment.payment_id))).payment
    assert (read.status, read.refunded_amount) == ("partially_refunded", usd(2))
    with pytest.raises(RemoteError) as refused:
        await server.stub(PaymentServiceStub, as_user=payment.user_id).RefundPayment(request)
    assert refused.value.code is Code.PERMISSION_DENIED


async def test_ids_are_the_same_in_capitals(server: InProcessServer, order: PaymentServiceStub) -> None:
    payment = await a_payment(order)
    shouted = payment.payment_id.upper()
    payer = server.stub(PaymentServiceStub, as_user=payment.user_id.upper())
    assert (await payer.GetPayment(GetPaymentRequest(payment_id=shouted))).payment == payment
    staff = server.stub(PaymentServiceStub, as_user=uuid4(), staff=True)
    first, again = [
        (
            await staff.RefundPayment(RefundPaymentRequest(payment_id=each, request_id="r", amount=usd(2)))
        ).refund
        for each in (payment.payment_id, shouted)
    ]
    assert first == again


async def test_a_request_id_that_comes_again_with_another_refund_is_a_conflict_that_names_the_difference(
    server: InProcessServer, order: PaymentServiceStub
) -> None:
    payment = await a_payment(order)
    staff = server.stub(PaymentServiceStub, as_user=uuid4(), staff=True)
    request = RefundPaymentRequest(payment_id=payment.payment_id, request_id="r", amount=usd(10))
    await staff.RefundPayment(request)
    request.ClearField("amount")
    with pytest.raises(RemoteError) as refused:
        await staff.RefundPayment(request)
    assert (refused.value.code, refused.value.reason) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert refused.value.violations == (
        FieldViolation("amount", "was 10.00 USD the first time, now it is left out"),
    )


async def test_what_staff_send_never_meets_what_the_order_service_sends(
    server: InProcessServer, order: PaymentServiceStub
) -> None:
    payment = await a_payment(order)
    request = RefundPaymentRequest(
        payment_id=payment.payment_id, request_id=f"cancel-{payment.order_id}", amount=usd(2)
    )
    staff = server.stub(PaymentServiceStub, as_user=uuid4(), staff=True)
    part = (await staff.RefundPayment(request)).refund
    request.ClearField("amount")
    rest = (await order.RefundPayment(request)).refund
    assert (part.amount, rest.amount) == (usd(2), usd(10, 340_000_000))
    read = (await staff.GetPayment(GetPaymentRequest(payment_id=payment.payment_id))).payment
    assert read.status == "refunded"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"payment_id": "1"}, "payment_id"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "a b"}, "request_id"),
        ({"amount": usd(0)}, "amount"),
        ({"amount": usd(-1)}, "amount"),
        ({"amount": usd(1, 1)}, "amount.nanos"),
        ({"amount": Money(currency_code="EUR", units=1)}, "amount.currency_code"),
        ({"reason": "x" * 501}, "reason"),
        ({"reason": "\x00"}, "reason"),
    ],
)
async def test_a_bad_refund_is_refused_with_the_field(
    order: PaymentServiceStub, changes: dict[str, Any], field: str
) -> None:
    payment = await a_payment(order)
    fields = {"payment_id": payment.payment_id, "request_id": "r1", **changes}
    with pytest.raises(RemoteError) as refused:
        await order.RefundPayment(RefundPaymentRequest(**fields))
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_more_than_was_paid_is_not_refunded(order: PaymentServiceStub) -> None:
    payment = await a_payment(order)
    request = RefundPaymentRequest(payment_id=payment.payment_id, request_id="r1", amount=usd(13))
    with pytest.raises(RemoteError) as refused:
        await order.RefundPayment(request)
    assert (refused.value.code, refused.value.reason) == (Code.FAILED_PRECONDITION, "REFUND_TOO_LARGE")
    assert refused.value.metadata["left"] == "12.34 USD"


async def test_a_signed_notice_is_taken_from_anyone_and_a_forged_one_from_nobody(
    gateway: FakeGateway, server: InProcessServer
) -> None:
    body, signature = gateway.notice(None)
    request = ReceiveWebhookRequest(body=HttpBody(content_type="application/json", data=body))
    anyone = server.stub(PaymentServiceStub)
    await anyone.ReceiveWebhook(request, metadata=(("x-gateway-signature", signature),))
    for metadata in ((), (("x-gateway-signature", signature[:-1]),)):
        with pytest.raises(RemoteError) as refused:
            await anyone.ReceiveWebhook(request, metadata=metadata)
        assert (refused.value.code, refused.value.reason) == (Code.UNAUTHENTICATED, "BAD_SIGNATURE")
