"""The gRPC servicer: messages to use cases and back."""

from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from stoa.payment.v1 import payment_pb2, payment_pb2_grpc
from stoa_chassis.auth import current_principal
from stoa_chassis.money_proto import from_proto, to_proto
from stoa_chassis.timestamps import to_timestamp
from stoa_payment.model import Payment, Refund, RequestKey
from stoa_payment.service import Payments, ProcessPayment, RefundPayment

_SIGNATURE_HEADERS = ("x-gateway-signature", "stripe-signature")


class PaymentServicer(payment_pb2_grpc.PaymentServiceServicer):
    """stoa.payment.v1.PaymentService."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments

    async def ProcessPayment(
        self, request: payment_pb2.ProcessPaymentRequest, context: Any
    ) -> payment_pb2.ProcessPaymentResponse:
        """Charge an order."""
        command = ProcessPayment(
            order_id=UUID(request.order_id),
            user_id=UUID(request.user_id),
            amount=from_proto(request.amount, "amount"),
            token=request.payment_token,
        )
        payment = await self._payments.process(command)
        return payment_pb2.ProcessPaymentResponse(payment=_payment_message(payment))

    async def GetPayment(
        self, request: payment_pb2.GetPaymentRequest, context: Any
    ) -> payment_pb2.GetPaymentResponse:
        """Read a payment."""
        payment = await self._payments.get(UUID(request.payment_id), current_principal())
        return payment_pb2.GetPaymentResponse(payment=_payment_message(payment))

    async def RefundPayment(
        self, request: payment_pb2.RefundPaymentRequest, context: Any
    ) -> payment_pb2.RefundPaymentResponse:
        """Give money back."""
        command = RefundPayment(
            payment_id=UUID(request.payment_id),
            key=RequestKey(current_principal().key_namespace, request.request_id),
            amount=from_proto(request.amount, "amount") if request.HasField("amount") else None,
            reason=request.reason,
        )
        refund = await self._payments.refund(command)
        return payment_pb2.RefundPaymentResponse(refund=_refund_message(refund))

    async def CapturePayment(
        self, request: payment_pb2.CapturePaymentRequest, context: Any
    ) -> payment_pb2.CapturePaymentResponse:
        """Take what is held."""
        payment = await self._payments.capture(UUID(request.payment_id))
        return payment_pb2.CapturePaymentResponse(payment=_payment_message(payment))

    async def ReceiveWebhook(self, request: payment_pb2.ReceiveWebhookRequest, context: Any) -> Empty:
        """Take a notice of the gateway."""
        metadata = dict(context.invocation_metadata())
        signature = next((metadata[name] for name in _SIGNATURE_HEADERS if name in metadata), "")
        await self._payments.receive_notice(request.body.data, str(signature))
        return Empty()


def _payment_message(payment: Payment) -> payment_pb2.Payment:
    return payment_pb2.Payment(
        payment_id=str(payment.payment_id),
        order_id=str(payment.order_id),
        user_id=str(payment.user_id),
        amount=to_proto(payment.amount),
        refunded_amount=to_proto(payment.refunded),
        status=payment.status,
        method_type=payment.method_type,
        brand=payment.brand,
        last4=payment.last4,
        failure_reason=payment.failure_reason,
        created_at=to_timestamp(payment.created_at),
        updated_at=to_timestamp(payment.updated_at),
        captured=payment.is_captured,
    )


def _refund_message(refund: Refund) -> payment_pb2.Refund:
    return payment_pb2.Refund(
        refund_id=str(refund.refund_id),
        payment_id=str(refund.payment_id),
        amount=to_proto(refund.amount),
        status=refund.status,
        reason=refund.reason,
        created_at=to_timestamp(refund.created_at),
    )
