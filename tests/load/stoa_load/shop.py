"""The people and things of a bench: shoppers with carts, products with stock, and a look at the orders."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from stoa_load.load import Http
from stoa_stack.edge_client import EdgeClient
from stoa_stack.instance import Instance
from stoa_stack.servers import postgres

_AT_ONCE = 4
_PLENTY = 1_000_000
_LOOK_EVERY = 0.2  # seconds, from the moment the order was placed
_SETTLED_WITHIN = 60.0
_ADDRESS = {
    "kind": "KIND_SHIPPING",
    "recipient": "Robin Shopper",
    "line1": "14 Harbour Street",
    "city": "Portland",
    "region": "ME",
    "postal_code": "04101",
    "country": "US",
}
Json = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """Something to buy."""

    product_id: str
    variant_id: str


class NotSettled(OSError):
    """An order is pending for longer than anybody waits."""


@dataclass
class Shopper:
    """Somebody who is signed in and has one thing at a time to do."""

    http: Http
    user_id: str
    address_id: str
    email: str
    password: str = field(repr=False)

    async def add(self, variant: Variant) -> None:
        """Put one into the cart."""
        item = {"product_id": variant.product_id, "variant_id": variant.variant_id, "quantity": 1}
        await self.http.call("POST", f"/api/v1/cart/{self.user_id}/items", item)

    async def place(self, card: str = "tok_visa") -> str:
        """Order what is in the cart; returns the order's id."""
        request = {"request_id": str(uuid4()), "address_id": self.address_id, "payment_token": card}
        order: Json = json.loads(await self.http.call("POST", "/api/v1/orders", request))
        return str(order["order_id"])

    async def settled(self, order_id: str) -> Json:
        """Wait until the order is settled. Raises NotSettled if it takes too long."""
        await asyncio.sleep(_LOOK_EVERY)
        for _ in range(int(_SETTLED_WITHIN / _LOOK_EVERY)):
            order: Json = json.loads(await self.http.call("GET", f"/api/v1/orders/{order_id}"))
            if order["status"] != "pending":
                return order
            await asyncio.sleep(_LOOK_EVERY)
        raise NotSettled(f"order {order_id} is pending")

    async def buy(self, variant: Variant) -> Json:
        """Put one into the cart, order it and wait until the order is settled."""
        await self.add(variant)
        return await self.settled(await self.place())


@dataclass
class Shop:
    """What scenarios work with. Products that it made are taken from the catalogue at the end."""

    at: Instance
    http: httpx.AsyncClient
    staff: EdgeClient
    orders: asyncpg.Pool
    _shoppers: list[Shopper] = field(default_factory=list)
    _products: list[str] = field(default_factory=list)
    _plenty: list[Variant] = field(default_factory=list)

    async def shoppers(self, count: int) -> list[Shopper]:
        """So many shoppers; those of earlier scenarios come again."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def join() -> Shopper:
            async with slots:
                return await self._join()

        missing = max(0, count - len(self._shoppers))
        self._shoppers += await asyncio.gather(*(join() for _ in range(missing)))
        return self._shoppers[:count]

    async def variants(self, count: int) -> list[Variant]:
        """So many variants of which there are plenty."""
        while len(self._plenty) < count:
            self._plenty.append(await self.variant(_PLENTY))
        return self._plenty[:count]

    async def variant(self, stock: int) -> Variant:
        """A new product's only variant, with so many in stock."""
        product = (await self.staff.call("POST", "/api/v1/products", _new_product())).body
        self._products.append(product["product_id"])
        variant = Variant(product["product_id"], product["variants"][0]["variant_id"])
        delivery = {"delta": stock, "reason": "delivery", "request_id": str(uuid4())}
        path = f"/api/v1/inventory/{variant.variant_id}"
        await _found(self.staff, path)
        await self.staff.call("POST", f"{path}/adjustments", delivery)
        return variant

    async def products(self, count: int) -> list[Json]:
        """Products of the demo catalogue."""
        found: list[Json] = (await self.staff.call("GET", "/api/v1/products", page_size=count)).body[
            "products"
        ]
        return found

    async def pending(self) -> int:
        """How many orders are not settled; asked of the database, which costs the services nothing."""
        return int(await self.orders.fetchval("SELECT count(*) FROM orders WHERE status = 'pending'"))

    async def settle_times(self, since: object) -> list[float]:
        """Milliseconds from placed to settled of the orders placed since then."""
        rows = await self.orders.fetch(
            """
            SELECT extract(epoch FROM min(h.at) - o.created_at)::float8 * 1000 AS ms
            FROM orders o JOIN order_status_history h ON h.order_id = o.order_id AND h.position = 2
            WHERE o.created_at >= $1 GROUP BY o.order_id, o.created_at
            """,
            since,
        )
        return [row["ms"] for row in rows]

    async def outcomes(self, variant: Variant) -> dict[str, int]:
        """How many orders of a variant have each status."""
        rows = await self.orders.fetch(
            """
            SELECT o.status, count(*) AS orders FROM orders o JOIN order_items i USING (order_id)
            WHERE i.variant_id = $1::uuid GROUP BY o.status
            """,
            variant.variant_id,
        )
        return {row["status"]: row["orders"] for row in rows}

    async def database_sizes(self) -> dict[str, float]:
        """How many megabytes each PostgreSQL database has, by name."""
        rows = await self.orders.fetch(
            """
            SELECT datname, pg_database_size(datname) / 1048576.0 AS size FROM pg_database
            WHERE NOT datistemplate AND datname <> 'postgres'
            """
        )
        return {row["datname"]: float(row["size"]) for row in rows}

    async def sign_in_again(self) -> None:
        """Give the shoppers new tokens."""
        for shopper in self._shoppers:
            client = await EdgeClient(self.http).sign_in(shopper.email, shopper.password)
            shopper.http.sign_in(client.access_token)

    async def clean_up(self) -> None:
        """Take the products out of the catalogue."""
        for product_id in self._products:
            await self.staff.call("DELETE", f"/api/v1/products/{product_id}")

    async def _join(self) -> Shopper:
        email, password = f"bench-{uuid4().hex}@stoa.example", uuid4().hex
        account = {"email": email, "password": password, "first_name": "Robin", "last_name": "Shopper"}
        await self.staff.call("POST", "/api/v1/users", account)
        client = await EdgeClient(self.http).sign_in(email, password)
        stored = await client.call("POST", f"/api/v1/users/{client.user_id}/addresses", _ADDRESS)
        return Shopper(
            Http(self.at.edge_url, client.access_token),
            client.user_id,
            stored.body["address_id"],
            email,
            password,
        )


@asynccontextmanager
async def shop(at: Instance) -> AsyncIterator[Shop]:
    """The shop of a running instance."""
    access = json.loads((at.state / "access.json").read_text())
    async with (
        httpx.AsyncClient(base_url=access["edge_url"], timeout=30) as http,
        asyncpg.create_pool(postgres.superuser_url(at, "order"), min_size=1, max_size=2) as orders,
    ):
        shop = Shop(at, http, await EdgeClient(http).sign_in(**access["staff"]), orders)
        try:
            yield shop
        finally:
            shop.staff = await EdgeClient(http).sign_in(**access["staff"])  # the first token may be too old
            await shop.clean_up()


async def _found(staff: EdgeClient, path: str) -> None:
    """Wait until the warehouse has heard of a new variant."""
    async with asyncio.timeout(_SETTLED_WITHIN):
        while True:
            answer = await staff.http.get(path)
            if answer.is_success:
                return
            await asyncio.sleep(0.1)


def _new_product() -> Json:
    name = f"Bench product {uuid4().hex[:8]}"
    return {
        "name": name,
        "description": "Bought by nobody but the load generator.",
        "category": "Office",
        "subcategory": "Notebooks",
        "brand": "Bench",
        "variants": [
            {
                "sku": name.replace(" ", "-").upper(),
                "attributes": {"size": "one"},
                "price": {"currency_code": "USD", "units": "20", "nanos": 0},
            }
        ],
    }
