"""Stripe behind the port of the payment gateway, by its own library.

A payment is a PaymentIntent that is confirmed as it is made. Our payment token is a PaymentMethod (`pm_…`),
which the client got from Stripe in place of the card. The metadata of what we make carries our ids, also into
the notices.

A shop that is set to Stripe imports this module, and with it the library, which takes half a second of a
processor and thirty megabytes.
"""

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Literal, Self, TypeVar
from uuid import UUID

import aiohttp
import stripe
from pydantic import BaseModel, Field, ValidationError

from stoa_chassis.breaker import Breaker
from stoa_chassis.company import check_age
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
from stoa_payment.peers import Cents, Currency
from stoa_payment.ports import NoAnswer

_log = get_logger(__name__)
_CARD = "latest_charge"  # what is expanded in answers: it knows the card
_OUTCOMES = {
    "processing": ChargeStatus.PENDING,
    "requires_capture": ChargeStatus.AUTHORIZED,
    "succeeded": ChargeStatus.SUCCEEDED,
    # Nobody is there any more to try another card, or to show the bank who she is: it ends here.
    "requires_payment_method": ChargeStatus.FAILED,
    "requires_action": ChargeStatus.FAILED,
    "requires_confirmation": ChargeStatus.FAILED,
    "canceled": ChargeStatus.FAILED,
}

T = TypeVar("T")
_Body = TypeVar("_Body", bound=BaseModel)


class _Card(BaseModel):
    brand: str | None = None
    last4: str | None = None


class _Method(BaseModel):
    card: _Card | None = None


class _Metadata(BaseModel):
    order_id: UUID | None = None
    refund_id: UUID | None = None


class _Charge(BaseModel):
    """What moves the money of an intent."""

    payment_intent: str | None = None
    amount: Cents
    currency: Currency
    status: Literal["pending", "succeeded", "failed"]
    captured: bool
    failure_code: str | None = None
    payment_method_details: _Method | None = None
    metadata: _Metadata = _Metadata()

    @property
    def card(self) -> _Card:
        return (self.payment_method_details and self.payment_method_details.card) or _Card()

    def value(self) -> Charge | None:
        """Return the charge if it is one of ours."""
        if self.payment_intent is None or self.metadata.order_id is None:
            return None
        held = self.status == "succeeded" and not self.captured
        return Charge(
            charge_id=self.payment_intent,
            order_id=self.metadata.order_id,
            amount=Money.of_cents(self.amount, self.currency),
            status=ChargeStatus.AUTHORIZED if held else ChargeStatus(self.status),
            brand=self.card.brand or "",
            last4=self.card.last4 or "",
            failure_code=self.failure_code or "",
        )


class _Error(BaseModel):
    code: str | None = None
    decline_code: str | None = None


class _Intent(BaseModel):
    id: str
    amount: Cents
    currency: Currency
    status: str
    latest_charge: _Charge | str | None = None
    last_payment_error: _Error | None = None
    metadata: _Metadata = _Metadata()

    def value(self, payment: Payment) -> Charge:
        """Return the charge of a payment. Raises NoAnswer for a status that we don't know."""
        if (status := _OUTCOMES.get(self.status)) is None:
            raise NoAnswer(f"the payment intent is {self.status}")
        card = self.latest_charge.card if isinstance(self.latest_charge, _Charge) else _Card()
        error = self.last_payment_error or _Error()
        failure = error.decline_code or error.code or self.status
        return Charge(
            charge_id=self.id,
            order_id=payment.order_id,
            amount=Money.of_cents(self.amount, self.currency),
            status=status,
            brand=card.brand or "",
            last4=card.last4 or "",
            failure_code=failure if status is ChargeStatus.FAILED else "",
        )


class _Refund(BaseModel):
    id: str
    amount: Cents
    currency: Currency
    status: str | None = None
    payment_intent: str | None = None
    metadata: _Metadata = _Metadata()

    @property
    def is_made(self) -> bool:
        """Whether the money is back: one that Stripe has taken may still wait, or fail."""
        return self.status == "succeeded"

    def value(self) -> GatewayRefund | OutsideRefund | None:
        """Return the refund once it is made, if it is of an intent."""
        if not self.is_made or self.payment_intent is None:
            return None
        if self.metadata.refund_id is None:
            return OutsideRefund(self.id, self.payment_intent, Money.of_cents(self.amount, self.currency))
        return GatewayRefund(self.id, self.metadata.refund_id)


class _Event(BaseModel):
    class Data(BaseModel):
        object: dict[str, Any]

    id: str = Field(min_length=1)
    type: str
    data: Data


class StripeGateway:
    """Stripe, as the gateway of the shop."""

    def __init__(self, client: stripe.StripeClient, webhook_secret: str) -> None:
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds
        self._webhook_secret = webhook_secret
        self._breaker = Breaker("gateway")

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, api_key: str, webhook_secret: str, request_timeout: timedelta
    ) -> AsyncIterator[Self]:
        """Keep connections to Stripe, or to who plays it, at `url`; a request may take `request_timeout`."""
        timeout = aiohttp.ClientTimeout(total=request_timeout.total_seconds())
        async with aiohttp.ClientSession(
            timeout=timeout,
            connector=aiohttp.TCPConnector(limit=100, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            client = stripe.StripeClient(
                api_key,
                base_addresses={"api": url.rstrip("/")},
                http_client=stripe.AIOHTTPClient(timeout=timeout, session=session),
                max_network_retries=0,  # what has no answer is asked again by us, for as long as it takes
            )
            yield cls(client, webhook_secret)

    async def charge(self, payment: Payment) -> Charge:
        """Make and confirm a payment intent with the order's id as the idempotency key."""
        path = "POST payment_intents"
        try:
            made = await self._asked(
                path,
                self._intents.create_async(
                    {
                        "amount": payment.amount.cents,
                        "currency": payment.amount.currency.lower(),
                        "payment_method": payment.token or "",
                        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
                        "capture_method": "manual" if payment.held else "automatic",
                        "confirm": True,
                        # The shopper has gone: what would need her is declined.
                        "error_on_requires_action": True,
                        "metadata": {"order_id": str(payment.order_id)},
                        "expand": [_CARD],
                    },
                    {"idempotency_key": str(payment.order_id)},
                ),
                # A card whose bank does not answer must not keep the others waiting.
                probes=False,
            )
        except stripe.CardError as error:
            return _declined(payment, error)
        except stripe.InvalidRequestError as error:
            if (error.param or "").startswith("payment_method"):
                return _without_intent(payment, error, "invalid_token")
            raise _refused(path, error) from error
        return _parsed(_Intent, made).value(payment)

    async def find(self, payment: Payment) -> Charge | None:
        """Search for the payment intent of an order.

        The search knows an intent only after some seconds. One that it misses is asked for again, with its
        key, and so is not made twice; a payment is given up only after a day.
        """
        found = await self._answered(
            "GET payment_intents/search",
            self._intents.search_async(
                {
                    "query": f"metadata['order_id']:'{payment.order_id}'",
                    "limit": 1,
                    "expand": [f"data.{_CARD}"],
                }
            ),
        )
        intents = (_parsed(_Intent, intent) for intent in found.data)
        ours = (intent for intent in intents if intent.metadata.order_id == payment.order_id)
        return next((intent.value(payment) for intent in ours), None)

    async def capture(self, payment: Payment) -> Charge:
        """Take what is held."""
        intent_id, path = str(payment.charge_id), "POST payment_intents/capture"
        try:
            taken = _parsed(
                _Intent,
                await self._asked(
                    path,
                    self._intents.capture_async(
                        intent_id, {"expand": [_CARD]}, {"idempotency_key": f"capture-{payment.order_id}"}
                    ),
                ),
            )
        except (stripe.CardError, stripe.InvalidRequestError) as error:
            # An intent is canceled when its hold lapses at the bank.
            taken = await self._as_it_is(intent_id, path, error, "succeeded", "canceled")
        return taken.value(payment)

    async def release(self, payment: Payment, refund: Refund) -> GatewayRefund:
        """Cancel a payment intent of which nothing was captured."""
        intent_id, path = str(payment.charge_id), "POST payment_intents/cancel"
        try:
            await self._asked(
                path,
                self._intents.cancel_async(intent_id, {}, {"idempotency_key": str(refund.refund_id)}),
            )
        except stripe.InvalidRequestError as error:
            await self._as_it_is(intent_id, path, error, "canceled")
        # That is no refund in Stripe's books, but happens once to an intent.
        return GatewayRefund(f"canceled_{intent_id}", refund.refund_id)

    async def refund(self, payment: Payment, refund: Refund) -> GatewayRefund:
        """Give money back with the refund's id as the idempotency key.

        Stripe forgets keys after a day. So one that was tried before is looked for first.
        """
        made = await self._known(payment, refund) if refund.attempts else None
        if made is None:
            metadata = {"refund_id": str(refund.refund_id), "order_id": str(payment.order_id)}
            made = _parsed(
                _Refund,
                await self._answered(
                    "POST refunds",
                    self._refunds.create_async(
                        {
                            "payment_intent": str(payment.charge_id),
                            "amount": refund.amount.cents,
                            "metadata": metadata,
                        },
                        {"idempotency_key": str(refund.refund_id)},
                    ),
                ),
            )
        if not made.is_made:
            _log.warning("Stripe has not made a refund", refund_id=refund.refund_id, status=made.status)
            raise NoAnswer(f"the refund is {made.status}")
        return GatewayRefund(made.id, refund.refund_id)

    def read_notice(self, body: bytes, signature: str, now: datetime) -> Notice:
        """Return what an event of Stripe says: what became of a charge, or of a refund."""
        try:
            stripe.WebhookSignature.verify_header(body, signature, self._webhook_secret)
        except (stripe.SignatureVerificationError, UnicodeDecodeError) as error:
            raise BadSignature("the notice was not signed by Stripe") from error
        signed_at = next(int(part.strip()[2:]) for part in signature.split(",") if part.strip()[:2] == "t=")
        try:
            check_age(signed_at, now)
        except ValueError as error:
            raise BadSignature(str(error)) from None
        try:
            event = _Event.model_validate_json(body)
            return Notice(event.id, _subject(event.type, event.data.object))
        except ValidationError as error:
            raise InvalidArgument("body", "is not an event of Stripe") from error

    async def _known(self, payment: Payment, refund: Refund) -> _Refund | None:
        known = await self._answered(
            "GET refunds",
            self._refunds.list_async({"payment_intent": str(payment.charge_id), "limit": 100}),
        )
        refunds = (_parsed(_Refund, each) for each in known.data)
        return next((each for each in refunds if each.metadata.refund_id == refund.refund_id), None)

    async def _as_it_is(self, intent_id: str, path: str, error: stripe.StripeError, *ends: str) -> _Intent:
        """Return an intent that has come to one of its ends already. Raises NoAnswer if it has not."""
        if error.code == "payment_intent_unexpected_state":
            found = await self._answered(
                "GET payment_intents", self._intents.retrieve_async(intent_id, {"expand": [_CARD]})
            )
            if (intent := _parsed(_Intent, found)).status in ends:
                return intent
        raise _refused(path, error) from error

    async def _answered(self, path: str, request: Coroutine[Any, Any, T]) -> T:
        try:
            return await self._asked(path, request)
        except (stripe.CardError, stripe.InvalidRequestError) as error:
            raise _refused(path, error) from error

    async def _asked(self, path: str, request: Coroutine[Any, Any, T], *, probes: bool = True) -> T:
        """Return Stripe's answer. Raises CardError, InvalidRequestError, and NoAnswer for everything else."""
        try:
            self._breaker.enter(path, probes=probes)
        except RemoteError as error:
            request.close()
            raise NoAnswer("Stripe has not answered for a while") from error
        try:
            answer = await request
        except (stripe.CardError, stripe.InvalidRequestError):
            self._breaker.succeeded()
            raise
        except stripe.StripeError as error:
            if error.http_status is not None and error.http_status < 500:
                self._breaker.succeeded()
                raise _refused(path, error) from error
            self._breaker.failed()
            raise NoAnswer(f"{path}: {error.http_status or type(error).__name__}") from error
        except (aiohttp.ClientError, TimeoutError) as error:  # in the middle of an answer
            self._breaker.failed()
            raise NoAnswer(f"{path}: {type(error).__name__}") from error
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return answer


def _refused(path: str, error: stripe.StripeError) -> NoAnswer:
    # Not an outcome but a mistake, ours or theirs, or too many requests: it is still to be done.
    cause = f"{error.http_status} {error.code or type(error).__name__}"
    _log.error("Stripe refuses a request", path=path, cause=cause, request_id=error.request_id)
    return NoAnswer(f"{path}: {cause}")


def _declined(payment: Payment, error: stripe.CardError) -> Charge:
    body = error.json_body
    intent = body["error"].get("payment_intent") if isinstance(body, dict) and "error" in body else None
    if intent is None:
        return _without_intent(payment, error, error.code or "card_declined")
    return _parsed(_Intent, intent).value(payment)


def _without_intent(payment: Payment, error: stripe.StripeError, failure_code: str) -> Charge:
    """Return a charge that failed before there was an intent, by the id of the request in Stripe's log."""
    return Charge(
        charge_id=error.request_id or f"refused_{payment.order_id}",
        order_id=payment.order_id,
        amount=payment.amount,
        status=ChargeStatus.FAILED,
        brand="",
        last4="",
        failure_code=failure_code,
    )


def _parsed(body_type: type[_Body], resource: stripe.StripeObject | dict[str, Any]) -> _Body:
    fields = resource.to_dict() if isinstance(resource, stripe.StripeObject) else resource
    try:
        return body_type.model_validate(fields)
    except ValidationError as error:
        raise NoAnswer(f"an answer that we don't understand: {error.error_count()} errors") from error


def _subject(kind: str, resource: dict[str, Any]) -> Charge | GatewayRefund | OutsideRefund | None:
    match kind:
        case "charge.succeeded" | "charge.failed" | "charge.captured":
            return _Charge.model_validate(resource).value()
        case "refund.created" | "refund.updated":
            return _Refund.model_validate(resource).value()
        case _:
            return None
