"""What shoppers do: journeys drawn from a seed, and how one is played through the edge.

A shopper means it: what is answered "try again" or not at all is sent again, with the same request id. What
no trouble excuses – two orders for one request, an answer taken back, an internal error – is a complaint.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar
from uuid import uuid4

from stoa_chaos.shopper import GaveUp, Shopper
from stoa_rest import Order
from stoa_stack.rest import ApiError
from stoa_stack.shopping import Item, NotSettled

T = TypeVar("T")


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
_SCARCE = 0.15  # share of the journeys that are after what there is little of


@dataclass(frozen=True, slots=True)
class Journey:
    """One visit to the shop; `at` in seconds from the start of the load. `choice` picks what is bought."""

    at: float
    habit: Habit
    card: str
    quantity: int
    scarce: bool
    choice: int
    browses: int
    hesitates: float


def journeys(count: int, seconds: float, seed: int) -> list[Journey]:
    """Draw so many journeys, spread over so many seconds."""
    dice = random.Random(f"{seed} journeys")
    return [
        Journey(
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


async def play(journey: Journey, shopper: Shopper, items: Sequence[Item]) -> None:
    """Play a journey to its end, and note what became of it."""
    item = items[journey.choice % len(items)]
    record = shopper.record
    try:
        outcome = await _play(journey, shopper, item)
    except (GaveUp, NotSettled) as gave_up:
        outcome = "gave up"
        record.complain(f"a shopper gave up: {gave_up}")
    except ApiError as error:
        outcome = error.reason.lower().replace("_", " ") or f"refused with {error.status}"
        expected = error.reason == "OUT_OF_STOCK" and journey.scarce
        if not expected and not (error.reason == "CART_EMPTY" and shopper.untidy):
            record.complain(f"{error}: {journey} of {item.variant_id}")
    record.journey(journey.habit, outcome)


async def _play(journey: Journey, shopper: Shopper, item: Item) -> str:
    for number in range(journey.browses):
        if number == 0:
            await shopper.list_products(page_size=20)
        else:
            await shopper.get_product(item.product_id)
    await shopper.add(item, journey.quantity)
    request_ids = [str(uuid4()) for _ in range(2 if journey.habit is Habit.TABS else 1)]
    copies = 3 if journey.habit is Habit.HASTY else 1
    shopper.untidy |= journey.habit is Habit.TABS
    began = time.monotonic()
    answers = await _all(shopper.place(journey.card, request_id) for request_id in request_ids * copies)
    shopper.record.placed()
    orders = {order["order_id"]: order for order in answers}
    if len(orders) > len(request_ids):
        shopper.record.complain(f"one request gave several orders: {', '.join(orders)}")
    if not shopper.untidy and not any(_holds(order, item, journey.quantity) for order in orders.values()):
        shopper.record.complain(f"what was put into the cart is not in the order: {', '.join(orders)}")
    if journey.habit is Habit.FICKLE:
        await asyncio.sleep(journey.hesitates)
        await _all(shopper.cancel(order) for order in orders.values())
        return "cancelled by the shopper"
    settled = await asyncio.gather(*(shopper.settled(order) for order in orders.values()))
    shopper.record.settled(journey.card, time.monotonic() - began)
    if journey.habit is Habit.FORGETFUL:
        await asyncio.sleep(journey.hesitates)
        again = await shopper.place(journey.card, request_ids[0])
        if again["order_id"] not in orders:
            shopper.record.complain(f"a repeated request gave another order: {again['order_id']}")
    if journey.habit is Habit.REGRETS and settled[0]["status"] == "confirmed":
        await asyncio.sleep(journey.hesitates)
        await shopper.cancel(settled[0])
        return "cancelled by the shopper"
    return " and ".join(sorted({order["status"] for order in settled}))


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Do several things at once; a refusal is raised only if all fail: one tab may empty another's cart."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    good = [result for result in results if not isinstance(result, BaseException)]
    for result in results:
        if isinstance(result, BaseException) and (not good or not isinstance(result, ApiError)):
            raise result
    return good


def _holds(order: Order, item: Item, quantity: int) -> bool:
    return any(
        line["variant_id"] == item.variant_id and line["quantity"] >= quantity for line in order["items"]
    )
