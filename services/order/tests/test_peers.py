"""What the use cases get of the other services."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

import grpc
import pytest

from stoa.payment.v1 import payment_pb2, payment_pb2_grpc
from stoa.shipping.v1 import shipping_pb2, shipping_pb2_grpc
from stoa.types.v1 import address_pb2
from stoa.user.v1 import user_pb2, user_pb2_grpc
from stoa_chassis.errors import (
    DomainError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    RemoteError,
    Unavailable,
)
from stoa_chassis.ids import new_id
from stoa_chassis.money_proto import from_proto, to_proto
from stoa_chassis.testing import serve_in_process
from stoa_contracts.money import Money
from stoa_order.model import CartLine, ReturnRefundMade, ShipmentStopped, ShipmentUnderWay
from stoa_order.peers import AddressBook, Payments, Shipping
from stoa_order.testing import ADDRESS, a_delivered_order, a_received_return, an_order


class UserServicer(user_pb2_grpc.UserServiceServicer):
    """The user service, with one address or none."""

    def __init__(self, kept: address_pb2.Address | None) -> None:
        self._kept = kept

    async def GetAddress(self, request: user_pb2.GetAddressRequest, _: Any) -> user_pb2.GetAddressResponse:
        if self._kept is None:
            raise NotFound("there is no such address")
        return user_pb2.GetAddressResponse(address=self._kept)


async def kept(address: address_pb2.Address | None) -> Any:
    """The address as orders get it."""

    def add(servicer: UserServicer, server: grpc.aio.Server) -> None:
        user_pb2_grpc.add_UserServiceServicer_to_server(servicer, server)

    servicer = UserServicer(address)  # type: ignore[abstract]
    async with serve_in_process(add, servicer, name="user") as server:
        book = AddressBook(server.stub(user_pb2_grpc.UserServiceStub, as_service="order"))
        return await book.address(new_id(), new_id())


async def test_no_part_of_an_address_is_lost() -> None:
    assert await kept(address_pb2.Address(**asdict(ADDRESS))) == ADDRESS


async def test_an_address_of_nobody_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="address_id: is not in your address book"):
        await kept(None)


async def test_an_address_from_before_they_were_checked_has_to_be_corrected() -> None:
    older = asdict(ADDRESS) | {"country": "DE", "city": ""}
    with pytest.raises(InvalidArgument) as refused:
        await kept(address_pb2.Address(**older))
    (violation,) = refused.value.violations
    assert (violation.field, violation.description) == (
        "address_id",
        "please correct the address in your address book: city must not be empty in an address of Germany; "
        "postal code is not a postal code of Germany; an example is 26133",
    )


class UnderWay(FailedPrecondition):
    """As shipping says that the carrier has a parcel."""

    reason = "SHIPMENT_UNDER_WAY"


class TooHeavy(FailedPrecondition):
    """As shipping says that no carrier takes a parcel."""

    reason = "TOO_HEAVY"


@dataclass
class ShippingServicer(shipping_pb2_grpc.ShippingServiceServicer):
    """The shipping service, which refuses or quotes the same for every parcel."""

    refuses: DomainError | None = None
    asked: list[Any] = field(default_factory=list)

    async def QuoteShipping(
        self, request: shipping_pb2.QuoteShippingRequest, _: Any
    ) -> shipping_pb2.QuoteShippingResponse:
        self._take(request)
        quote = shipping_pb2.Quote(shipping_method="express", carrier="ups", amount=to_proto(usd("6.20")))
        return shipping_pb2.QuoteShippingResponse(quotes=[quote])

    async def StopShipment(
        self, request: shipping_pb2.StopShipmentRequest, _: Any
    ) -> shipping_pb2.StopShipmentResponse:
        self._take(request)
        return shipping_pb2.StopShipmentResponse()

    def _take(self, request: Any) -> None:
        self.asked.append(request)
        if self.refuses is not None:
            raise self.refuses


def usd(text: str) -> Money:
    return Money(Decimal(text), "USD")


@asynccontextmanager
async def shipping(refuses: DomainError | None = None) -> AsyncIterator[tuple[Shipping, ShippingServicer]]:
    def add(servicer: ShippingServicer, server: grpc.aio.Server) -> None:
        shipping_pb2_grpc.add_ShippingServiceServicer_to_server(servicer, server)

    servicer = ShippingServicer(refuses)  # type: ignore[abstract]
    async with serve_in_process(add, servicer, name="shipping") as server:
        yield Shipping(server.stub(shipping_pb2_grpc.ShippingServiceStub, as_service="order")), servicer


LINE = CartLine(new_id(), new_id(), 2, usd("19.90"))


async def test_a_quote_is_of_what_is_sent_where_and_how() -> None:
    async with shipping() as (peer, servicer):
        assert await peer.quote([LINE], ADDRESS, "express") == usd("6.20")
        (asked,) = servicer.asked
        assert [(item.variant_id, item.quantity) for item in asked.items] == [(str(LINE.variant_id), 2)]
        assert asked.address == address_pb2.Address(**asdict(ADDRESS))


async def test_where_nobody_brings_it_so_the_method_is_refused() -> None:
    async with shipping() as (peer, _):
        with pytest.raises(InvalidArgument) as refused:
            await peer.quote([LINE], ADDRESS, "standard")
    assert [violation.field for violation in refused.value.violations] == ["shipping_method"]


async def test_what_nobody_brings_at_all_is_refused_and_an_outage_is_no_refusal() -> None:
    async with shipping(TooHeavy("too heavy for the carriers")) as (peer, _):
        with pytest.raises(RemoteError, match="too heavy"):
            await peer.quote([LINE], ADDRESS, "express")
    async with shipping(Unavailable("shipping is down")) as (peer, _):
        assert await peer.quote([LINE], ADDRESS, "express") is None


async def test_a_stop_is_answered_by_what_became_of_the_parcel() -> None:
    async with shipping() as (peer, servicer):
        order = an_order()
        assert await peer.stop(order) == ShipmentStopped()
        assert [asked.order_id for asked in servicer.asked] == [str(order.order_id)]
    async with shipping(UnderWay("the carrier has it")) as (peer, _):
        assert await peer.stop(an_order()) == ShipmentUnderWay()
    async with shipping(Unavailable("the carrier does not answer")) as (peer, _):
        with pytest.raises(RemoteError):
            await peer.stop(an_order())


class TooLarge(FailedPrecondition):
    """As payment says that less is left."""

    reason = "REFUND_TOO_LARGE"


class NothingLeft(FailedPrecondition):
    """As payment says that nothing is left."""

    reason = "NOTHING_TO_REFUND"


class NothingTaken(FailedPrecondition):
    """As payment says that what was held has lapsed."""

    reason = "PAYMENT_FAILED"


@dataclass
class PaymentServicer(payment_pb2_grpc.PaymentServiceServicer):
    """The payment service, with so much left of one payment; refunds have this status at first."""

    left: Money
    status: str = "succeeded"
    refunds: dict[str, payment_pb2.Refund] = field(default_factory=dict)
    captured: list[str] = field(default_factory=list)

    async def CapturePayment(
        self, request: payment_pb2.CapturePaymentRequest, _: Any
    ) -> payment_pb2.CapturePaymentResponse:
        self.captured.append(request.payment_id)
        return payment_pb2.CapturePaymentResponse()

    async def RefundPayment(
        self, request: payment_pb2.RefundPaymentRequest, _: Any
    ) -> payment_pb2.RefundPaymentResponse:
        if request.request_id not in self.refunds:
            wanted = from_proto(request.amount, "amount") if request.HasField("amount") else self.left
            if self.status == "lapsed":
                raise NothingTaken("what was held has lapsed")
            if not self.left:
                raise NothingLeft("nothing is left")
            if wanted > self.left:
                raise TooLarge("less is left")
            self.left -= wanted
            self.refunds[request.request_id] = payment_pb2.Refund(amount=to_proto(wanted))
        refund = self.refunds[request.request_id]
        refund.status = self.status
        return payment_pb2.RefundPaymentResponse(refund=refund)


@asynccontextmanager
async def payment(servicer: PaymentServicer) -> AsyncIterator[Payments]:
    def add(servicer: PaymentServicer, server: grpc.aio.Server) -> None:
        payment_pb2_grpc.add_PaymentServiceServicer_to_server(servicer, server)

    async with serve_in_process(add, servicer, name="payment") as server:
        yield Payments(server.stub(payment_pb2_grpc.PaymentServiceStub, as_service="order"))


@pytest.mark.parametrize("left", ["100.00", "5.00", "0.00"])
async def test_a_return_is_refunded_once_with_what_is_owed_or_left(left: str) -> None:
    order, made = a_received_return()
    given = min(made.refund, usd(left))
    servicer = PaymentServicer(usd(left))  # type: ignore[abstract]
    async with payment(servicer) as peer:
        for _ in range(3):
            assert await peer.refund_return(order, made) == ReturnRefundMade(made.return_id, given)
    assert servicer.left == usd(left) - given


async def test_nothing_is_given_back_for_a_return_of_what_was_never_taken() -> None:
    order, made = a_received_return()
    servicer = PaymentServicer(usd("100.00"), status="lapsed")  # type: ignore[abstract]
    async with payment(servicer) as peer:
        assert await peer.refund_return(order, made) == ReturnRefundMade(made.return_id, usd("0.00"))


async def test_a_refund_that_is_not_made_yet_is_no_answer() -> None:
    order, made = a_received_return()
    servicer = PaymentServicer(usd("100.00"), status="pending")  # type: ignore[abstract]
    async with payment(servicer) as peer:
        assert await peer.refund_return(order, made) is None
        servicer.status = "succeeded"
        assert await peer.refund_return(order, made) == ReturnRefundMade(made.return_id, made.refund)


async def test_the_capture_is_asked_of_the_orders_payment() -> None:
    order = a_delivered_order()
    servicer = PaymentServicer(usd("100.00"))  # type: ignore[abstract]
    async with payment(servicer) as peer:
        await peer.capture(order)
    assert order.payment
    assert servicer.captured == [str(order.payment.payment_id)]
