"""`stoa demo`: a shopper buys, is declined and changes their mind, over REST, while you watch.

Read the scenes from top to bottom to learn the API: each call is there as a client would send it. The demo
checks all that it shows, so it is also the quickest answer to "does the shop work?".
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stoa_stack.edge_client import EdgeClient, Refused, with_query
from stoa_stack.instance import Instance

_SETTLED_WITHIN = 30.0  # seconds
_LOOK_EVERY = 0.1  # seconds
_SECRET = {"password", "payment_token", "access_token", "refresh_token"}
Json = dict[str, Any]


class NotAsItShould(Exception):
    """The shop answered something else than a shopper may expect."""


def command(at: Instance, console: Console) -> int:
    """Play all scenes; 0 if the shop did what it should."""
    try:
        access = json.loads((at.state / "access.json").read_text())
    except FileNotFoundError:
        console.print(Text(f"There is no shop in {at.state}: start one with `stoa up`.", style="red"))
        return 1
    stage = Stage(console)
    try:
        asyncio.run(_play(stage, access["edge_url"]))
    except (NotAsItShould, Refused) as failure:
        stage.summary()
        console.print(Text(f"Not as it should be: {failure}", style="bold red"), soft_wrap=True)
        return 1
    except httpx.TransportError as error:
        console.print(
            Text(f"Nobody answers at {access['edge_url']} ({error!r}): is `stoa up` ready?", style="red"),
            soft_wrap=True,
        )
        return 1
    stage.summary()
    console.print(Text("Everything went as it should.", style="bold green"))
    return 0


async def _play(stage: Stage, edge_url: str) -> None:
    async with httpx.AsyncClient(base_url=edge_url, timeout=30) as http:
        anyone = EdgeClient(http)

        stage.scene("Looking around, as nobody in particular")
        lamp, chair = await _browse(stage, anyone)

        stage.scene("Opening an account and signing in")
        shopper = await _open_account(stage, anyone)

        stage.scene("Filling the cart")
        await _fill_cart(stage, shopper, {lamp: 2, chair: 1})

        stage.scene("Ordering with a card that is good (tok_visa)")
        bought = await _buy(stage, shopper, lamp)

        stage.scene("Ordering with a card that is declined (tok_declined)")
        await _be_declined(stage, shopper, lamp)

        stage.scene("Changing one's mind: the confirmed order is cancelled and refunded")
        await _cancel(stage, shopper, bought, lamp)


# ------------------------------------------------------------------------------------------------ the scenes


async def _browse(stage: Stage, anyone: EdgeClient) -> tuple[Variant, Variant]:
    """Choose a lamp and a chair of which there are enough."""
    categories = (await stage.call(anyone, "GET", "/api/v1/categories"))["categories"]
    stage.say(", ".join(f"{c['name']} ({c['product_count']})" for c in categories))

    chosen = []
    for category, subcategory in (("Lighting", "Desk lamps"), ("Furniture", "Chairs")):
        products = await stage.call(
            anyone, "GET", "/api/v1/products", category=category, subcategory=subcategory, page_size=5
        )
        for found in products["products"]:
            stage.say(f"{_price(found['variants'][0]['price']):>12}  {found['name']} by {found['brand']}")
        chosen.append(await _in_stock(stage, anyone, products["products"]))

    product = await stage.call(anyone, "GET", f"/api/v1/products/{chosen[0].product_id}")
    stage.say(product["description"])
    for variant in product["variants"]:
        stage.say(f"{variant['sku']}  {_price(variant['price'])}  {_words(variant['attributes'])}")
    lamp, chair = chosen
    return lamp, chair


async def _in_stock(stage: Stage, anyone: EdgeClient, products: list[Json]) -> Variant:
    for product in products:
        for variant in product["variants"]:
            stock = await stage.call(anyone, "GET", f"/api/v1/inventory/{variant['variant_id']}")
            if stock.get("available", 0) >= 10:
                return Variant(product["product_id"], variant["variant_id"], product["name"])
    raise NotAsItShould(f"nothing of {products[0]['subcategory'] if products else 'a shelf'} is in stock")


async def _open_account(stage: Stage, anyone: EdgeClient) -> EdgeClient:
    email, password = f"shopper-{uuid4().hex[:12]}@stoa.example", uuid4().hex
    account = {"email": email, "password": password, "first_name": "Robin", "last_name": "Shopper"}
    user = await stage.call(anyone, "POST", "/api/v1/users", account)

    tokens = await stage.call(anyone, "POST", "/api/v1/auth/login", {"email": email, "password": password})
    stage.expect(tokens["token_type"] == "Bearer", "the login gives a bearer token")
    stage.say(f"The access token is good for {tokens['expires_in']} s, then it is refreshed.")
    # From here on each request carries the header `authorization: Bearer <access token>`.
    return EdgeClient(anyone.http, tokens["access_token"], user["user_id"])


async def _fill_cart(stage: Stage, shopper: EdgeClient, wanted: Mapping[Variant, int]) -> None:
    for variant, quantity in wanted.items():
        item = {
            "product_id": variant.product_id,
            "variant_id": variant.variant_id,
            "quantity": quantity,
        }
        await stage.call(shopper, "POST", f"/api/v1/cart/{shopper.user_id}/items", item)

    cart = await stage.call(shopper, "GET", f"/api/v1/cart/{shopper.user_id}")
    quantities = {item["variant_id"]: item["quantity"] for item in cart["items"]}
    stage.expect(
        quantities == {v.variant_id: n for v, n in wanted.items()}, "the cart holds what was put into it"
    )
    stage.say(f"{len(cart['items'])} lines, subtotal {_price(cart['subtotal'])}")


async def _buy(stage: Stage, shopper: EdgeClient, lamp: Variant) -> Json:
    address = {
        "kind": "KIND_SHIPPING",
        "recipient": "Robin Shopper",
        "line1": "14 Harbour Street",
        "city": "Portland",
        "region": "ME",
        "postal_code": "04101",
        "country": "US",
    }
    stored = await stage.call(shopper, "POST", f"/api/v1/users/{shopper.user_id}/addresses", address)

    before = await _stock(stage, shopper, lamp)
    request = {
        "request_id": str(uuid4()),
        "address_id": stored["address_id"],
        "shipping_method": "standard",
        "payment_token": "tok_visa",
    }
    placed = await stage.call(shopper, "POST", "/api/v1/orders", request)
    stage.say(
        f"items {_price(placed['subtotal'])} + shipping {_price(placed['shipping_amount'])}"
        f" + tax {_price(placed['tax_amount'])} = {_price(placed['total_amount'])}"
    )
    again = await stage.call(shopper, "POST", "/api/v1/orders", request)
    stage.expect(again["order_id"] == placed["order_id"], "the same request_id gives the same order")

    order = await stage.watch(
        shopper, placed, lambda order: order["status"] != "pending", "the order is settled"
    )
    stage.expect(order["status"] == "confirmed", "the order is confirmed")
    payment = order["payment"]
    stage.expect(payment["status"] == "succeeded", "the payment has succeeded")
    stage.say(f"paid with {payment['brand']} …{payment['last4']}")

    after = await _stock(stage, shopper, lamp)
    stage.expect(after["available"] == before["available"] - 2, "two lamps are promised to the order")
    cart_path = f"/api/v1/cart/{shopper.user_id}"
    await stage.until(shopper, cart_path, lambda cart: not cart.get("items"), "the cart is empty")
    return order


async def _be_declined(stage: Stage, shopper: EdgeClient, lamp: Variant) -> None:
    item = {"product_id": lamp.product_id, "variant_id": lamp.variant_id, "quantity": 3}
    await stage.call(shopper, "POST", f"/api/v1/cart/{shopper.user_id}/items", item)

    before = await _stock(stage, shopper, lamp)
    request = {
        "request_id": str(uuid4()),
        # Instead of the id of a stored address an order may carry one.
        "shipping_address": {
            "recipient": "Robin Shopper",
            "line1": "14 Harbour Street",
            "city": "Portland",
            "postal_code": "04101",
            "country": "US",
        },
        "payment_token": "tok_declined",
    }
    placed = await stage.call(shopper, "POST", "/api/v1/orders", request)
    order = await stage.watch(
        shopper, placed, lambda order: order["status"] != "pending", "the order is settled"
    )
    stage.expect(order["status"] == "cancelled", "the order is cancelled")
    stage.expect("declined" in order["status_history"][-1]["reason"], "the history says why")

    await _until_for_sale(stage, shopper, lamp, before["available"])


async def _cancel(stage: Stage, shopper: EdgeClient, order: Json, lamp: Variant) -> None:
    before = await _stock(stage, shopper, lamp)
    path = f"/api/v1/orders/{order['order_id']}/cancel"
    cancelled = await stage.call(shopper, "PUT", path, {"reason": "found my old lamp"})
    stage.expect(cancelled["status"] == "cancelled", "the order is cancelled at once")

    refunded = await stage.watch(
        shopper,
        cancelled,
        lambda order: order["payment"]["status"] == "refunded",
        "the payment is refunded",
    )
    payment = await stage.call(shopper, "GET", f"/api/v1/payments/{refunded['payment']['payment_id']}")
    stage.expect(payment["refunded_amount"] == payment["amount"], "all of the money is given back")
    stage.say(f"{_price(payment['refunded_amount'])} of {_price(payment['amount'])} given back")

    await _until_for_sale(stage, shopper, lamp, before["available"] + 2)


async def _until_for_sale(stage: Stage, caller: EdgeClient, variant: Variant, count: int) -> None:
    """Wait until inventory has heard of a cancelled order."""
    path = f"/api/v1/inventory/{variant.variant_id}"
    stock = await stage.until(
        caller, path, lambda stock: stock["available"] == count, f"{count} of them are for sale"
    )
    stage.say(_stock_words(stock))


async def _stock(stage: Stage, caller: EdgeClient, variant: Variant) -> Json:
    stock = await stage.call(caller, "GET", f"/api/v1/inventory/{variant.variant_id}")
    stage.say(_stock_words(stock))
    return stock


# ------------------------------------------------------------------------------------------------- the stage


@dataclass(frozen=True)
class Variant:
    """Something to buy."""

    product_id: str
    variant_id: str
    name: str


@dataclass
class Scene:
    """What a scene took."""

    title: str
    calls: int = 0
    milliseconds: float = 0
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0
    checks: int = 0
    last_request_id: str = ""


class Stage:
    """Shows what is sent and answered, checks it, and keeps the times."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._scenes: list[Scene] = []

    def scene(self, title: str) -> None:
        """Begin a scene."""
        self._scenes.append(Scene(title))
        self._console.print()
        self._console.rule(Text(f"{len(self._scenes)}  {title}", style="bold"), align="left")

    async def call(
        self, caller: EdgeClient, method: str, path: str, body: Json | None = None, **query: Any
    ) -> Json:
        """Send a request, show it with its answer, and return the answer's body. Raises Refused."""
        line = Text.assemble((f"{method:6}", "bold cyan"), (with_query(path, query), "cyan"))
        self._console.print(line, soft_wrap=True)
        if body:
            self._console.print(
                Text(f"       {json.dumps(_masked(body), ensure_ascii=False)}", style="dim"), soft_wrap=True
            )
        try:
            answer = await caller.call(method, path, body, **query)
        except Refused as refused:
            self._note(refused.milliseconds, refused.request_id)
            self._show(f"{refused.status} {refused.reason}", "red", refused.milliseconds, refused.request_id)
            raise
        self._note(answer.milliseconds, answer.request_id)
        self._show(str(answer.status), "green", answer.milliseconds, answer.request_id)
        return dict(answer.body or {})

    async def watch(self, shopper: EdgeClient, order: Json, until: Callable[[Json], bool], what: str) -> Json:
        """Look at an order again and again, and show each change of its status, until it is as it should be.

        Raises NotAsItShould if that takes too long.
        """
        began, shown = time.monotonic(), len(order["status_history"])
        self.say(f"   now     {order['status']}")

        def look(now: Json) -> bool:
            nonlocal shown
            for change in now["status_history"][shown:]:
                reason = f" – {change['reason']}" if change.get("reason") else ""
                self.say(f"{(time.monotonic() - began) * 1000:6.0f} ms  {change['status']}{reason}")
            shown = len(now["status_history"])
            return until(now)

        return await self.until(shopper, f"/api/v1/orders/{order['order_id']}", look, what)

    async def until(self, caller: EdgeClient, path: str, done: Callable[[Json], bool], what: str) -> Json:
        """Get something again and again until it is as it should be: services hear of each other by events.

        Raises NotAsItShould if that takes too long.
        """
        self._console.print(
            Text.assemble(("GET   ", "bold cyan"), (path, "cyan"), (f"  until {what}", "dim")), soft_wrap=True
        )
        began, looks = time.monotonic(), 0
        while True:
            answer = await caller.call("GET", path)
            looks += 1
            self._note(answer.milliseconds, answer.request_id)
            elapsed = time.monotonic() - began
            if done(answer.body):
                self._show(f"{answer.status}", "green", elapsed * 1000, answer.request_id, looks)
                self.expect(True, what)
                return dict(answer.body)
            if elapsed > _SETTLED_WITHIN:
                raise NotAsItShould(f"after {elapsed:.0f} s it is still not so that {what}")
            await asyncio.sleep(_LOOK_EVERY)

    def expect(self, condition: bool, what: str) -> None:
        """Show that something is as it should be. Raises NotAsItShould if it is not."""
        if not condition:
            raise NotAsItShould(f"it is not so that {what}")
        self._scenes[-1].checks += 1
        self._console.print(Text.assemble(("    ✓ ", "green"), what), soft_wrap=True)

    def say(self, text: str) -> None:
        """Show something that an answer told."""
        self._console.print(Text(f"      {text}"), soft_wrap=True)

    def summary(self) -> None:
        """Show what each scene took."""
        table = Table(title="Summary", title_justify="left", show_footer=True)
        scenes, calls = self._scenes, sum(scene.calls for scene in self._scenes)
        table.add_column("scene", footer="all")
        table.add_column("calls", justify="right", footer=str(calls))
        table.add_column(
            "ms a call", justify="right", footer=_mean(sum(s.milliseconds for s in scenes), calls)
        )
        table.add_column("seconds", justify="right", footer=f"{sum(s.seconds for s in scenes):.2f}")
        table.add_column("checks", justify="right", footer=str(sum(s.checks for s in scenes)))
        table.add_column("last x-request-id")
        for scene in scenes:
            table.add_row(
                scene.title,
                str(scene.calls),
                _mean(scene.milliseconds, scene.calls),
                f"{scene.seconds:.2f}",
                str(scene.checks),
                scene.last_request_id,
            )
        self._console.print()
        self._console.print(table)

    def _note(self, milliseconds: float, request_id: str) -> None:
        scene = self._scenes[-1]
        scene.calls += 1
        scene.milliseconds += milliseconds
        scene.seconds = time.monotonic() - scene.began
        scene.last_request_id = request_id

    def _show(self, outcome: str, style: str, milliseconds: float, request_id: str, looks: int = 1) -> None:
        times = f", looked {looks} times" if looks > 1 else ""
        self._console.print(
            Text.assemble(
                ("    → ", "dim"),
                (outcome, style),
                (f"  {milliseconds:.0f} ms{times}  x-request-id {request_id}", "dim"),
            ),
            soft_wrap=True,
        )


def _masked(body: Mapping[str, Any]) -> Json:
    return {
        key: "…" if key in _SECRET and not str(value).startswith("tok_") else value
        for key, value in body.items()
    }


def _price(money: Mapping[str, Any]) -> str:
    """Write a google.type.Money as people do; proto3 leaves zeros out of JSON."""
    amount = Decimal(money.get("units", 0)) + Decimal(money.get("nanos", 0)) / 1_000_000_000
    return f"{money['currency_code']} {amount:,.2f}"


def _stock_words(stock: Json) -> str:
    return f"{stock['stock_count']} in the warehouse, {stock['available']} of them for sale"


def _words(attributes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in attributes.items())


def _mean(total: float, count: int) -> str:
    return f"{total / count:.0f}" if count else "–"
