"""Steady-state probes: requests that say when a part answers again, and when the whole shop sells again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from statistics import median
from uuid import uuid4

import httpx

from stoa_chaos.record import Record
from stoa_chaos.shopper import GaveUp, Shopper
from stoa_rest import GET_PRODUCT, OPERATIONS, Operation
from stoa_services import SERVICES
from stoa_stack.rest import ApiError
from stoa_stack.shopping import Item, NotSettled, open_account, settled
from stoa_stack.stores import STORES

_TIMEOUT = 180.0  # seconds
_LOOK_EVERY = 0.2  # what a probe says is at most this late
_ORDERS_IN_PEACE = 5


class SteadyStateProbes:
    """A few shoppers whose requests are not counted among the others'."""

    def __init__(self, shoppers: list[Shopper], item: Item) -> None:
        self._free: asyncio.Queue[Shopper] = asyncio.Queue()
        for shopper in shoppers:
            self._free.put_nowait(shopper)
        self._item = item

    @classmethod
    async def prepared(
        cls, http: httpx.AsyncClient, record: Record, item: Item, count: int
    ) -> SteadyStateProbes:
        """Make accounts for them."""
        uncounted: Counter[str] = Counter()
        shoppers = [
            Shopper(http, record, uncounted, timeout=_TIMEOUT, pause=_LOOK_EVERY) for _ in range(count)
        ]
        return cls([await open_account(shopper, "probe") for shopper in shoppers], item)

    async def peace(self) -> float | None:
        """Return in how many seconds a new order is confirmed while nothing is broken; None: not in time.

        It is the median of a few: what a probe itself takes, and more than that a fault has cost.
        """
        seconds = []
        for _ in range(_ORDERS_IN_PEACE):
            _, sells = await self.recovery("edge")
            if sells is None:
                return None
            seconds.append(sells)
        return median(seconds)

    async def recovery(self, part: str) -> tuple[float | None, float | None]:
        """Return after how many seconds the part answers and a new order is confirmed; None: not in time."""
        shopper = await self._free.get()
        began = time.monotonic()
        try:
            try:
                operation, target = request_for(part, shopper.user_id, self._item)
                await shopper.call(operation, target)
                answers = time.monotonic() - began
            except (GaveUp, ApiError):
                return None, None
            return answers, (time.monotonic() - began if await self._sells(shopper, began) else None)
        finally:
            self._free.put_nowait(shopper)

    async def _sells(self, shopper: Shopper, began: float) -> bool:
        while time.monotonic() - began < _TIMEOUT:
            try:
                await shopper.add(self._item, 1)
                placed = await shopper.place("tok_visa", str(uuid4()))
                order = await settled(shopper, placed, within=_TIMEOUT, every=_LOOK_EVERY)
            except ApiError:
                await asyncio.sleep(_LOOK_EVERY)
            except (GaveUp, NotSettled):
                return False
            else:
                if order["status"] == "confirmed":
                    return True
        return False


def request_for(part: str, user_id: str, item: Item) -> tuple[Operation, str]:
    """A request that needs the part, or the nearest to it that the edge has: one that reads a product.

    A service is asked for something of its own, a store by way of a service that keeps its data there.
    """
    known = {"user_id": user_id, "product_id": item.product_id, "variant_id": item.variant_id}
    services = [
        service.name
        for service in SERVICES.values()
        if part == service.name or (service.store is not None and STORES[service.store].part == part)
    ]
    reading = [
        operation
        for operation in OPERATIONS
        if operation.method == "GET" and operation.tag.lower() in services
        if operation.parameters and {*operation.parameters} <= {*known}
    ]
    # The shortest path is that of the thing itself.
    operation = min(reading, key=lambda operation: len(operation.path), default=GET_PRODUCT)
    return operation, operation.target(*(known[name] for name in operation.parameters))
