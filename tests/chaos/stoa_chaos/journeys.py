"""What shoppers do: journeys drawn from a seed, and how one is played through the edge.

A shopper means it: what is answered "try again" or not at all is sent again, with the same request id. What
no trouble excuses is a complaint: two orders for one request, one cart that is sold twice or does not come
back when its order fails, an answer taken back, a wrong password that opens an account, an internal error.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import uuid4

from stoa_chaos import returns
from stoa_chaos.returns import SendsBack
from stoa_chaos.shopper import GaveUp, Shopper, quantities
from stoa_rest import Order
from stoa_stack.rest import ApiError
from stoa_stack.shopping import Item, NotSettled


class Habit(StrEnum):
    """How a shopper orders."""

    PLAIN = "orders once"
    HASTY = "sends the same request several times at once"
    FORGETFUL = "sends the same request again later"
    TABS = "orders the same cart from two tabs at once"
    PERSISTENT = "is declined and tries another card"
    FICKLE = "cancels at once"
    REGRETS = "cancels what was confirmed"


_HABITS = {
    Habit.PLAIN: 42,
    Habit.HASTY: 12,
    Habit.FORGETFUL: 10,
    Habit.TABS: 10,
    Habit.PERSISTENT: 8,
    Habit.FICKLE: 9,
    Habit.REGRETS: 9,
}
_CARDS = {
    "tok_visa": 70,
    "tok_mastercard": 12,
    "tok_declined": 8,
    "tok_insufficient_funds": 5,
    "tok_timeout": 5,
}
_GOOD_CARD, _REFUSED_CARD = "tok_visa", "tok_declined"
_SCARCE = 0.15  # share of the journeys that are after what there is little of
_MISTYPES = 0.12  # share of the journeys that begin with a wrong password
_REVIEWS = 0.25  # share of the journeys that end with a review
_SENDS_BACK = 0.15  # share of the journeys after which what was bought is sent back
_CART_TAKEN = ("CART_EMPTY", "CART_CHANGED")  # said to the tab that came second


@dataclass(frozen=True, slots=True)
class Journey:
    """One visit to the shop; `at` in seconds from the start of the load. `choice` picks what is bought.

    With a `rating` it ends with a review of that, of which the shopper has received one before. If it
    `sends_back`, what was bought goes back once it is delivered; other journeys have the account meanwhile.
    """

    at: float
    habit: Habit
    card: str
    quantity: int
    scarce: bool
    choice: int
    browses: int
    hesitates: float
    mistypes: bool
    rating: int = 0
    sends_back: SendsBack | None = None


def journeys(count: int, seconds: float, seed: int) -> list[Journey]:
    """Draw so many journeys, spread over so many seconds."""
    dice, opinions = random.Random(f"{seed} journeys"), random.Random(f"{seed} reviews")
    second_thoughts = random.Random(f"{seed} returns")
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
            mistypes=dice.random() < _MISTYPES,
            rating=opinions.randint(1, 5) if opinions.random() < _REVIEWS else 0,
            sends_back=returns.drawn(second_thoughts) if second_thoughts.random() < _SENDS_BACK else None,
        )
        for number in range(count)
    ]


async def play(journey: Journey, shopper: Shopper, items: Sequence[Item]) -> Order | None:
    """Play a journey to its end, and note what became of it; return the order if something was bought."""
    item = items[journey.choice % len(items)]
    record = shopper.record
    bought: Order | None = None
    try:
        outcome, bought = await _play(journey, shopper, item)
    except (GaveUp, NotSettled) as gave_up:
        outcome = "gave up"
        record.complain(f"a shopper gave up: {gave_up}")
    except ApiError as error:
        outcome = error.reason.lower().replace("_", " ") or f"refused with {error.status}"
        if not (error.reason == "OUT_OF_STOCK" and journey.scarce):
            record.complain(f"{error}: {journey} of {item.variant_id}")
    record.journey(journey.habit, outcome)
    return bought


async def _play(journey: Journey, shopper: Shopper, item: Item) -> tuple[str, Order | None]:
    if journey.mistypes:
        await shopper.mistype_password()
    for number in range(journey.browses):
        if number == 0:
            await shopper.list_products(page_size=20)
        else:
            await shopper.get_product(item.product_id)
    await shopper.clear_cart(shopper.user_id)  # of what a journey left that was refused
    await shopper.add(item, journey.quantity)
    began = time.monotonic()
    card = _REFUSED_CARD if journey.habit is Habit.PERSISTENT else journey.card
    request_ids = [str(uuid4()) for _ in range(2 if journey.habit is Habit.TABS else 1)]
    copies = 3 if journey.habit is Habit.HASTY else 1
    orders = await _place(journey, shopper, item, card, request_ids * copies)
    if journey.habit is Habit.FICKLE:
        await asyncio.sleep(journey.hesitates)
        await asyncio.gather(*(shopper.cancel(order) for order in orders))
    settled = await asyncio.gather(*(shopper.settled(order) for order in orders))
    outcome = " and ".join(sorted({order["status"] for order in settled}))
    if journey.habit is Habit.FICKLE:
        outcome = "cancelled by the shopper"
    else:
        shopper.record.settled(card, time.monotonic() - began)
    if sum(order["status"] != "cancelled" for order in settled) > 1:
        shopper.record.complain(f"one cart was sold twice: {_ids(settled)}")
    if journey.habit is Habit.FORGETFUL:
        await asyncio.sleep(journey.hesitates)
        await _place_again(shopper, card, request_ids[0], settled[0])
    if journey.habit is Habit.REGRETS and settled[0]["status"] == "confirmed":
        await asyncio.sleep(journey.hesitates)
        await shopper.cancel(settled[0])
        outcome = "cancelled by the shopper"
    await _left_in_cart(shopper, settled)
    if journey.habit is Habit.PERSISTENT:
        await _place_again(shopper, card, request_ids[0], settled[0])
        [order] = await _place(journey, shopper, item, _GOOD_CARD, [str(uuid4())])
        settled = [await shopper.settled(order)]
        await _left_in_cart(shopper, settled)
        outcome = f"{outcome}, then {settled[0]['status']}"
    if journey.rating:
        await shopper.review(item.product_id, journey.rating)
    kept = [order for order in settled if not shopper.record.is_cancelled(order["order_id"])]
    return outcome, next((order for order in kept if order["status"] != "cancelled"), None)


async def _place(
    journey: Journey, shopper: Shopper, item: Item, card: str, request_ids: Sequence[str]
) -> list[Order]:
    """Order the cart, by several requests at once; return the orders that there are of it, at least one.

    A tab that comes second may be told so. Raises the refusal if nobody gets an order.
    """
    answers = await asyncio.gather(
        *(shopper.place(card, request_id) for request_id in request_ids), return_exceptions=True
    )
    shopper.record.asked()
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    orders = {answer["order_id"]: answer for answer in answers if not isinstance(answer, BaseException)}
    for refusal in refused:
        second = isinstance(refusal, ApiError) and refusal.status == 409 and refusal.reason in _CART_TAKEN
        if not orders or not second or journey.habit is not Habit.TABS:
            raise refusal
    if len(orders) > len(set(request_ids)):
        shopper.record.complain(f"one request gave several orders: {', '.join(orders)}")
    if not any(_holds(order, item, journey.quantity) for order in orders.values()):
        shopper.record.complain(f"what was put into the cart is not in the order: {', '.join(orders)}")
    return list(orders.values())


async def _place_again(shopper: Shopper, card: str, request_id: str, order: Order) -> None:
    """Send a request to order once more: it may give nothing but its order."""
    again = await shopper.place(card, request_id)
    if again["order_id"] != order["order_id"]:
        shopper.record.complain(f"a repeated request gave another order: {again['order_id']}")


async def _left_in_cart(shopper: Shopper, orders: Sequence[Order]) -> None:
    """Wait until the cart holds what was in an order that was never confirmed, once, and nothing else."""
    wanted: Counter[str] = Counter()
    for order in sorted(orders, key=lambda order: order["order_id"]):  # as they were placed
        statuses = {order["status"], *(change["status"] for change in order["status_history"])}
        comes_back = "cancelled" in statuses and "confirmed" not in statuses
        wanted = quantities(order) if comes_back else Counter()
        if "confirmed" in statuses and shopper.record.is_cancelled(order["order_id"]):
            for variant_id, quantity in quantities(order).items():
                shopper.may_come_back[variant_id].add(quantity)
    if not await shopper.cart_holds(wanted):
        shopper.record.complain(f"the cart does not hold {dict(wanted)} after the orders {_ids(orders)}")


def _ids(orders: Iterable[Order]) -> str:
    return ", ".join(order["order_id"] for order in orders)


def _holds(order: Order, item: Item, quantity: int) -> bool:
    return quantities(order)[item.variant_id] >= quantity
