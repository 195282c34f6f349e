"""Shoppers who buy without a pause while something is done to the shop, and a count of what they met.

A shopper is a client as a good one should be: it sends again what was not answered, or answered with "try
again", an order with the same `request_id`. Each attempt is counted, so that what a retry mends is seen.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from stoa_cluster.installation import Installation
from stoa_cluster.stages import Figures, prove
from stoa_rest import Operation
from stoa_stack import shopping
from stoa_stack.percentile import percentile
from stoa_stack.rest import Answer, ApiError, Client
from stoa_stack.shopping import (
    ADDRESS,
    Item,
    NotSettled,
    new_product,
    open_account,
    put_into_cart,
    put_on_sale,
)

_SETTLED_WITHIN = 60.0  # seconds
_LOOK_EVERY = 0.3
_PRODUCTS, _STOCK = 4, 100_000
_FAILED = 500  # from this status on the shop has failed; what is below says no to what can't be
_MAY_FAIL = 0.001  # share of the requests


@dataclass
class Tally:
    """What the shoppers met. `lost` are orders that were not confirmed, and why."""

    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    confirmed: int = 0
    lost: list[str] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    settled: list[float] = field(default_factory=list)

    def failed(self, kind: str, example: str) -> None:
        """Note a request that failed."""
        self.failures[kind] += 1
        if len(self.examples) < 20:
            self.examples.append(f"{time.strftime('%H:%M:%S')} {example}")

    @property
    def failed_share(self) -> float:
        """Which part of the requests failed."""
        return self.failures.total() / self.requests if self.requests else 0.0

    def write(self, figures: Figures) -> None:
        """Write the figures down."""
        figures |= {
            "requests": self.requests,
            "failed requests": self.failures.total(),
            "failed of them, %": round(100 * self.failed_share, 3),
            "orders confirmed": self.confirmed,
            "orders lost": len(self.lost),
            "request, p50 ms": round(percentile(self.milliseconds, 50)),
            "request, p99 ms": round(percentile(self.milliseconds, 99)),
            "ordered to confirmed, p50 s": round(percentile(self.settled, 50), 2),
            "ordered to confirmed, p99 s": round(percentile(self.settled, 99), 2),
        }
        if self.failures:
            figures["kinds of failures"] = dict(self.failures)
            figures["examples"] = self.examples
        if self.lost:
            figures["lost"] = self.lost[:20]

    def judge(self, may_fail: float = _MAY_FAIL) -> None:
        """Raise NotProven if an order was lost, if too many requests failed, or if nobody bought anything."""
        prove(not self.lost, f"{len(self.lost)} orders were lost, such as: {'; '.join(self.lost[:3])}")
        prove(self.confirmed, "nobody has bought anything")
        share = f"{self.failures.total()} of {self.requests} requests failed: {dict(self.failures)}"
        prove(self.failed_share <= may_fail, f"{share}; {'; '.join(self.examples[:3])}")


class CountingClient(Client):
    """A client whose attempts are counted."""

    def __init__(self, http: httpx.AsyncClient, tally: Tally) -> None:
        super().__init__(http)
        self._tally = tally

    async def attempt(
        self, operation: Operation, target: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Send a request once, and count what becomes of it."""
        self._tally.requests += 1
        began = time.perf_counter()
        request = f"{operation.method} {operation.path}"
        try:
            return await super().attempt(operation, target, body)
        except ApiError as error:
            if error.status >= _FAILED:
                self._tally.failed(f"{error.status} {request}", str(error))
            raise
        except httpx.TransportError as error:
            self._tally.failed(f"{type(error).__name__} {request}", repr(error))
            raise
        finally:
            self._tally.milliseconds.append((time.perf_counter() - began) * 1000)


@asynccontextmanager
async def traffic(shop: Installation, shoppers: int = 4) -> AsyncIterator[Tally]:
    """Have so many shoppers buy while the block lasts; at its end each finishes the order that it is at."""
    tally = Tally()
    limits = httpx.Limits(max_connections=4 * shoppers, max_keepalive_connections=4 * shoppers)
    async with shop.http(limits=limits) as http:
        staff = await shop.staff(http)
        items = [(await put_on_sale(staff, new_product("Traffic lamp"), _STOCK))[0] for _ in range(_PRODUCTS)]
        clients = [await open_account(CountingClient(http, tally), "traffic") for _ in range(shoppers)]
        tally.requests = 0
        tally.milliseconds.clear()  # accounts are opened before anything is done
        ended = asyncio.Event()
        buying = [asyncio.create_task(_buy_on(client, tally, items, ended)) for client in clients]
        try:
            yield tally
        finally:
            ended.set()
            await asyncio.gather(*buying)


async def buy_once(shop: Installation) -> None:
    """Have one shopper buy one thing. Raises NotProven if that does not come to a good end."""
    tally = Tally()
    async with shop.http() as http:
        (item,) = await put_on_sale(await shop.staff(http), new_product("First lamp"), 10)
        await _buy(await open_account(CountingClient(http, tally), "first"), tally, item)
    prove(tally.confirmed == 1, "; ".join(tally.lost))


async def _buy_on(client: CountingClient, tally: Tally, items: Sequence[Item], ended: asyncio.Event) -> None:
    while not ended.is_set():
        try:
            await _buy(client, tally, random.choice(items))
        except (ApiError, httpx.TransportError, NotSettled) as error:
            tally.lost.append(f"{time.strftime('%H:%M:%S')} {error!r}")
            await asyncio.sleep(1)


async def _buy(client: CountingClient, tally: Tally, item: Item) -> None:
    await client.list_products(category="Lighting", page_size=10)
    await client.get_product(item.product_id)
    await client.get_inventory(item.variant_id)
    await put_into_cart(client, client.user_id, item)
    await client.get_cart(client.user_id)
    began = time.monotonic()
    order = await client.place_order(
        request_id=str(uuid4()), shipping_address=ADDRESS, payment_token="tok_visa"
    )
    order = await shopping.settled(client, order, within=_SETTLED_WITHIN, every=_LOOK_EVERY)
    if order["status"] == "confirmed":
        tally.confirmed += 1
        tally.settled.append(time.monotonic() - began)
    else:
        why = order["status_history"][-1].get("reason", "")
        tally.lost.append(f"{order['order_id']} is {order['status']}: {why}")
