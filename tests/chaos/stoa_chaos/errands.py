"""What shoppers do: errands drawn from a seed, and how an errand is run through the edge.

A shopper means it: what is answered "try again" or not at all is sent again, with the same request id. What
no trouble excuses – two orders for one request, an answer taken back, an internal error – is a complaint.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any
from uuid import uuid4

import httpx

from stoa_chaos.record import Record
from stoa_stack.edge_client import EdgeClient, Refused

Json = dict[str, Any]

_PATIENCE = 120.0  # seconds that a shopper tries for before giving up
_SETTLED_WITHIN = 180.0
_TOKEN_IS_GOOD_FOR = 600.0  # seconds
_TRY_AGAIN = (429, 503, 504)
_BUSY = ("REQUEST_IN_PROGRESS", "CART_BUSY")
_ADDRESS = {
    "recipient": "Robin Shopper",
    "line1": "14 Harbour Street",
    "city": "Portland",
    "postal_code": "04101",
    "country": "US",
}


class Habit(StrEnum):
    """How a shopper orders."""

    PLAIN = "orders once"
    HASTY = "sends the same request several times at once"
    FORGETFUL = "sends the same request again later"
    TABS = "orders from two tabs at once"
    FICKLE = "cancels at once"
    REGRETS = "cancels what was confirmed"


_HABITS = {
    Habit.PLAIN: 50,
    Habit.HASTY: 12,
    Habit.FORGETFUL: 10,
    Habit.TABS: 8,
    Habit.FICKLE: 10,
    Habit.REGRETS: 10,
}
_CARDS = {
    "tok_visa": 70,
    "tok_mastercard": 12,
    "tok_declined": 8,
    "tok_insufficient_funds": 5,
    "tok_timeout": 5,
}
_SCARCE = 0.15  # share of the errands that are after what there is little of


@dataclass(frozen=True, slots=True)
class Variant:
    """Something to buy."""

    product_id: str
    variant_id: str


@dataclass(frozen=True, slots=True)
class Errand:
    """One visit to the shop; `at` in seconds from the start of the load. `choice` picks the variant."""

    at: float
    habit: Habit
    card: str
    quantity: int
    scarce: bool
    choice: int
    browses: int
    hesitates: float


def errands(count: int, seconds: float, seed: int) -> list[Errand]:
    """Draw so many errands, spread over so many seconds."""
    dice = random.Random(f"{seed} errands")
    return [
        Errand(
            at=round(seconds * (number + dice.random()) / count, 2),
            habit=dice.choices(list(_HABITS), list(_HABITS.values()))[0],
            card=dice.choices(list(_CARDS), list(_CARDS.values()))[0],
            quantity=dice.choice((1, 1, 1, 2, 3)),
            scarce=dice.random() < _SCARCE,
            choice=dice.randrange(10_000),
            browses=dice.choice((0, 1, 1, 2, 4)),
            hesitates=round(dice.uniform(0, 1.5), 2),
        )
        for number in range(count)
    ]


class GaveUp(Exception):
    """The shop could not be reached for longer than anyone waits."""


@dataclass
class Shopper:
    """Somebody with an account, who insists."""

    client: EdgeClient
    record: Record
    email: str
    password: str
    pause: float = 0.5
    untidy: bool = False  # several tabs may have left something in the cart, or taken it out
    _signed_in: float = field(default_factory=time.monotonic)

    @classmethod
    async def registered(cls, http: httpx.AsyncClient, record: Record) -> Shopper:
        """Open an account and sign in, with patience."""
        email, password = f"chaos-{uuid4().hex}@stoa.example", uuid4().hex
        account = {"email": email, "password": password, "first_name": "Robin", "last_name": "Shopper"}
        anyone = EdgeClient(http)
        await anyone.call("POST", "/api/v1/users", account)
        client = await anyone.sign_in(email, password)
        return cls(replace(client, tries=1), record, email, password)

    async def insist(
        self, method: str, path: str, body: Json | None = None, *, patience: float = _PATIENCE, **query: Any
    ) -> Json:
        """Send a request until it is answered. Raises Refused if the shop says no, and GaveUp."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return dict((await self.client.call(method, path, body, **query)).body or {})
            except Refused as refused:
                if refused.status == 401 and time.monotonic() - self._signed_in > _TOKEN_IS_GOOD_FOR:
                    await self._sign_in()
                elif refused.status not in _TRY_AGAIN and refused.reason not in _BUSY:
                    if refused.status >= 500 or refused.status == 401:
                        self.record.complain(f"{refused} (request {refused.request_id})")
                    raise
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise GaveUp(f"{method} {path}")
            await asyncio.sleep(self.pause * random.uniform(0.5, 1))

    async def _sign_in(self) -> None:
        try:
            client = await replace(self.client, access_token="").sign_in(self.email, self.password)
        except (Refused, httpx.TransportError):
            return  # the user service is down as well; the next try comes here again
        self.client, self._signed_in = client, time.monotonic()

    async def add(self, variant: Variant, quantity: int) -> None:
        """Put something into the cart."""
        item = {"product_id": variant.product_id, "variant_id": variant.variant_id, "quantity": quantity}
        await self.insist("POST", f"/api/v1/cart/{self.client.user_id}/items", item)

    async def place(self, card: str, request_id: str) -> Json:
        """Order what is in the cart."""
        body = {"request_id": request_id, "shipping_address": _ADDRESS, "payment_token": card}
        order = await self.insist("POST", "/api/v1/orders", body)
        self.record.saw(order)
        return order

    async def settled(self, order: Json) -> Json:
        """Look at an order until it is no longer pending. Raises GaveUp."""
        began, pause = time.monotonic(), 0.1
        while order["status"] == "pending":
            if time.monotonic() - began > _SETTLED_WITHIN:
                raise GaveUp(f"order {order['order_id']} stays pending")
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, 2.0)
            order = await self.insist("GET", f"/api/v1/orders/{order['order_id']}")
            self.record.saw(order)
        return order

    async def cancel(self, order: Json) -> None:
        """Cancel an order."""
        self.record.cancelled(order["order_id"])
        path = f"/api/v1/orders/{order['order_id']}/cancel"
        self.record.saw(await self.insist("PUT", path, {"reason": "changed my mind"}))


async def run(errand: Errand, shopper: Shopper, variants: Sequence[Variant]) -> None:
    """Run an errand to its end, and note what became of it."""
    variant = variants[errand.choice % len(variants)]
    try:
        outcome = await _shop(errand, shopper, variant)
    except GaveUp as gave_up:
        outcome = "gave up"
        shopper.record.complain(f"a shopper gave up: {gave_up}")
    except Refused as refused:
        outcome = refused.reason.lower().replace("_", " ") or f"refused with {refused.status}"
        expected = refused.reason == "OUT_OF_STOCK" and errand.scarce
        if not expected and not (refused.reason == "CART_EMPTY" and shopper.untidy):
            shopper.record.complain(f"{refused}: {errand} of {variant.variant_id}")
    shopper.record.errand(errand.habit, outcome)


async def _shop(errand: Errand, shopper: Shopper, variant: Variant) -> str:
    for number in range(errand.browses):
        if number == 0:
            await shopper.insist("GET", "/api/v1/products", page_size=20)
        else:
            await shopper.insist("GET", f"/api/v1/products/{variant.product_id}")
    await shopper.add(variant, errand.quantity)
    request_ids = [str(uuid4()) for _ in range(2 if errand.habit is Habit.TABS else 1)]
    copies = 3 if errand.habit is Habit.HASTY else 1
    shopper.untidy |= errand.habit is Habit.TABS
    began = time.monotonic()
    answers = await _all(
        lambda request_id=request_id: shopper.place(errand.card, request_id)
        for request_id in request_ids * copies
    )
    shopper.record.placed()
    orders = {order["order_id"]: order for order in answers}
    if len(orders) > len(request_ids):
        shopper.record.complain(f"one request gave several orders: {', '.join(orders)}")
    if not shopper.untidy and not any(_holds(order, variant, errand.quantity) for order in orders.values()):
        shopper.record.complain(f"what was put into the cart is not in the order: {', '.join(orders)}")
    if errand.habit is Habit.FICKLE:
        await asyncio.sleep(errand.hesitates)
        await _all(lambda order=order: shopper.cancel(order) for order in orders.values())
        return "cancelled by the shopper"
    settled = await asyncio.gather(*(shopper.settled(order) for order in orders.values()))
    shopper.record.settled(errand.card, time.monotonic() - began)
    if errand.habit is Habit.FORGETFUL:
        await asyncio.sleep(errand.hesitates)
        again = await shopper.place(errand.card, request_ids[0])
        if again["order_id"] not in orders:
            shopper.record.complain(f"a repeated request gave another order: {again['order_id']}")
    if errand.habit is Habit.REGRETS and settled[0]["status"] == "confirmed":
        await asyncio.sleep(errand.hesitates)
        await shopper.cancel(settled[0])
        return "cancelled by the shopper"
    return " and ".join(sorted({str(order["status"]) for order in settled}))


async def _all(calls: Any) -> list[Any]:
    """Do several things at once; a refusal is raised only if all fail: one tab may empty another's cart."""
    made: list[Callable[[], Awaitable[Any]]] = list(calls)
    results = await asyncio.gather(*(call() for call in made), return_exceptions=True)
    good = [result for result in results if not isinstance(result, BaseException)]
    for result in results:
        if isinstance(result, BaseException) and (not good or not isinstance(result, Refused)):
            raise result
    return good


def _holds(order: Json, variant: Variant, quantity: int) -> bool:
    return any(
        item["variant_id"] == variant.variant_id and item["quantity"] >= quantity for item in order["items"]
    )
