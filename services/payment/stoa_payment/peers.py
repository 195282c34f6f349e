"""The payment gateway behind its port. Another gateway is another class.

Nothing else knows how one is spoken to.
"""

import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar
from uuid import UUID

import aiohttp
import orjson
from pydantic import BaseModel, Field, StringConstraints, ValidationError

from stoa_chassis.breaker import Breaker
from stoa_chassis.errors import InvalidArgument, RemoteError
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
_SIGNATURE_TOLERANCE = timedelta(minutes=5)


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


class _Answer(NamedTuple):
    status: int
    body: bytes


class HttpGateway:
    """A gateway with an HTTP API in the manner of Stripe's."""

    def __init__(self, client: aiohttp.ClientSession, webhook_secret: str) -> None:
        self._client = client
        self._webhook_secret = webhook_secret.encode()
        self._breaker = Breaker("gateway")

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, api_key: str, webhook_secret: str, request_timeout: timedelta
    ) -> AsyncIterator[Self]:
        """Keep connections to the gateway; a request may take up to `request_timeout`."""
        async with aiohttp.ClientSession(
            base_url=f"{url.rstrip('/')}/",
            headers={"authorization": f"Bearer {api_key}"},
            timeout=aiohttp.ClientTimeout(total=request_timeout.total_seconds()),
            connector=aiohttp.TCPConnector(limit=100, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            json_serialize_bytes=orjson.dumps,
        ) as client:
            yield cls(client, webhook_secret)

    async def charge(self, payment: Payment) -> Charge:
        """Charge a card with the order's id as the idempotency key."""
        answer = await self._request(
            "POST",
            "v1/charges",
            key=payment.order_id,
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
        if answer.status == HTTPStatus.PAYMENT_REQUIRED:
            return _parsed(_Declined, answer).error.charge.value()
        return _parsed(_Charge, answer).value()

    async def find(self, payment: Payment) -> Charge | None:
        """Find a charge by its idempotency key."""
        answer = await self._request("GET", "v1/charges", params={"idempotency_key": str(payment.order_id)})
        charges = _parsed(_Charges, answer).data
        return charges[0].value() if charges else None

    async def capture(self, payment: Payment) -> Charge:
        """Take what is held; the gateway takes it once."""
        return _parsed(
            _Charge, await self._request("POST", f"v1/charges/{payment.charge_id}/capture")
        ).value()

    async def release(self, payment: Payment, refund: Refund) -> GatewayRefund:
        """Give up what is held, which this gateway takes for a refund of all of it."""
        return await self.refund(payment, refund)

    async def refund(self, payment: Payment, refund: Refund) -> GatewayRefund:
        """Give money back with the refund's id as the idempotency key."""
        answer = await self._request(
            "POST",
            "v1/refunds",
            key=refund.refund_id,
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
        self._check_signature(body, signature, now)
        try:
            notice = _Notice.model_validate_json(body)
            return Notice(notice.id, _subject(notice.type, notice.data.object))
        except ValidationError as error:
            raise InvalidArgument("body", "is not a notice of the gateway") from error

    def _check_signature(self, body: bytes, signature: str, now: datetime) -> None:
        parts = dict(part.split("=", 1) for part in signature.split(",") if "=" in part)
        timestamp, given = parts.get("t", ""), parts.get("v1", "")
        if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
            raise BadSignature("the notice is not signed")
        signed = timestamp.encode() + b"." + body
        expected = hmac.new(self._webhook_secret, signed, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), given.encode()):
            raise BadSignature("the notice was not signed by the gateway")
        if abs(now.timestamp() - int(timestamp)) > _SIGNATURE_TOLERANCE.total_seconds():
            raise BadSignature("the notice was signed too long ago")

    async def _request(
        self,
        method: Literal["GET", "POST"],
        path: str,
        *,
        key: UUID | None = None,
        probes: bool = True,
        **content: Any,
    ) -> _Answer:
        """Send a request; 2xx and 402 are answers. Raises NoAnswer for everything else."""
        headers = {"idempotency-key": str(key)} if key else {}
        try:
            self._breaker.enter(path, probes=probes)
        except RemoteError as error:
            raise NoAnswer("the gateway has not answered for a while") from error
        try:
            async with self._client.request(
                method, path, headers=headers, allow_redirects=False, **content
            ) as response:
                answer = _Answer(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            self._breaker.failed()
            raise NoAnswer(f"{method} {path}: {type(error).__name__} {error}") from error
        except BaseException:
            self._breaker.abandoned()
            raise
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._breaker.failed()
            raise NoAnswer(f"{method} {path}: {answer.status}")
        self._breaker.succeeded()
        if not 200 <= answer.status < 300 and answer.status != HTTPStatus.PAYMENT_REQUIRED:
            # Not an outcome but a mistake, ours or theirs: what was asked for is still to be done.
            text = answer.body.decode(errors="replace")
            _log.error("the gateway refuses a request", path=path, status=answer.status, body=text)
            raise NoAnswer(f"{method} {path}: {answer.status}")
        return answer


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


def _parsed(body_type: type[_Body], answer: _Answer) -> _Body:
    try:
        return body_type.model_validate_json(answer.body)
    except ValidationError as error:
        raise NoAnswer(f"an answer that we don't understand: {error.error_count()} errors") from error


def _subject(kind: str, resource: dict[str, Any]) -> Charge | GatewayRefund | OutsideRefund | None:
    match kind:
        case "charge.succeeded" | "charge.failed" | "charge.captured":
            return _Charge.model_validate(resource).value()
        case "refund.succeeded":
            return _Refund.model_validate(resource).value()
        case _:
            return None
