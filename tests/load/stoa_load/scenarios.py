"""What is measured, as one table: read it at the end. To measure something else, add a line.

Most scenarios are a closed loop: so many shoppers, each doing the next thing when the last is done. `rising`,
`rush` and `overload` are plays of their own.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc

from stoa_load.baseline import METHOD, PATH, baseline
from stoa_load.cost import Cost, Idle, Meter
from stoa_load.load import Act, BadAnswer, Http, Outcome, closed_loop, open_loop
from stoa_load.relevance import AT, queries
from stoa_load.shop import Shop
from stoa_rest import GET_PRODUCT, LIST_PRODUCT_REVIEWS, LIST_PRODUCTS, LIST_USER_ORDERS, SEARCH, SUGGEST
from stoa_stack.percentile import percentile

_WARM_UP = 0.25  # of the time that is measured
_DRAIN = 2.0  # seconds after the last answer for what goes on behind it: events, webhooks
_RATES = (5, 10, 15, 20, 25, 30, 40, 50, 60, 80)  # orders a second
_PRESSURE = 1.5  # times the rate that was sustained: what comes after saturation
_RUSH_BUYERS, _RUSH_STOCK = 200, 50
_CROWD = 500
_SETTLED_WITHIN = 90.0  # seconds
_RELEVANT = 0.9  # NDCG@10: less is a failure


@dataclass(frozen=True)
class Bench:
    """What a scenario plays on, and with which meters, for so many seconds."""

    shop: Shop
    meter: Meter
    idle: Idle
    seconds: float


@dataclass
class Result:
    """What a scenario has shown. `settled` are milliseconds from placed to settled, of orders."""

    outcome: Outcome
    cost: Cost
    settled: list[float] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)


Play = Callable[[Bench], Awaitable[Result]]
# Prepares so many actors, each of whom does the thing that is measured, again and again.
Actors = Callable[[Bench, int], AbstractAsyncContextManager[list[Act]]]


@dataclass(frozen=True)
class Scenario:
    """A line of the table. A baseline is no part of the shop: others are measured against it."""

    name: str
    what: str
    play: Play
    baseline: bool = False


def loop(actors: Actors, at_once: int, *, drain: float = 0.0) -> Play:
    """Measure so many actors in a closed loop; `drain` is for what goes on after the answers."""

    async def play(bench: Bench) -> Result:
        async with actors(bench, at_once) as acts:
            await closed_loop(acts, bench.seconds * _WARM_UP)
            await asyncio.sleep(drain)
            since = datetime.now(UTC)
            before = await bench.meter.read()
            outcome = await closed_loop(acts, bench.seconds)
            await asyncio.sleep(drain)
            cost = Cost.between(before, await bench.meter.read(), bench.idle)
            settled = await bench.shop.settle_times(since) if drain else []
        return Result(outcome, cost.per(len(outcome.times)), settled)

    return play


# ------------------------------------------------------------------------------------------ actors of a loop


def getting(*paths: str) -> Actors:
    """Send GETs of these paths, in turn."""

    async def find(_: Bench) -> list[str]:
        return list(paths)

    return _getting(find)


def getting_products(count: int) -> Actors:
    """Send GETs of so many different products, in turn."""

    async def find(bench: Bench) -> list[str]:
        products = await bench.shop.products(count)
        return [GET_PRODUCT.target(product["product_id"]) for product in products]

    return _getting(find)


def getting_reviews(count: int) -> Actors:
    """Send GETs of the most helpful reviews of a product that has so many."""

    async def find(bench: Bench) -> list[str]:
        return [LIST_PRODUCT_REVIEWS.target(await bench.shop.reviewed(count))]

    return _getting(find)


def _getting(find: Callable[[Bench], Awaitable[list[str]]]) -> Actors:
    @asynccontextmanager
    async def actors(bench: Bench, count: int) -> AsyncIterator[list[Act]]:
        paths = await find(bench)
        async with connected(bench.shop.at.edge_url, count) as clients:
            yield [_reader(client, paths) for client in clients]

    return actors


def searching(*requests: Mapping[str, Any]) -> Actors:
    """Send searches, in turn."""
    return getting(*(SEARCH.target(**request) for request in requests))


def suggesting(*texts: str) -> Actors:
    """Ask for suggestions for what was typed, in turn."""
    return getting(*(SUGGEST.target(q=text) for text in texts))


@asynccontextmanager
async def empty_behind_edge(bench: Bench, count: int) -> AsyncIterator[list[Act]]:
    """Call the empty service through an edge."""
    async with (
        baseline(bench.shop.at, bench.meter) as at,
        connected(at.edge_url, count) as clients,
    ):
        yield [_reader(client, [PATH]) for client in clients]


@asynccontextmanager
async def empty_direct(bench: Bench, count: int) -> AsyncIterator[list[Act]]:
    """Call the empty service by gRPC, without an edge."""
    async with baseline(bench.shop.at, bench.meter) as at, at.channel() as channel:
        call: Any = channel.unary_unary(METHOD)

        async def act() -> None:
            try:
                await call(b"")
            except grpc.aio.AioRpcError as error:
                raise BadAnswer(0, str(error).encode()) from error

        yield [act] * count


@asynccontextmanager
async def adding_to_cart(bench: Bench, count: int) -> AsyncIterator[list[Act]]:
    """Put things into carts."""
    shoppers = await bench.shop.shoppers(count)
    items = await bench.shop.items(10)

    def act(number: int) -> Act:
        turn = itertools.cycle(items[number:] + items[:number])
        return lambda: shoppers[number].add(next(turn))

    yield [act(number) for number in range(count)]
    for shopper in shoppers:
        await shopper.http.clear_cart(shopper.user_id)


def buying(different: int) -> Actors:
    """Put a thing into the cart, order it and wait for the confirmation."""

    @asynccontextmanager
    async def actors(bench: Bench, count: int) -> AsyncIterator[list[Act]]:
        yield await _buyers(bench, count, different, wait=True)

    return actors


async def _buyers(bench: Bench, count: int, different: int, *, wait: bool) -> list[Act]:
    shoppers = await bench.shop.shoppers(count)
    items = await bench.shop.items(different)

    def act(number: int) -> Act:
        turn = itertools.cycle(items[number % different :] + items[: number % different])

        async def buy() -> None:
            await shoppers[number].add(next(turn))
            order = await shoppers[number].place()
            if wait and (await shoppers[number].settled(order))["status"] != "confirmed":
                raise BadAnswer(0, b"an order was not confirmed")

        return buy

    return [act(number) for number in range(count)]


@asynccontextmanager
async def connected(url: str, count: int) -> AsyncIterator[list[Http]]:
    """So many clients of the edge, closed when the block ends."""
    clients = [Http(url) for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


def _reader(client: Http, paths: list[str]) -> Act:
    requests = itertools.cycle([client.encode("GET", path) for path in paths])
    return lambda: client.send(next(requests))


# ---------------------------------------------------------------------------------------- plays of their own


async def rising(bench: Bench) -> Result:
    """Raise the rate of orders until the backlog grows; then press on, and see whether it recovers."""
    acts = await _buyers(bench, 60, 10, wait=False)
    steps = []
    sustained = 0.0
    for rate in _RATES:
        steps.append(step := await _orders_at(bench, acts, rate))
        if not step["sustained"]:
            break
        sustained = rate
    before = await bench.meter.read()
    pressed = await open_loop(acts, max(_RATES[0], sustained) * _PRESSURE, bench.seconds)
    drained_in = await _drained(bench)
    await asyncio.sleep(_DRAIN)
    cost = Cost.between(before, await bench.meter.read(), bench.idle)
    after = await _orders_at(bench, acts, max(_RATES[0], sustained) / 2)
    facts = {
        "sustained_per_second": sustained,
        "steps": steps,
        "pressed": {
            "offered_per_second": max(_RATES[0], sustained) * _PRESSURE,
            "accepted": len(pressed.times),
            "shed": pressed.shed,
            "unmet": pressed.unmet,
            "errors": pressed.errors,
            "settled_after_s": round(drained_in, 1),
        },
        "recovered": after,
    }
    return Result(pressed, cost.per(len(pressed.times)), facts=facts)


async def _orders_at(bench: Bench, acts: list[Act], rate: float) -> dict[str, Any]:
    """Place orders at a rate; sustained means that none was refused and what is pending does not pile up."""
    since = datetime.now(UTC)
    loop = asyncio.ensure_future(open_loop(acts, rate, bench.seconds))
    await asyncio.sleep(bench.seconds / 2)
    halfway = await bench.shop.pending()
    outcome = await loop
    pending = await bench.shop.pending()
    drained_in = await _drained(bench)
    settled = await bench.shop.settle_times(since)
    return {
        "per_second": rate,
        "placed": len(outcome.times),
        "place_p50_ms": round(outcome.percentile(50), 1),
        "settled_p50_ms": round(percentile(settled, 50), 1),
        "settled_p99_ms": round(percentile(settled, 99), 1),
        "pending_at_end": pending,
        "drained_after_s": round(drained_in, 1),
        "shed": outcome.shed,
        "unmet": outcome.unmet,
        "errors": outcome.errors,
        "sustained": not (outcome.errors or outcome.shed or outcome.unmet)
        # No more than arrives in a second may be waiting, or no more than halfway through.
        and pending <= max(rate, halfway)
        and len(outcome.times) / outcome.seconds > 0.9 * rate,
    }  # fmt: skip


async def relevance(bench: Bench) -> Result:
    """Judge what is found for each query of the set, each asked once."""
    judged = queries(bench.shop.at.currency)
    found: list[Sequence[str]] = []
    async with connected(bench.shop.at.edge_url, 1) as (client,):
        outcome = Outcome()
        before = await bench.meter.read()
        began = time.perf_counter()
        for query in judged:
            asked = time.perf_counter()
            answer = await client.call(SEARCH, SEARCH.target(q=query.text, page_size=AT))
            outcome.count(asked, None)
            found.append([hit["name"] for hit in answer["hits"]])
        outcome.seconds = time.perf_counter() - began
        cost = Cost.between(before, await bench.meter.read(), bench.idle)
    measured = {query.text: query.ndcg(names) for query, names in zip(judged, found, strict=True)}
    worst = sorted(measured.items(), key=lambda each: each[1])[:8]
    mean = sum(measured.values()) / len(measured)
    facts = {
        "queries": len(measured),
        "ndcg_at_10": round(mean, 4),
        "worst": {text: round(each, 2) for text, each in worst},
        "exact": mean >= _RELEVANT,
    }
    return Result(outcome, cost.per(len(measured)), facts=facts)


async def rush(bench: Bench) -> Result:
    """Let 200 buyers order the same thing at the same moment, of which there are 50."""
    item = await bench.shop.item(_RUSH_STOCK)
    shoppers = await bench.shop.shoppers(_RUSH_BUYERS)
    for shopper in shoppers:
        await shopper.add(item)
    since = datetime.now(UTC)
    outcome = Outcome()
    before = await bench.meter.read()
    began = time.perf_counter()

    async def order(index: int) -> None:
        placed = time.perf_counter()
        while True:
            try:
                await shoppers[index].place()
            except BadAnswer as error:
                if error.shed and time.perf_counter() - placed < _SETTLED_WITHIN:
                    outcome.shed += 1
                    await asyncio.sleep(0.5)
                    continue
                outcome.count(placed, error)
            except (OSError, TimeoutError) as error:
                outcome.count(placed, error)
            else:
                outcome.count(placed, None)
            return

    await asyncio.gather(*(order(index) for index in range(_RUSH_BUYERS)))
    await _drained(bench)
    outcome.seconds = time.perf_counter() - began
    await asyncio.sleep(_DRAIN)
    cost = Cost.between(before, await bench.meter.read(), bench.idle)
    outcomes = await bench.shop.outcomes(item)
    facts = {
        "buyers": _RUSH_BUYERS,
        "units": _RUSH_STOCK,
        "outcomes": outcomes,
        "last_settled_after_s": round(outcome.seconds, 1),
        "exact": outcomes.get("confirmed") == _RUSH_STOCK,
    }
    return Result(outcome, cost.per(_RUSH_BUYERS), await bench.shop.settle_times(since), facts)


async def overload(bench: Bench) -> Result:
    """Send far more requests at once than a service takes; then see whether it is as quick as before."""
    (shopper,) = await bench.shop.shoppers(1)
    path = LIST_USER_ORDERS.target(shopper.user_id)
    async with connected(bench.shop.at.edge_url, _CROWD) as clients:
        for client in clients:
            client.headers = shopper.http.headers
        acts = [_reader(client, [path]) for client in clients]
        before = await closed_loop(acts[:8], bench.seconds / 2)
        reading = await bench.meter.read()
        crowded = await closed_loop(acts, bench.seconds)
        cost = Cost.between(reading, await bench.meter.read(), bench.idle)
        after = await closed_loop(acts[:8], bench.seconds / 2)
    facts = {
        "p50_before_ms": round(before.percentile(50), 1),
        "p50_after_ms": round(after.percentile(50), 1),
        "answered_per_second_before": round(len(before.times) / before.seconds),
        "refused_after": after.shed + after.errors,
    }
    return Result(crowded, cost.per(len(crowded.times) + crowded.shed), facts=facts)


async def _drained(bench: Bench) -> float:
    """Wait until no order is pending; returns how long that took."""
    began = time.perf_counter()
    while await bench.shop.pending() and time.perf_counter() - began < _SETTLED_WITHIN:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    return time.perf_counter() - began


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("direct", "Envoy answers by itself (/healthz)", loop(getting("/healthz"), 8), baseline=True),
    Scenario("empty", "an empty RPC behind an edge", loop(empty_behind_edge, 8), baseline=True),
    Scenario("empty-direct", "the same without the edge", loop(empty_direct, 8), baseline=True),
    Scenario("product", "GET a product", loop(getting_products(50), 8)),
    Scenario("list", "GET a list of 20 products", loop(getting(LIST_PRODUCTS.target(page_size=20)), 8)),
    Scenario(
        "category",
        "GET 20 of a category with filters",
        loop(
            getting(
                LIST_PRODUCTS.target(category="Furniture", min_price="50", max_price="900", page_size=20)
            ),
            8,
        ),
    ),
    Scenario("reviews", "GET 20 of 40 reviews of a product", loop(getting_reviews(40), 8)),
    Scenario(
        "search",
        "search with facets: words, and filters",
        loop(
            searching(
                {"q": "desk lamp"},
                {"q": "wool"},
                {"q": "black", "category": "Lighting"},
                {"q": "chair", "max_price": "300", "in_stock": True},
                {"q": "notebook", "attribute": ["color:black"], "sort": "price_asc"},
            ),
            8,
        ),
    ),
    Scenario(
        "suggest", "suggestions while typing", loop(suggesting("d", "de", "des", "desk l", "sofa", "rain"), 8)
    ),
    Scenario("relevance", "what shoppers mean is found", relevance),
    Scenario("cart", "put something into the cart", loop(adding_to_cart, 8, drain=_DRAIN)),
    Scenario("order", "a whole order: cart, place, confirmed", loop(buying(10), 8, drain=_DRAIN)),
    Scenario("hot", "whole orders of one variant", loop(buying(1), 16, drain=_DRAIN)),
    Scenario("overload", f"{_CROWD} at once ask for their orders", overload),
    Scenario("rising", "orders at a rising rate, and beyond", rising),
    Scenario("rush", f"{_RUSH_BUYERS} buyers of one variant, {_RUSH_STOCK} units", rush),
)
