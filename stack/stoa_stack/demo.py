"""`stoa demo`: a shopper buys, is declined, changes their mind, receives a parcel and sends it back, while
you watch, over REST.

Read the scenes from top to bottom to learn the API: each call is there as a client would send it. The demo
checks all that it shows, so it is also the quickest answer to "does the shop work?".
"""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stoa_rest import CREATE_REVIEW, Inventory, Money, Operation, Order, PlaceOrderRequest, Product, Review
from stoa_stack.carriers import Carriers
from stoa_stack.instance import Instance
from stoa_stack.mail import Mail, Mailbox, Wanted
from stoa_stack.rest import Answer, ApiError, Client
from stoa_stack.shopping import ADDRESS, Item, access, amount

_SETTLED_WITHIN = 30.0  # seconds
_LOOK_EVERY = 0.1  # seconds
_ALL_SCANS = 9  # more than a parcel has
# What the shopper is written to about, in the words of the subjects.
_SUBJECTS = (
    "Welcome",
    "is confirmed",
    "could not be paid",
    "is cancelled",
    "is on its way",
    "is there",
    "You can send it back",
    "What you sent back",
    "on its way back to you",
)
_SECRET = {"password", "payment_token", "access_token", "refresh_token"}
T = TypeVar("T")


class NotAsItShould(Exception):
    """The shop answered something else than a shopper may expect."""


def command(at: Instance, console: Console) -> int:
    """Play all scenes; 0 if the shop did what it should."""
    try:
        edge_url = access(at)["edge_url"]
    except FileNotFoundError:
        console.print(Text(f"There is no shop in {at.state}: start one with `stoa up`.", style="red"))
        return 1
    stage = Stage(console)
    try:
        asyncio.run(_play(stage, edge_url, at))
    except (NotAsItShould, ApiError) as failure:
        stage.summary()
        console.print(Text(f"Not as it should be: {failure}", style="bold red"), soft_wrap=True)
        return 1
    except httpx.TransportError as error:
        console.print(
            Text(f"Nobody answers at {edge_url} ({error!r}): is `stoa up` ready?", style="red"),
            soft_wrap=True,
        )
        return 1
    stage.summary()
    console.print(Text("Everything went as it should.", style="bold green"))
    return 0


async def _play(stage: Stage, edge_url: str, at: Instance) -> None:
    async with httpx.AsyncClient(base_url=edge_url, timeout=30) as http:
        anyone = ShownClient(http, stage)

        stage.scene("Looking around, as nobody in particular")
        await _search(stage, anyone)
        lamp, chair = await _browse(stage, anyone)

        stage.scene("Opening an account and signing in")
        shopper, email = await _open_account(stage, anyone)

        stage.scene("Filling the cart")
        await _fill_cart(stage, shopper, {lamp: 2, chair: 1})

        stage.scene("Ordering with a card that is good (tok_visa)")
        bought = await _buy(stage, shopper, lamp)

        stage.scene("Ordering with a card that is declined (tok_declined)")
        await _be_declined(stage, shopper, lamp)

        stage.scene("Changing one's mind: the confirmed order is cancelled and refunded")
        await _cancel(stage, shopper, bought, lamp)

        stage.scene("Receiving a parcel: the carrier's scans are told to happen now")
        delivered = await _receive(stage, shopper, lamp, at)

        stage.scene("Saying what one thinks of it, as a buyer who has it")
        await _review(stage, shopper, delivered)

        stage.scene("Sending it back: staff approve, the warehouse has it again, the money goes back")
        staff = await ShownClient(http, stage).sign_in(**access(at)["staff"])
        await _send_back(stage, shopper, staff, delivered, lamp)

        stage.scene("Reading the mails that the shop has sent")
        await _read_mails(stage, Mailbox(at), email)


# ------------------------------------------------------------------------------------------------ the scenes


async def _search(stage: Stage, anyone: ShownClient) -> None:
    """Find lamps, though the word is mistyped, and see by what they can be narrowed."""
    suggested = await anyone.suggest(q="desk la")
    stage.say(", ".join(suggestion["text"] for suggestion in suggested["suggestions"]))

    quiet = anyone.quietly()
    found = await stage.until(
        lambda: quiet.search(q="desk lmap", in_stock=True, sort="relevance", page_size=3),
        lambda found: bool(found["hits"]),
        "desk lamps are found",
    )
    for hit in found["hits"]:
        stage.say(f"{_price(hit['price_from']):>12}  {hit['name']} by {hit['brand']}")
    for facet in found["facets"]:
        buckets = ", ".join(f"{bucket['value']} ({bucket['count']})" for bucket in facet["buckets"][:5])
        stage.say(f"{facet['field']:>12}  {buckets}")


async def _browse(stage: Stage, anyone: ShownClient) -> tuple[Item, Item]:
    """Choose a lamp and a chair of which there are enough."""
    categories = (await anyone.list_categories())["categories"]
    stage.say(", ".join(f"{c['name']} ({c['product_count']})" for c in categories))

    chosen = []
    for category, subcategory in (("Lighting", "Desk lamps"), ("Furniture", "Chairs")):
        listed = await anyone.list_products(category=category, subcategory=subcategory, page_size=5)
        for found in listed["products"]:
            stage.say(f"{_price(found['variants'][0]['price']):>12}  {found['name']} by {found['brand']}")
        chosen.append(await _in_stock(anyone, listed["products"]))

    product = await anyone.get_product(chosen[0].product_id)
    stage.say(product["description"])
    for variant in product["variants"]:
        stage.say(f"{variant['sku']}  {_price(variant['price'])}  {_words(variant['attributes'])}")
    lamp, chair = chosen
    return lamp, chair


async def _in_stock(anyone: ShownClient, products: list[Product]) -> Item:
    for product in products:
        for variant in product["variants"]:
            if (await anyone.get_inventory(variant["variant_id"]))["available"] >= 10:
                return Item(product["product_id"], variant["variant_id"])
    raise NotAsItShould(f"nothing of {products[0]['subcategory'] if products else 'a shelf'} is in stock")


async def _open_account(stage: Stage, anyone: ShownClient) -> tuple[ShownClient, str]:
    email, password = f"shopper-{uuid4().hex[:12]}@stoa.example", uuid4().hex
    await anyone.create_user(email=email, password=password, first_name="Robin", last_name="Shopper")

    tokens = await anyone.login(email=email, password=password)
    stage.expect(tokens["token_type"] == "Bearer", "the login gives a bearer token")
    stage.say(f"The access token is good for {tokens['expires_in']} s, then it is refreshed.")
    # From here on each request carries the header `authorization: Bearer <access token>`.
    shopper = ShownClient(anyone.http, stage)
    shopper.use(tokens)
    return shopper, email


async def _fill_cart(stage: Stage, shopper: ShownClient, wanted: Mapping[Item, int]) -> None:
    for variant, quantity in wanted.items():
        await shopper.add_cart_item(
            shopper.user_id,
            product_id=variant.product_id,
            variant_id=variant.variant_id,
            quantity=quantity,
        )

    cart = await shopper.get_cart(shopper.user_id)
    quantities = {item["variant_id"]: item["quantity"] for item in cart["items"]}
    stage.expect(
        quantities == {v.variant_id: n for v, n in wanted.items()}, "the cart holds what was put into it"
    )
    stage.say(f"{len(cart['items'])} lines, subtotal {_price(cart['subtotal'])}")


async def _buy(stage: Stage, shopper: ShownClient, lamp: Item) -> Order:
    stored = await shopper.create_address(shopper.user_id, kind="KIND_SHIPPING", **ADDRESS)

    before = await _stock(stage, shopper, lamp)
    request: PlaceOrderRequest = {
        "request_id": str(uuid4()),
        "address_id": stored["address_id"],
        "shipping_method": "standard",
        "payment_token": "tok_visa",
    }
    placed = await shopper.place_order(**request)
    stage.say(
        f"items {_price(placed['subtotal'])} + shipping {_price(placed['shipping_amount'])}"
        f" + tax {_price(placed['tax_amount'])} = {_price(placed['total_amount'])}"
    )
    again = await shopper.place_order(**request)
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
    quiet = shopper.quietly()
    await stage.until(
        lambda: quiet.get_cart(shopper.user_id), lambda cart: not cart["items"], "the cart is empty"
    )
    return order


async def _be_declined(stage: Stage, shopper: ShownClient, lamp: Item) -> None:
    await shopper.add_cart_item(
        shopper.user_id, product_id=lamp.product_id, variant_id=lamp.variant_id, quantity=3
    )

    before = await _stock(stage, shopper, lamp)
    placed = await shopper.place_order(
        request_id=str(uuid4()),
        shipping_address=ADDRESS,  # instead of the id of a stored address an order may carry one
        payment_token="tok_declined",
    )
    order = await stage.watch(
        shopper, placed, lambda order: order["status"] != "pending", "the order is settled"
    )
    stage.expect(order["status"] == "cancelled", "the order is cancelled")
    stage.expect("declined" in order["status_history"][-1]["reason"], "the history says why")

    await _until_for_sale(stage, shopper, lamp, before["available"])
    quiet = shopper.quietly()
    await stage.until(
        lambda: quiet.get_cart(shopper.user_id),
        lambda cart: [item["quantity"] for item in cart["items"]] == [3],
        "the lamps are in the cart again, for another card",
    )


async def _cancel(stage: Stage, shopper: ShownClient, order: Order, lamp: Item) -> None:
    before = await _stock(stage, shopper, lamp)
    cancelled = await shopper.cancel_order(order["order_id"], reason="found my old lamp")
    stage.expect(cancelled["status"] == "cancelled", "the order is cancelled at once")

    refunded = await stage.watch(
        shopper,
        cancelled,
        lambda order: order["payment"]["status"] == "refunded",
        "the payment is refunded",
    )
    payment = await shopper.get_payment(refunded["payment"]["payment_id"])
    stage.expect(payment["refunded_amount"] == payment["amount"], "all of the money is given back")
    stage.say(f"{_price(payment['refunded_amount'])} of {_price(payment['amount'])} given back")

    await _until_for_sale(stage, shopper, lamp, before["available"] + 2)


async def _receive(stage: Stage, shopper: ShownClient, lamp: Item, at: Instance) -> Order:
    quotes = await shopper.quote_shipping(
        items=[{"variant_id": lamp.variant_id, "quantity": 3}], address=ADDRESS
    )
    for quote in quotes["quotes"]:
        stage.say(f"{_price(quote['amount']):>12}  {quote['shipping_method']} with {quote['carrier']}")

    placed = await shopper.place_order(
        request_id=str(uuid4()),
        shipping_address=ADDRESS,
        shipping_method="express",
        payment_token="tok_mastercard",
    )
    packed = await stage.watch(
        shopper, placed, lambda order: bool(order.get("shipment")), "a carrier has booked the parcel"
    )
    shipment = packed["shipment"]
    stage.say(f"{shipment['carrier']} {shipment['tracking_id']}")

    async with Carriers(at) as carriers:
        await stage.until(
            lambda: carriers.advance(shipment["tracking_id"], _ALL_SCANS),
            bool,
            "the carrier has brought it",
            "the carrier's own page",
        )
    delivered = await stage.watch(
        shopper, packed, lambda order: order["status"] == "delivered", "the order is delivered"
    )
    tracking = await shopper.get_tracking(delivered["order_id"])
    for event in tracking["events"]:
        stage.say(f"{event['status']:>18}  {event['description']}")
    return delivered


async def _review(stage: Stage, shopper: ShownClient, order: Order) -> None:
    product_id = order["items"][0]["product_id"]

    async def say() -> Review | None:
        try:
            return await shopper.quietly().create_review(
                product_id,
                order_id=order["order_id"],
                rating=4,
                title="A fine light",
                review="Bright, and it does not wobble.",
            )
        except ApiError as refused:  # the reviews are yet to hear of the delivery
            if refused.status == 403:
                return None
            raise

    where = CREATE_REVIEW.target(product_id)
    review = await stage.until(say, lambda review: review is not None, "the review is taken", where)
    stage.expect(review is not None and review["is_verified_purchase"], "it is shown as a buyer's")
    rated = await stage.until(
        lambda: shopper.quietly().get_product(product_id),
        lambda product: product["rating"]["count"] > 0,
        "the product shows its rating",
    )
    stage.say(f"{rated['rating']['average']} of 5, by {rated['rating']['count']}")


async def _send_back(
    stage: Stage, shopper: ShownClient, staff: ShownClient, order: Order, lamp: Item
) -> None:
    before = await _stock(stage, shopper, lamp)
    bought = sum(item["quantity"] for item in order["items"])
    wanted = await shopper.create_return(
        order["order_id"],
        request_id=str(uuid4()),
        items=[{"variant_id": item["variant_id"], "quantity": item["quantity"]} for item in order["items"]],
        reason="too bright after all",
    )
    stage.expect(wanted["status"] == "requested", "the return is asked for")
    approved = await staff.approve_return(order["order_id"], wanted["return_id"], reason="of course")
    stage.expect(approved["status"] == "approved", "staff let it come")
    received = await staff.receive_return(order["order_id"], wanted["return_id"])
    stage.say(f"{_price(received['refund_amount'])} is owed for {bought} lamps")

    back = await stage.watch(
        shopper, order, lambda order: order["payment"]["status"] == "refunded", "the payment is refunded"
    )
    stage.expect(back["status"] == "returned", "the order is returned")
    stage.expect(received["refund_amount"] == order["total_amount"], "all of the money is given back")
    await _until_for_sale(stage, shopper, lamp, before["available"] + bought)


async def _read_mails(stage: Stage, mailbox: Mailbox, email: str) -> None:
    async def look() -> Sequence[Mail]:
        return await asyncio.to_thread(mailbox.list, Wanted(to=email))

    def has_come(mails: Sequence[Mail]) -> bool:
        return all(any(words in mail["subject"] for mail in mails) for words in _SUBJECTS)

    mails = await stage.until(look, has_come, "a mail about each of it has come", "the mail server")
    for mail in reversed(mails):
        stage.say(f"{mail['received'][11:19]}  {mail['subject']}")
    stage.expect(all(mail["deliveries"] == 1 for mail in mails), "each was sent once")
    stage.say(f"In a browser: {mailbox.url}")


async def _until_for_sale(stage: Stage, caller: ShownClient, variant: Item, count: int) -> None:
    """Wait until inventory has released what a cancelled order had reserved."""
    quiet = caller.quietly()
    stock = await stage.until(
        lambda: quiet.get_inventory(variant.variant_id),
        lambda stock: stock["available"] == count,
        f"{count} of them are for sale",
    )
    stage.say(_stock_words(stock))


async def _stock(stage: Stage, caller: ShownClient, variant: Item) -> Inventory:
    stock = await caller.get_inventory(variant.variant_id)
    stage.say(_stock_words(stock))
    return stock


# ------------------------------------------------------------------------------------------------- the stage


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
        self.last_look = ""  # the last request that was not shown

    def scene(self, title: str) -> None:
        """Begin a scene."""
        self._scenes.append(Scene(title))
        self._console.print()
        self._console.rule(Text(f"{len(self._scenes)}  {title}", style="bold"), align="left")

    def request(self, method: str, target: str, body: Mapping[str, Any] | None) -> None:
        """Show what is sent."""
        line = Text.assemble((f"{method:6}", "bold cyan"), (target, "cyan"))
        self._console.print(line, soft_wrap=True)
        if body:
            self._console.print(
                Text(f"       {json.dumps(_masked(body), ensure_ascii=False)}", style="dim"), soft_wrap=True
            )

    def answered(self, milliseconds: float, request_id: str, outcome: str = "", style: str = "green") -> None:
        """Count an answer, and show it if it has an outcome to show."""
        scene = self._scenes[-1]
        scene.calls += 1
        scene.milliseconds += milliseconds
        scene.seconds = time.monotonic() - scene.began
        scene.last_request_id = request_id
        if outcome:
            self._show(outcome, style, milliseconds, request_id)

    async def watch(
        self, shopper: ShownClient, order: Order, until: Callable[[Order], bool], what: str
    ) -> Order:
        """Look at an order again and again, and show each change of its status, until it is as it should be.

        Raises NotAsItShould if that takes too long.
        """
        began, shown = time.monotonic(), len(order["status_history"])
        self.say(f"   now     {order['status']}")

        def look(now: Order) -> bool:
            nonlocal shown
            for change in now["status_history"][shown:]:
                reason = f" – {change['reason']}" if change["reason"] else ""
                self.say(f"{(time.monotonic() - began) * 1000:6.0f} ms  {change['status']}{reason}")
            shown = len(now["status_history"])
            return until(now)

        quiet = shopper.quietly()
        return await self.until(lambda: quiet.get_order(order["order_id"]), look, what)

    async def until(
        self, look: Callable[[], Awaitable[T]], done: Callable[[T], bool], what: str, where: str = ""
    ) -> T:
        """Look at something until it is as it should be: services learn of each other by events, later.

        Without saying `where`, it is the shop's API. Raises NotAsItShould if that takes too long.
        """
        began, looks = time.monotonic(), 0
        while True:
            found = await look()
            looks += 1
            if looks == 1:
                line = Text.assemble((where or self.last_look, "cyan"), (f"  until {what}", "dim"))
                self._console.print(line, soft_wrap=True)
            elapsed = time.monotonic() - began
            if done(found):
                self._show("200", "green", elapsed * 1000, self._scenes[-1].last_request_id, looks)
                self.expect(True, what)
                return found
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
        """Show something that an answer said."""
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


class ShownClient(Client):
    """A client that shows what it sends and what is answered."""

    def __init__(self, http: httpx.AsyncClient, stage: Stage) -> None:
        super().__init__(http)
        self._stage = stage
        self._quiet = False

    def quietly(self) -> ShownClient:
        """The same, for requests that are repeated: they are counted, not shown."""
        quiet = copy.copy(self)
        quiet._quiet = True
        return quiet

    async def exchange(
        self, operation: Operation, target: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Send a request and show it with its answer. Raises ApiError."""
        if not self._quiet:
            self._stage.request(operation.method, target, body)
        try:
            answer = await super().exchange(operation, target, body)
        except ApiError as error:
            self._stage.answered(
                error.milliseconds, error.request_id, f"{error.status} {error.reason}", "red"
            )
            raise
        if self._quiet:
            self._stage.last_look = f"{operation.method:6}{target}"
        shown = "" if self._quiet else str(answer.status)
        self._stage.answered(answer.milliseconds, answer.request_id, shown)
        return answer


def _masked(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: "…" if key in _SECRET and not str(value).startswith("tok_") else value
        for key, value in body.items()
    }


def _price(money: Money) -> str:
    """Write a google.type.Money as people do."""
    return f"{money['currency_code']} {amount(money):,.2f}"


def _stock_words(stock: Inventory) -> str:
    return f"{stock['stock_count']} in the warehouse, {stock['available']} of them for sale"


def _words(attributes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in attributes.items())


def _mean(total: float, count: int) -> str:
    return f"{total / count:.0f}" if count else "–"
