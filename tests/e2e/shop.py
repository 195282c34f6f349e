"""A shopper, and staff, as a browser would be them: REST through the edge and nothing else."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from stoa_chassis import testing

ADDRESS = {
    "recipient": "Ada Lovelace",
    "line1": "1 Engine Row",
    "city": "London",
    "postal_code": "N1 9GU",
    "country": "GB",
}
PASSWORD = "correct horse battery"


class Refused(AssertionError):
    """An answer other than the expected one; `status` is the google.rpc.Status of the body."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.code = response.status_code
        self.status: dict[str, Any] = response.json()
        super().__init__(f"{response.request.method} {response.request.url}: {self.code} {response.text}")

    @property
    def reason(self) -> str:
        """The reason of the ErrorInfo detail."""
        return next((detail["reason"] for detail in self.status["details"] if "reason" in detail), "")

    @property
    def fields(self) -> set[str]:
        """The fields that the BadRequest detail names."""
        return {
            violation["field"]
            for detail in self.status["details"]
            for violation in detail.get("field_violations", detail.get("fieldViolations", ()))
        }


@dataclass
class Client:
    """Somebody at the edge, signed in or not."""

    http: httpx.AsyncClient
    user_id: str = ""
    token: str = ""
    email: str = ""
    refresh_token: str = ""
    password: str = ""
    fresh_until: float = 0
    extra: Mapping[str, str] = field(default_factory=dict)

    async def send(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        """Send a request and return whatever comes back."""
        if self.password and time.monotonic() > self.fresh_until:
            await self.sign_in(self.email, self.password)
        headers = {**({"authorization": f"Bearer {self.token}"} if self.token else {}), **self.extra}
        headers |= options.pop("headers", {})
        if json is not None:
            options["json"] = json
        return await self.http.request(method, path, headers=headers, **options)

    async def call(self, method: str, path: str, json: Any = None, **options: Any) -> Any:
        """Send a request and return the body of its success. Raises Refused."""
        response = await self.send(method, path, json, **options)
        if response.status_code != 200:
            raise Refused(response)
        return response.json()

    async def get(self, path: str, **params: Any) -> Any:
        """GET."""
        return await self.call("GET", path, params=params or None)

    async def sign_in(self, email: str, password: str) -> "Client":
        """Exchange email and password for tokens, and again before they expire."""
        self.password = ""
        tokens = await self.call("POST", "/api/v1/auth/login", {"email": email, "password": password})
        self.email, self.token, self.refresh_token = email, tokens["access_token"], tokens["refresh_token"]
        self.password, self.fresh_until = password, time.monotonic() + tokens["expires_in"] / 2
        return self

    async def add(self, variant: Mapping[str, Any], quantity: int = 1) -> Any:
        """Put a variant into the own cart."""
        item = {
            "product_id": variant["product_id"],
            "variant_id": variant["variant_id"],
            "quantity": quantity,
        }
        return await self.call("POST", f"/api/v1/cart/{self.user_id}/items", item)

    async def order(self, token: str = "tok_visa", request_id: str = "", **changes: Any) -> Any:
        """Order what is in the cart."""
        return await self.call("POST", "/api/v1/orders", order_body(token, request_id, **changes))

    async def settled(self, order: Mapping[str, Any], within: float = 60) -> Any:
        """Wait until an order is no longer pending, and return it."""

        async def look() -> Any:
            found = await self.get(f"/api/v1/orders/{order['order_id']}")
            return found if found["status"] != "pending" else None

        return await eventually(look, within)


@dataclass
class Shop:
    """The shop under test."""

    http: httpx.AsyncClient
    staff: Client

    def nobody(self) -> Client:
        """Somebody who is not signed in."""
        return Client(self.http)

    async def shopper(self) -> Client:
        """A new customer, signed in."""
        email = f"{uuid4().hex}@example.com"
        client = Client(self.http)
        user = await client.call(
            "POST",
            "/api/v1/users",
            {"email": email, "password": PASSWORD, "first_name": "Ada", "last_name": "Lovelace"},
        )
        client.user_id = user["user_id"]
        return await client.sign_in(email, PASSWORD)

    async def product(self, *, price: str = "20", stock: int = 100, variants: int = 1) -> Any:
        """A new product of which each variant has so many in stock."""
        product = await self.staff.call("POST", "/api/v1/products", new_product(price, variants))
        for variant in product["variants"]:
            variant["product_id"] = product["product_id"]
            if stock:
                await self.adjust(variant, stock)
        return product

    async def variant(self, **options: Any) -> Any:
        """The only variant of a new product."""
        return (await self.product(**options))["variants"][0]

    async def adjust(self, variant: Mapping[str, Any], delta: int) -> Any:
        """Change the stock of a variant."""
        return await self.staff.call(
            "POST",
            f"/api/v1/inventory/{variant['variant_id']}/adjustments",
            {"delta": delta, "reason": "delivery", "request_id": str(uuid4())},
        )

    async def stock(self, variant: Mapping[str, Any]) -> tuple[int, int]:
        """How many of a variant there are, and how many of them are promised."""
        found = await self.staff.get(f"/api/v1/inventory/{variant['variant_id']}")
        return found["stock_count"], found["reserved_count"]


def order_body(token: str = "tok_visa", request_id: str = "", **changes: Any) -> dict[str, Any]:
    """The body of an order of whatever is in the cart."""
    return {
        "request_id": request_id or str(uuid4()),
        "shipping_address": ADDRESS,
        "payment_token": token,
        **changes,
    }


def new_product(price: str = "20", variants: int = 1, **changes: Any) -> dict[str, Any]:
    """The body of a product that nobody has yet."""
    units, _, cents = price.partition(".")
    return {
        "name": "Reading lamp",
        "description": "Warm light for long evenings.",
        "category": "Lighting",
        "subcategory": "Lamps",
        "brand": "Lumen",
        "tags": ["lamp"],
        "variants": [
            {
                "sku": f"LAMP-{uuid4().hex[:12]}",
                "attributes": {"colour": f"shade {number}"},
                "price": {
                    "currency_code": "USD",
                    "units": units,
                    "nanos": int(cents.ljust(2, "0") or 0) * 10_000_000,
                },
            }
            for number in range(variants)
        ],
        **changes,
    }


async def eventually(look: Callable[[], Awaitable[Any]], within: float = 30) -> Any:
    """Wait as a shopper does: whoever is refused, or reaches nobody, tries again."""
    return await testing.eventually(look, within, despite=(Refused, httpx.TransportError))
