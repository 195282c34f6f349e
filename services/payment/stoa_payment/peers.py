"""The payment gateway behind its port. Another gateway is another class.

Nothing else knows how one is spoken to.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from stoa_chassis.company import Answer, Company, check_signature, http_session
from stoa_chassis.errors import InvalidArgument
from stoa_chassis.telemetry import get_logger
from stoa_contracts.money import Money
from stoa_payment.model import (
    BadSignature,
    Charge,
    ChargeStatus,
    GatewayRefund,
    Notice,
    OutsideRefund,
    Payment,
    Refund,
)
from stoa_payment.ports import NoAnswer, PaymentGateway
from stoa_payment.settings import Settings

_log = get_logger(__name__)
_Body = TypeVar("_Body", bound=BaseModel)
_MADE = ChargeStatus.SUCCEEDED

Cents = Annotated[int, Field(ge=0, lt=10**12)]
"""An amount as gateways write it."""
Currency = Annotated[str, StringConstraints(pattern="^[A-Za-z]{3}$", to_upper=True)]
"""A currency as gateways write it, in either case."""


class _Card(BaseModel):
    brand: str
    last4: str


class _Metadata(BaseModel):
    order_id: UUID


class _Charge(BaseModel):
    id: str
    amount: Cents
    currency: Currency
    status: ChargeStatus
    captured: bool = True
    failure_code: str | None
    card: _Card
    metadata: _Metadata

    def value(self) -> Charge:
        return Charge(
            charge_id=self.id,
            order_id=self.metadata.order_id,
            amount=Money.of_cents(self.amount, self.currency),
            status=self.status if self.captured or self.status is not _MADE else ChargeStatus.AUTHORIZED,
            brand=self.card.brand,
            last4=self.card.last4,
            failure_code=self.failure_code or "",
        )


class _Charges(BaseModel):
    data: list[_Charge]


class _Declined(BaseModel):
    class Error(BaseModel):
        charge: _Charge

    error: Error


class _Refund(BaseModel):
    class Metadata(BaseModel):
        refund_id: UUID | None = None

    id: str
    charge: str
    amount: Cents
    currency: Currency
    status: str
    metadata: Metadata

    @property
    def is_made(self) -> bool:
        """Whether the money is back: one that the gateway has taken may still wait, or fail."""
        return self.status == "succeeded"

    def value(self) -> GatewayRefund | OutsideRefund:
        if self.metadata.refund_id is None:
            return OutsideRefund(self.id, self.charge, Money.of_cents(self.amount, self.currency))
        return GatewayRefund(self.id, self.metadata.refund_id)


class _Notice(BaseModel):
    class Data(BaseModel):
        object: dict[str, Any]

    id: str
    type: str
    data: Data


class HttpGateway:
    """A gateway with an HTTP API in the manner of Stripe's."""

    def __init__(self, gateway: Company, webhook_secret: str) -> None:
        self._gateway = gateway
        self._webhook_secret = webhook_secret

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, api_key: str, webhook_secret: str, request_timeout: timedelta
    ) -> AsyncIterator[Self]:
        """Keep connections to the gateway; a request may take up to `request_timeout`."""
        headers = {"authorization": f"Bearer {api_key}"}
        async with http_session(url, request_timeout, headers) as client:
            yield cls(Company("gateway", client, NoAnswer), webhook_secret)

    async def charge(self, payment: Payment) -> Charge:
        """Charge a card with the order's id as the idempotency key."""
        answer = await self._gateway.send(
            "POST",
            "v1/charges",
            HTTPStatus.PAYMENT_REQUIRED,
            headers=_idempotent(payment.order_id),
            json={
                "amount": payment.amount.cents,
                "currency": payment.amount.currency,
                "token": payment.token,
                "metadata": {"order_id": str(payment.order_id)},
                **({"capture": False} if payment.held else {}),
            },
            # A card whose bank does not answer must not keep the others waiting. What is left unasked is soon
            # inquired after, and an inquiry does probe.
            probes=False,
        )
        return _charge_of(answer)

    async def find(self, payment: Payment) -> Charge | None:
        """Find a charge by its idempotency key."""
        answer = await self._gateway.send(
            "GET", "v1/charges", params={"idempotency_key": str(payment.order_id)}
        )
        charges = _parsed(_Charges, answer).data
        return charges[0].value() if charges else None

    async def capture(self, payment: Payment) -> Charge:
        """Take what is held; the gateway takes it once."""
        path = f"v1/charges/{payment.charge_id}/capture"
        answer = await self._gateway.send("POST", path, HTTPStatus.PAYMENT_REQUIRED)
        return _charge_of(answer)

    async def release(self, payment: Payment, refund: Refund) -> GatewayRefund:
        """Give up what is held, which this gateway takes for a refund of all of it."""
        return await self.refund(payment, refund)

    async def refund(self, payment: Payment, refund: Refund) -> GatewayRefund:
        """Give money back with the refund's id as the idempotency key."""
        answer = await self._gateway.send(
            "POST",
            "v1/refunds",
            headers=_idempotent(refund.refund_id),
            json={
                "charge": payment.charge_id,
                "amount": refund.amount.cents,
                "metadata": {"refund_id": str(refund.refund_id), "order_id": str(payment.order_id)},
            },
        )
        refunded = _parsed(_Refund, answer)
        if not refunded.is_made:
            _log.warning(
                "the gateway has not made a refund", refund_id=refund.refund_id, status=refunded.status
            )
            raise NoAnswer(f"the refund is {refunded.status}")
        return GatewayRefund(refunded.id, refund.refund_id)

    def read_notice(self, body: bytes, signature: str, now: datetime) -> Notice:
        """Return what a notice says.

        The signature covers time and body, so what a signed notice says is taken as true without asking back.
        """
        try:
            check_signature(signature, body, self._webhook_secret, now)
        except ValueError as error:
            raise BadSignature(str(error)) from None
        try:
            notice = _Notice.model_validate_json(body)
            return Notice(notice.id, _subject(notice.type, notice.data.object))
        except ValidationError as error:
            raise InvalidArgument("body", "is not a notice of the gateway") from error


def connect_gateway(settings: Settings) -> AbstractAsyncContextManager[PaymentGateway]:
    """Keep connections to the gateway that is set."""
    address = (
        settings.gateway_url,
        settings.gateway_api_key,
        settings.gateway_webhook_secret,
        timedelta(seconds=settings.gateway_timeout_seconds),
    )
    if settings.gateway_provider == "stripe":
        from stoa_payment.stripe_gateway import StripeGateway

        return StripeGateway.connect(*address)
    return HttpGateway.connect(*address)


def _idempotent(key: UUID) -> dict[str, str]:
    return {"idempotency-key": str(key)}


def _charge_of(answer: Answer) -> Charge:
    if answer.status == HTTPStatus.PAYMENT_REQUIRED:
        return _parsed(_Declined, answer).error.charge.value()
    return _parsed(_Charge, answer).value()


def _parsed(body_type: type[_Body], answer: Answer) -> _Body:
    try:
        return body_type.model_validate_json(answer.body)
    except ValidationError as error:
        raise NoAnswer(f"an answer that we don't understand: {error.error_count()} errors") from error


def _subject(kind: str, resource: dict[str, Any]) -> Charge | GatewayRefund | OutsideRefund | None:
    match kind:
        case "charge.succeeded" | "charge.failed" | "charge.captured":
            return _Charge.model_validate(resource).value()
        case "refund.succeeded":
            refund = _Refund.model_validate(resource)
            return refund.value() if refund.is_made else None
        case _:
            return None
