"""A shopper, and staff, as a browser would be them: REST through the edge and nothing else."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

import httpx

from stoa_chassis import testing
from stoa_rest import Cart, Order, PlaceOrderRequest
from stoa_stack import shopping
from stoa_stack.carriers import Carriers
from stoa_stack.mail import Mail, Mailbox, Wanted
from stoa_stack.rest import ApiError, Client
from stoa_stack.shopping import ADDRESS, Item, new_product, open_account, put_on_sale

T = TypeVar("T")


class Customer(Client):
    """Somebody at the edge, signed in or not, who tries once: a test wants to see every refusal."""

    def __init__(self, http: httpx.AsyncClient, **headers: str) -> None:
        super().__init__(http, tries=1, headers=headers)

    async def add(self, item: Item, quantity: int = 1) -> Cart:
        """Put something into the own cart."""
        return await shopping.put_into_cart(self, self.user_id, item, quantity)

    async def order(self, token: str = "tok_visa", request_id: str = "") -> Order:
        """Order what is in the cart."""
        return await self.place_order(**order_body(token, request_id))

    async def buy(self, item: Item, quantity: int = 1, token: str = "tok_visa") -> Order:
        """Order something, and wait until that is settled."""
        await self.add(item, quantity)
        return await self.settled(await self.order(token))

    async def settled(self, order: Order, within: float = 60) -> Order:
        """Wait until an order is no longer pending, and return it."""

        async def look() -> Order | None:
            found = await self.get_order(order["order_id"])
            return found if found["status"] != "pending" else None

        return await eventually(look, within)


@dataclass
class Shop:
    """The shop under test."""

    http: httpx.AsyncClient
    staff: Customer

    def nobody(self) -> Customer:
        """Somebody who is not signed in."""
        return Customer(self.http)

    async def shopper(self) -> Customer:
        """A new customer, signed in."""
        return await open_account(Customer(self.http))

    async def guest(self) -> Customer:
        """Somebody without an account."""
        guest = self.nobody()
        guest.use(await guest.create_guest())
        return guest

    async def worker(self, role: str) -> Customer:
        """A new member of staff with a role, signed in."""
        return await self.hire(await self.shopper(), role)

    async def hire(self, customer: Customer, role: str) -> Customer:
        """Make a customer staff with a role, and sign her in as that."""
        body = {"roles": [role], "reason": "hired for a test"}
        answer = await self.staff.send("PUT", f"/api/v1/users/{customer.user_id}/roles", json=body)
        assert answer.status_code == 200, answer.text
        await customer.renew()
        return customer

    async def item(self, *, price: str = "20", stock: int = 100) -> Item:
        """The only variant of a new product, with so many in stock."""
        (item,) = await put_on_sale(self.staff, new_product(price=price), stock)
        return item

    async def stock(self, item: Item) -> tuple[int, int]:
        """How many of something there are, and how many of them are promised."""
        found = await self.staff.get_inventory(item.variant_id)
        return found["stock_count"], found["reserved_count"]

    async def has(self, item: Item, stock: int, reserved: int) -> bool:
        """Look whether there are so many of something, and so many of them promised."""
        return await self.stock(item) == (stock, reserved)


async def refusal(caller: Client, method: str, target: str, body: Any = None) -> ApiError:
    """Send what must be refused, whether or not the API has such a thing, and return the refusal."""
    response = await caller.send(method, target, json=body)
    assert not response.is_success, response.text
    return ApiError(response)


def order_body(token: str = "tok_visa", request_id: str = "") -> PlaceOrderRequest:
    """The body of an order of whatever is in the cart."""
    return {
        "request_id": request_id or str(uuid4()),
        "shipping_address": ADDRESS,
        "payment_token": token,
    }


async def until(reader: Customer, order: Order, done: Callable[[Order], object]) -> Order:
    """Wait until an order is as it should be, and return it."""

    async def look() -> Order | None:
        found = await reader.get_order(order["order_id"])
        return found if done(found) else None

    return await eventually(look)


async def packed(buyer: Customer, item: Item, quantity: int = 1) -> Order:
    """Buy something, and wait until it has its parcel."""
    order = await buyer.buy(item, quantity)
    return await until(buyer, order, lambda found: found.get("shipment"))


async def carried(carriers: Carriers, buyer: Customer, order: Order, scans: int, status: str) -> Order:
    """Let the carrier scan a parcel so often, once it knows of it, until its order stands there."""
    await eventually(lambda: carriers.advance(order["shipment"]["tracking_id"], scans))
    return await until(buyer, order, lambda found: found["status"] == status)


async def mail_about(mailbox: Mailbox, to: str, subject: str) -> Mail:
    """Wait for a mail to somebody about something, and return the newest."""
    found = await asyncio.to_thread(mailbox.wait, Wanted(to, subject), 30)
    assert found is not None, f"no mail about {subject}"
    return found


async def token_in_mail(mailbox: Mailbox, to: str, subject: str) -> str:
    """The token of the link in the newest mail to somebody about something."""
    text: str = (await mail_about(mailbox, to, subject))["text"]
    (token,) = set[str](re.findall(r"token=([\w-]{43})", text))
    return token


async def eventually(look: Callable[[], Awaitable[T | None]], within: float = 30) -> T:
    """Wait as a shopper does: whoever is refused, or reaches nobody, tries again."""
    found: T = await testing.eventually(look, within, despite=(ApiError, httpx.TransportError))
    return found
