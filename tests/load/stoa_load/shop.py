"""The people and things of a bench: shoppers with carts, products with stock, and a look at the orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import asyncpg
import httpx

from stoa_load.load import Http
from stoa_rest import Order, Product
from stoa_stack import shopping
from stoa_stack.deliveries import deliver_to
from stoa_stack.instance import Instance
from stoa_stack.rest import ApiError, Client
from stoa_stack.servers import postgres
from stoa_stack.shopping import ADDRESS, Item, new_product, open_account, put_on_sale

_AT_ONCE = 4
_PLENTY = 1_000_000
_LOOK_EVERY = 0.2  # seconds, from the moment the order was placed
_SETTLED_WITHIN = 60.0
_REVIEW = "It stands where it should and does what it is for. " * 6


@dataclass
class Shopper:
    """Somebody who is signed in and has one thing at a time to do; `http` is what is measured."""

    http: Http
    client: Client
    address_id: str

    @property
    def user_id(self) -> str:
        """Who it is."""
        return self.client.user_id

    async def add(self, item: Item) -> None:
        """Put one into the cart."""
        await shopping.put_into_cart(self.http, self.user_id, item)

    async def place(self, card: str = "tok_visa") -> Order:
        """Order what is in the cart."""
        return await self.http.place_order(
            request_id=str(uuid4()), address_id=self.address_id, payment_token=card
        )

    async def settled(self, order: Order) -> Order:
        """Wait until an order is settled. Raises NotSettled if it takes too long."""
        return await shopping.settled(self.http, order, within=_SETTLED_WITHIN, every=_LOOK_EVERY)

    async def buy(self, item: Item) -> Order:
        """Put one into the cart, order it and wait until the order is settled."""
        await self.add(item)
        return await self.settled(await self.place())

    async def sign_in_again(self) -> None:
        """Get a new token."""
        await self.client.renew()
        self.http.sign_in(self.client.access_token)


@dataclass
class Shop:
    """What scenarios work with. Products that it made are taken from the catalogue at the end."""

    at: Instance
    http: httpx.AsyncClient
    staff: Client
    orders: asyncpg.Pool
    _shoppers: list[Shopper] = field(default_factory=list)
    _products: list[str] = field(default_factory=list)
    _plenty: list[Item] = field(default_factory=list)

    async def shoppers(self, count: int) -> list[Shopper]:
        """So many shoppers; those of earlier scenarios come again."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def join() -> Shopper:
            async with slots:
                return await self._join()

        missing = max(0, count - len(self._shoppers))
        self._shoppers += await asyncio.gather(*(join() for _ in range(missing)))
        return self._shoppers[:count]

    async def items(self, count: int) -> list[Item]:
        """So many things to buy of which there are plenty."""
        while len(self._plenty) < count:
            self._plenty.append(await self.item(_PLENTY))
        return self._plenty[:count]

    async def item(self, stock: int) -> Item:
        """A new product's only variant, with so many in stock."""
        (item,) = await put_on_sale(self.staff, new_product("Bench lamp", currency=self.at.currency), stock)
        self._products.append(item.product_id)
        return item

    async def reviewed(self, count: int) -> str:
        """A new product that so many shoppers have received and reviewed."""
        item = await self.item(0)
        reviewers = await self.shoppers(count)
        await deliver_to(self.at, [reviewer.user_id for reviewer in reviewers], item)
        for number, reviewer in enumerate(reviewers):
            await self._review(reviewer.client, item.product_id, 1 + number % 5)
        return item.product_id

    async def products(self, count: int) -> list[Product]:
        """Products of the demo catalogue."""
        return (await self.staff.list_products(page_size=count))["products"]

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

    async def outcomes(self, item: Item) -> dict[str, int]:
        """How many orders of something have each status."""
        rows = await self.orders.fetch(
            """
            SELECT o.status, count(*) AS orders FROM orders o JOIN order_items i USING (order_id)
            WHERE i.variant_id = $1::uuid GROUP BY o.status
            """,
            item.variant_id,
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
            await shopper.sign_in_again()

    async def clean_up(self) -> None:
        """Take the products out of the catalogue."""
        for product_id in self._products:
            await self.staff.delete_product(product_id)

    async def _review(self, reviewer: Client, product_id: str, rating: int) -> None:
        """Review a product, as soon as it is known that it was delivered. Raises ApiError if it never is."""
        for pause in (*[_LOOK_EVERY] * int(_SETTLED_WITHIN / _LOOK_EVERY), 0.0):
            try:
                await reviewer.create_review(product_id, rating=rating, title="A lamp", review=_REVIEW)
            except ApiError as error:
                if error.reason != "NOT_A_BUYER" or not pause:
                    raise
                await asyncio.sleep(pause)
            else:
                return

    async def _join(self) -> Shopper:
        client = await open_account(Client(self.http), "bench")
        stored = await client.create_address(client.user_id, kind="KIND_SHIPPING", **ADDRESS)
        return Shopper(Http(self.at.edge_url, client.access_token), client, stored["address_id"])


@asynccontextmanager
async def shop(at: Instance) -> AsyncIterator[Shop]:
    """The shop of a running instance."""
    async with (
        httpx.AsyncClient(base_url=at.edge_url, timeout=30) as http,
        asyncpg.create_pool(postgres.superuser_url(at, "order"), min_size=1, max_size=2) as orders,
    ):
        shop = Shop(at, http, await shopping.staff(at, http), orders)
        try:
            yield shop
        finally:
            await shop.clean_up()
