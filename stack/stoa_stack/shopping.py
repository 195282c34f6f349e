"""What programs that act as staff or as shoppers have in common: accounts, things to buy, orders."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar
from uuid import uuid4

import httpx

from stoa_rest import Address, Cart, Money, Operations, Order, Product
from stoa_stack.instance import DEFAULT_CURRENCY, Instance
from stoa_stack.rest import Client

AnyClient = TypeVar("AnyClient", bound=Client)

ADDRESS: Address = {
    "recipient": "Robin Shopper",
    "line1": "14 Harbour Street",
    "city": "Portland",
    "region": "ME",
    "postal_code": "04101",
    "country": "US",
}
_SLOWEST_LOOK = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class Item:
    """Something to buy: a variant of a product."""

    product_id: str
    variant_id: str


class NotSettled(Exception):
    """An order is pending for longer than anybody waits."""


def access(at: Instance) -> dict[str, Any]:
    """Who may sign in to an instance, and where. Raises FileNotFoundError if it never ran."""
    found: dict[str, Any] = json.loads((at.state / "access.json").read_text())
    return found


async def staff(at: Instance, http: httpx.AsyncClient) -> Client:
    """The staff of an instance, signed in."""
    return await Client(http).sign_in(**access(at)["staff"])


async def open_account(client: AnyClient, name: str = "shopper") -> AnyClient:
    """Give a client an account of its own, and sign it in. Raises ApiError."""
    email, password = f"{name}-{uuid4().hex}@stoa.example", uuid4().hex
    await client.create_user(email=email, password=password, first_name="Robin", last_name="Shopper")
    return await client.sign_in(email, password)


def money(amount: Decimal | str, currency: str) -> Money:
    """An amount as `google.type.Money` in JSON."""
    cents = int(Decimal(amount) * 100)
    return {"currency_code": currency, "units": str(cents // 100), "nanos": cents % 100 * 10_000_000}


def amount(money: Money) -> Decimal:
    """What a `google.type.Money` in JSON is worth."""
    return Decimal(money["units"]) + Decimal(money["nanos"]) / 10**9


def new_product(
    name: str = "Reading lamp",
    *,
    price: Decimal | str = "20",
    variants: int = 1,
    currency: str = DEFAULT_CURRENCY,
) -> Product:
    """A product that no shop has yet, since its SKUs are new."""
    sku = f"{name.split()[-1].upper()}-{uuid4().hex[:12]}"
    return {
        "name": name,
        "description": "Warm light for long evenings.",
        "category": "Lighting",
        "subcategory": "Lamps",
        "brand": "Lumen",
        "tags": ["lamp"],
        "variants": [
            {
                "sku": f"{sku}-{number}",
                "attributes": {"colour": f"shade {number}"},
                "price": money(price, currency),
            }
            for number in range(variants)
        ],
    }


async def put_on_sale(staff: Client, product: Product, stock: int) -> list[Item]:
    """Create a product with so many of each variant in stock; returns what can be bought. Raises ApiError."""
    made = await staff.create_product(**product)
    items = [Item(made["product_id"], variant["variant_id"]) for variant in made["variants"]]
    for item in items if stock else ():
        await deliver(staff, item.variant_id, stock)
    return items


async def deliver(staff: Client, variant_id: str, count: int) -> None:
    """Add to the stock of a variant, or take from it if `count` is below zero. Raises ApiError."""
    await staff.adjust_inventory(variant_id, delta=count, reason="delivery", request_id=str(uuid4()))


async def put_into_cart(client: Operations, user_id: str, item: Item, quantity: int = 1) -> Cart:
    """Put so many of something into a user's cart."""
    return await client.add_cart_item(
        user_id, product_id=item.product_id, variant_id=item.variant_id, quantity=quantity
    )


async def settled(
    client: Operations, order: Order, *, within: float, every: float, slower: float = 1.0
) -> Order:
    """Look at an order until it is no longer pending, every so many seconds, each time `slower`.

    Raises NotSettled.
    """
    began = time.monotonic()
    while order["status"] == "pending":
        if time.monotonic() - began > within:
            raise NotSettled(f"order {order['order_id']} stays pending")
        await asyncio.sleep(every)
        every = min(every * slower, max(every, _SLOWEST_LOOK))
        order = await client.get_order(order["order_id"])
    return order
