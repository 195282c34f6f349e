"""Canaries: requests that say when a part is back, and when the whole shop sells again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from uuid import uuid4

import httpx

from stoa_chaos.errands import GaveUp, Shopper, Variant
from stoa_chaos.record import Record
from stoa_stack.edge_client import Refused

_PATIENCE = 180.0  # seconds
_LOOK_EVERY = 0.2


class Canaries:
    """A few shoppers whose requests are not counted among the others'."""

    def __init__(self, shoppers: list[Shopper], variant: Variant) -> None:
        self._free: asyncio.Queue[Shopper] = asyncio.Queue()
        for shopper in shoppers:
            self._free.put_nowait(shopper)
        self._variant = variant

    @classmethod
    async def hatched(cls, http: httpx.AsyncClient, record: Record, variant: Variant, count: int) -> Canaries:
        """Make accounts for them."""
        shoppers = [await Shopper.registered(http, record) for _ in range(count)]
        return cls([replace(shopper, pause=_LOOK_EVERY, untidy=True) for shopper in shoppers], variant)

    async def recovery(self, part: str) -> tuple[float | None, float | None]:
        """Return after how many seconds the part answers and a new order is confirmed; None: not in time."""
        shopper = await self._free.get()
        began = time.monotonic()
        try:
            try:
                await shopper.insist("GET", self._path(part, shopper), patience=_PATIENCE)
                answers = time.monotonic() - began
            except (GaveUp, Refused):
                return None, None
            return answers, (time.monotonic() - began if await self._sells(shopper, began) else None)
        finally:
            self._free.put_nowait(shopper)

    async def _sells(self, shopper: Shopper, began: float) -> bool:
        while time.monotonic() - began < _PATIENCE:
            try:
                await shopper.add(self._variant, 1)
                order = await shopper.settled(await shopper.place("tok_visa", str(uuid4())))
            except Refused:
                await asyncio.sleep(_LOOK_EVERY)  # its cart is being emptied after the order before
            except GaveUp:
                return False
            else:
                if order["status"] == "confirmed":
                    return True
        return False

    def _path(self, part: str, shopper: Shopper) -> str:
        """A request that needs the part, or the nearest to it that the edge has."""
        user_id = shopper.client.user_id
        return {
            "user": f"/api/v1/users/{user_id}",
            "cart": f"/api/v1/cart/{user_id}",
            "valkey": f"/api/v1/cart/{user_id}",
            "order": f"/api/v1/users/{user_id}/orders",
            "postgres": f"/api/v1/users/{user_id}/orders",
            "inventory": f"/api/v1/inventory/{self._variant.variant_id}",
        }.get(part, f"/api/v1/products/{self._variant.product_id}")
