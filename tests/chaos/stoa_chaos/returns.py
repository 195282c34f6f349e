"""What follows a purchase in some journeys: it is delivered, and sent back, in one part or two.

The shopper asks, several times if need be; staff decide, in one tab or two; what is approved is received, and
refunded. Whatever is down meanwhile, one request is one return. When all is quiet its shopper looks again:
what came back is refunded, once and with the right amount, and what was rejected is not. That it is on the
shelf again as well is for the audit to say.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import TypeVar
from uuid import uuid4

import httpx

from stoa_chaos.shopper import GaveUp, InsistentClient, Shopper, quantities
from stoa_rest import Order, Return, ReturnItem
from stoa_stack.carriers import Carriers
from stoa_stack.rest import ApiError
from stoa_stack.shopping import amount

T = TypeVar("T")

_DELIVERED_WITHIN = 180.0  # seconds, while anything may be down
_LOOK_EVERY = 0.5
_ALL_SCANS = 10


class Parts(StrEnum):
    """How much of an order is sent back."""

    ALL = "all of it"
    ONE = "one of the items"
    TWO = "one of the items, and then the others"


class Decision(StrEnum):
    """What staff say."""

    APPROVED = "approved"
    REJECTED = "rejected"
    DISPUTED = "approved in one tab, and rejected in another at once"


_DECISIONS = {Decision.APPROVED: 65, Decision.REJECTED: 20, Decision.DISPUTED: 15}


class NotDelivered(Exception):
    """A parcel is on its way for longer than anybody waits."""


@dataclass(frozen=True, slots=True)
class SendsBack:
    """How an order is sent back; a `hasty` shopper asks three times at once, others again later."""

    parts: Parts
    hasty: bool
    decision: Decision
    tabs: int
    """In how many at once staff say so."""


def drawn(dice: random.Random) -> SendsBack:
    """Draw how an order is sent back."""
    return SendsBack(
        parts=dice.choice(list(Parts)),
        hasty=dice.random() < 0.5,
        decision=dice.choices(list(_DECISIONS), list(_DECISIONS.values()))[0],
        tabs=dice.choice((1, 2)),
    )


@dataclass(slots=True)
class SentBack:
    """An order of which returns were asked for, and what of each became, as it was answered.

    `owed` is what is to be given back for each that was received; nothing for those that were rejected.
    """

    shopper: Shopper
    order: Order
    owed: dict[str, Decimal] = field(default_factory=dict)
    received: Counter[str] = field(default_factory=Counter)
    """How many of each variant."""

    @property
    def order_id(self) -> str:
        """Which order."""
        return self.order["order_id"]

    @property
    def is_whole(self) -> bool:
        """Whether all of the order came back."""
        return self.received == quantities(self.order)

    def complain(self, what: str) -> None:
        """Note what no trouble excuses."""
        self.shopper.record.complain(f"{what}, of order {self.order_id}")


@dataclass
class Returns:
    """The desk at which returns are decided, and all that went over it."""

    staff: InsistentClient
    carriers: Carriers
    orders: list[SentBack] = field(default_factory=list)

    async def send_back(self, plan: SendsBack, shopper: Shopper, order: Order) -> None:
        """Send back what of an order is to be sent back, once it is delivered, and note what is owed."""
        sent = SentBack(shopper, order)
        try:
            await self._delivered(sent)
            for items in _parts(plan.parts, order):
                await self._send_back(plan, sent, items)
        except (GaveUp, NotDelivered) as gave_up:
            sent.complain(f"a shopper who sends something back gave up: {gave_up}")
        except ApiError as error:
            sent.complain(f"{error}: {plan}")

    async def look_again(self) -> None:
        """Look at all that was sent back as its shoppers see it, now that nothing is under way."""
        for sent in self.orders:
            try:
                await _look_again(sent)
            except (GaveUp, ApiError) as error:
                sent.complain(f"what was sent back can't be looked at: {error}")

    async def _delivered(self, sent: SentBack) -> None:
        """Wait until the order is delivered, which the carrier is told to do now. Raises NotDelivered."""
        deadline = time.monotonic() + _DELIVERED_WITHIN
        order = sent.order
        while order["status"] != "delivered":
            if time.monotonic() > deadline:
                raise NotDelivered(f"it is {order['status']}")
            if shipment := order.get("shipment"):
                with suppress(httpx.HTTPError):  # the carriers may be what is broken
                    await self.carriers.advance(shipment["tracking_id"], _ALL_SCANS)
            await asyncio.sleep(_LOOK_EVERY)
            order = await sent.shopper.get_order(sent.order_id)

    async def _send_back(self, plan: SendsBack, sent: SentBack, items: Sequence[ReturnItem]) -> None:
        request_id = str(uuid4())

        def ask() -> Awaitable[Return]:
            return sent.shopper.create_return(
                sent.order_id, request_id=request_id, items=list(items), reason="changed my mind"
            )

        made = await _at_once(*(ask() for _ in range(3 if plan.hasty else 1)))
        return_id = made[0]["return_id"]
        if not sent.owed:
            self.orders.append(sent)
        sent.owed[return_id] = Decimal(0)
        sent.shopper.record.returns["asked for"] += 1
        decided = await self._decide(plan, sent, return_id)
        again = await ask()
        if {each["return_id"] for each in (*made, again)} != {return_id}:
            sent.complain(f"one request gave several returns: {return_id} and others")
        if again["status"] != decided:
            sent.complain(f"return {return_id} was {decided}, and is shown as {again['status']}")
        sent.shopper.record.returns[decided] += 1
        if decided == "approved":
            await self._receive(plan, sent, return_id, items)
        elif not await _is_refused(self.staff.receive_return(sent.order_id, return_id)):
            sent.complain(f"return {return_id} was rejected, and then received")

    async def _decide(self, plan: SendsBack, sent: SentBack, return_id: str) -> str:
        """Approve or reject a return; return how it stands then."""

        def approve() -> Awaitable[Return]:
            return self.staff.approve_return(sent.order_id, return_id, reason="of course")

        def reject() -> Awaitable[Return]:
            return self.staff.reject_return(sent.order_id, return_id, reason="it is scratched")

        if plan.decision is Decision.DISPUTED:
            # What is approved can be rejected until it is received, and what is rejected stays so.
            await _at_once(_is_refused(approve()), reject())
            return "rejected"
        decide = approve if plan.decision is Decision.APPROVED else reject
        for decided in await _at_once(*(decide() for _ in range(plan.tabs))):
            if decided["status"] != plan.decision:
                sent.complain(f"return {return_id} was to be {plan.decision}, and is {decided['status']}")
        return plan.decision

    async def _receive(
        self, plan: SendsBack, sent: SentBack, return_id: str, items: Sequence[ReturnItem]
    ) -> None:
        before = owed(sent.order, sent.received)
        answers = await _at_once(
            *(self.staff.receive_return(sent.order_id, return_id) for _ in range(plan.tabs))
        )
        sent.shopper.record.asked()
        for item in items:
            sent.received[item["variant_id"]] += item["quantity"]
        sent.owed[return_id] = owed(sent.order, sent.received) - before
        for answer in answers:
            if answer["status"] not in ("received", "refunded"):
                sent.complain(f"return {return_id} was received, and is {answer['status']}")
        if not await _is_refused(self.staff.reject_return(sent.order_id, return_id, reason="too late")):
            sent.complain(f"return {return_id} was received, and then rejected")


def owed(order: Order, came_back: Counter[str]) -> Decimal:
    """Return what is to be given back for so much of an order, reckoned without the shop.

    That is the price with its share of the tax, and all that was paid if nothing is kept.
    """
    if came_back == quantities(order):
        return amount(order["total_amount"])
    price = sum(
        (amount(line["price"]) * came_back[line["variant_id"]] for line in order["items"]), Decimal(0)
    )
    tax = amount(order["tax_amount"]) * price / amount(order["subtotal"])
    return price + tax.quantize(Decimal("0.01"), ROUND_HALF_UP)


async def _look_again(sent: SentBack) -> None:
    returns = (await sent.shopper.list_order_returns(sent.order_id))["returns"]
    shown = {each["return_id"]: each for each in returns}
    for return_id in sent.owed.keys() - shown.keys():
        sent.complain(f"return {return_id} is lost")
    for return_id in shown.keys() - sent.owed.keys():
        sent.complain(f"nobody has asked for return {return_id}")
    for return_id in sent.owed.keys() & shown.keys():
        found, right = shown[return_id], sent.owed[return_id]
        status = "refunded" if right else "rejected"
        if found["status"] != status:
            sent.complain(f"return {return_id} was to be {status}, and is {found['status']}")
        elif right and amount(found["refund_amount"]) != right:
            sent.complain(
                f"return {return_id} is refunded with {amount(found['refund_amount']):.2f} of {right}"
            )
        else:
            sent.shopper.record.returns["refunded"] += bool(right)
    order = await sent.shopper.get_order(sent.order_id)
    status = "returned" if sent.is_whole else "delivered"
    if order["status"] != status:
        sent.complain(f"it was to be {status}, and is {order['status']}")
    payment = await sent.shopper.get_payment(order["payment"]["payment_id"])
    right = sum(sent.owed.values(), Decimal(0))
    given_back = amount(payment["refunded_amount"])
    if given_back != right:
        sent.complain(f"{given_back:.2f} was given back of {right}")
    sent.shopper.record.given_back += given_back


def _parts(parts: Parts, order: Order) -> list[list[ReturnItem]]:
    """Return what is sent back together. Of a single item there is one part."""
    units = list(quantities(order).elements())
    cut = {Parts.ALL: [units], Parts.ONE: [units[:1]], Parts.TWO: [units[:1], units[1:]]}
    return [
        [{"variant_id": variant_id, "quantity": quantity} for variant_id, quantity in Counter(part).items()]
        for part in cut[parts]
        if part
    ]


async def _at_once(*requests: Awaitable[T]) -> list[T]:
    """Send requests at once, and wait for all of their answers. Raises the first refusal."""
    answers = []
    for answer in await asyncio.gather(*requests, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer
        answers.append(answer)
    return answers


async def _is_refused(request: Awaitable[Return]) -> bool:
    """Tell whether a return can't be decided so any more. Raises any other refusal."""
    try:
        await request
    except ApiError as error:
        if error.reason != "RETURN_NOT_OPEN":
            raise
        return True
    return False
