"""Puts the demo catalogue into a running shop, through the REST API, as staff would.

Every step can be repeated: what is there already is left alone, and a delivery counts once however often it
is announced. So a load that was cut off is completed by the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from stoa_rest import Product, UserAddress
from stoa_stack.demo_catalogue.products import DemoProduct, demo_products
from stoa_stack.rest import ApiError, Client

T = TypeVar("T")

_AT_ONCE = 8
# A new variant is known to inventory as soon as it has consumed the event of its product.
_KNOWN_WITHIN = 60.0  # seconds
_ADDRESSES: tuple[UserAddress, ...] = (
    {
        "kind": "KIND_SHIPPING",
        "recipient": "Robin Shopper",
        "line1": "14 Harbour Street",
        "line2": "2nd floor",
        "city": "Portland",
        "region": "ME",
        "postal_code": "04101",
        "country": "US",
    },
    {
        "kind": "KIND_BILLING",
        "recipient": "Robin Shopper",
        "line1": "P.O. Box 1180",
        "city": "Portland",
        "region": "ME",
        "postal_code": "04101",
        "country": "US",
    },
)


@dataclass(frozen=True)
class Summary:
    """What a load did."""

    products: int
    created: int
    variants: int
    seconds: float

    def __str__(self) -> str:
        found = self.products - self.created
        return (
            f"{self.created} products added, {found} were there; stock for {self.variants} variants; "
            f"{self.seconds:.1f} s"
        )


async def load(
    edge_url: str,
    staff_email: str,
    staff_password: str,
    customer_email: str,
    customer_password: str,
    currency: str,
) -> Summary:
    """Load all products with their stock, priced in `currency`, and the demo customer with an address.

    Raises ApiError if the shop won't have it, httpx.TransportError if there is none at `edge_url`.
    """
    began = time.monotonic()
    limits = httpx.Limits(max_connections=_AT_ONCE)
    async with httpx.AsyncClient(base_url=edge_url, timeout=30, limits=limits) as http:
        anyone = Client(http)
        staff = await Client(http).sign_in(staff_email, staff_password)
        products = demo_products(currency)
        brands = sorted({product.body["brand"] for product in products})
        variant_ids = await _variant_ids(anyone, brands)
        missing = [product for product in products if not product.stock.keys() <= variant_ids.keys()]
        created = sum(await _each(lambda product: _create(staff, product, variant_ids), missing))
        if missing and not all(product.stock.keys() <= variant_ids.keys() for product in missing):
            variant_ids = await _variant_ids(anyone, brands)  # somebody else has created some meanwhile
        # A SKU can still be missing, if an older version of the catalogue offered other variants of it.
        deliveries = [
            (variant_ids[sku], sku, count)
            for product in products
            for sku, count in product.stock.items()
            if sku in variant_ids
        ]
        await _each(lambda delivery: _deliver(staff, *delivery), deliveries)
        await _ensure_customer(Client(http), customer_email, customer_password)
    return Summary(len(products), created, len(deliveries), time.monotonic() - began)


async def _variant_ids(anyone: Client, brands: Iterable[str]) -> dict[str, str]:
    """Return the ids of all variants of these brands by their SKU: the shop may have a million others."""
    found: dict[str, str] = {}

    async def look(brand: str) -> None:
        token = ""
        while True:
            page = await anyone.list_products(brand=brand, page_size=100, page_token=token)
            found.update(_skus(page["products"]))
            if not (token := page["next_page_token"]):
                return

    await _each(look, brands)
    return found


def _skus(products: Iterable[Product]) -> dict[str, str]:
    return {variant["sku"]: variant["variant_id"] for product in products for variant in product["variants"]}


async def _create(staff: Client, product: DemoProduct, variant_ids: dict[str, str]) -> bool:
    """Create a product and note the ids of its variants; False if it is there already."""
    try:
        made = await staff.create_product(**product.body)
    except ApiError as error:
        if error.status != 409:
            raise
        return False
    variant_ids |= _skus([made])
    return True


async def _deliver(staff: Client, variant_id: str, sku: str, count: int) -> None:
    """Announce the first delivery of a variant, unless an earlier load did."""
    deadline = time.monotonic() + _KNOWN_WITHIN
    while True:
        try:
            await staff.adjust_inventory(
                variant_id, delta=count, reason="first delivery", request_id=f"demo-catalogue-{sku}"
            )
        except ApiError as error:
            if error.reason == "REQUEST_REUSED":  # an older version of the catalogue delivered another number
                return
            if error.status != 404 or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)
        else:
            return


async def _ensure_customer(customer: Client, email: str, password: str) -> None:
    try:
        await customer.create_user(email=email, password=password, first_name="Robin", last_name="Shopper")
    except ApiError as error:
        if error.status != 409:
            raise
    await customer.sign_in(email, password)
    if not (await customer.list_addresses(customer.user_id))["addresses"]:
        for address in _ADDRESSES:
            await customer.create_address(customer.user_id, **address)


async def _each(work: Callable[[Any], Awaitable[T]], items: Iterable[Any]) -> list[T]:
    """Do the work for every item, a few at once; the first failure stops the rest."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Any) -> T:
        async with slots:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
