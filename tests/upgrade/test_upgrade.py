"""A shop that an older version has filled goes on under this one, where it was.

The older version is the commit in `older-version`: what may be running somewhere. It is taken from this
repository's history, made runnable beside this one, and sells until there are orders in every state, carts,
and refunds under way. Then it is stopped, and this version is started on its state folder.
"""

import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from stoa_rest import Cart, Money, Order
from stoa_stack.instance import CHECKOUT
from stoa_stack.shopping import Item, amount
from stoa_stack.throwaway import SHORT_WAITS, port_base
from tests.e2e.shop import Customer, Shop, eventually

pytestmark = [pytest.mark.stack, pytest.mark.own_stack, pytest.mark.slow, pytest.mark.timeout(900)]
OLDER = (Path(__file__).parent / "older-version").read_text().strip()


@dataclass
class Version:
    """A checkout that can run the shop in a state folder."""

    checkout: Path
    environment: Mapping[str, str]

    def stoa(self, *words: str, timeout: float = 300) -> str:
        """Run a command of this version's, which must succeed; return what it printed."""
        done = subprocess.run(
            [self.checkout / ".venv" / "bin" / "stoa", *words],
            cwd=self.checkout,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@dataclass
class Left:
    """What the older version left behind."""

    settled: dict[str, Order] = field(default_factory=dict)  # by their ids, which nothing is to happen to
    pending: dict[str, str] = field(default_factory=dict)  # the card of each, by the order's id
    refunding: dict[str, Decimal] = field(default_factory=dict)  # what is to be given back, by payment
    carts: list[tuple[Customer, Cart]] = field(default_factory=list)
    buyers: dict[str, Customer] = field(default_factory=dict)  # by order


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The environment of both versions.

    Where the shop is, to wait for payments longer than a restart takes, and that no parcel moves meanwhile.
    """
    with port_base() as base:
        own = {
            **SHORT_WAITS,
            "STOA_ORDER__PAYMENT_DEADLINE_SECONDS": "600",
            "CARRIERS_FIRST_SCAN_SECONDS": "3600",
            "STOA_STATE": str(tmp_path_factory.mktemp("upgrade") / "state"),
            "STOA_PORT_BASE": str(base),
        }
        yield {name: value for name, value in os.environ.items() if not name.startswith("STOA_")} | own


@pytest.fixture(scope="module")
def older(environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Version:
    """The older version, ready to run."""
    archive = subprocess.run(["git", "archive", OLDER], cwd=CHECKOUT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"commit {OLDER} is not in this clone, which is shallow: {archive.stderr.decode()}")
    checkout = tmp_path_factory.mktemp("older")
    subprocess.run(["tar", "-x", "-C", checkout], input=archive.stdout, check=True)
    subprocess.run([checkout / "stack" / "bootstrap"], env=environment, check=True)
    return Version(checkout, environment)


@pytest.fixture(scope="module")
def newer(environment: Mapping[str, str]) -> Iterator[Version]:
    """This version; whatever of either runs in the end is stopped."""
    version = Version(CHECKOUT, environment)
    yield version
    version.stoa("down")


@asynccontextmanager
async def at_the_edge(environment: Mapping[str, str]) -> AsyncIterator[Shop]:
    """The shop as staff and shoppers have it, whichever version runs."""
    access = json.loads((Path(environment["STOA_STATE"]) / "access.json").read_text())
    async with httpx.AsyncClient(base_url=access["edge_url"], timeout=30) as http:
        yield Shop(http, await Customer(http).sign_in(**access["staff"]))


async def gateway(environment: Mapping[str, str], **faults: float) -> None:
    """Let the payment gateway go wrong from now on, or right."""
    state = Path(environment["STOA_STATE"])
    api_key = (state / "secrets" / "stack" / "gateway_api_key").read_text().strip()
    url = f"http://127.0.0.1:{int(environment['STOA_PORT_BASE']) + 20}/admin/faults"
    async with httpx.AsyncClient() as client:
        answer = await client.post(url, json=faults, headers={"authorization": f"Bearer {api_key}"})
        answer.raise_for_status()


async def placed(shop: Shop, item: Item, left: Left, token: str = "tok_visa", quantity: int = 2) -> Order:
    """Have somebody new order, and return the order as it is at once."""
    buyer = await shop.shopper()
    await buyer.add(item, quantity)
    order = await buyer.order(token)
    left.buyers[order["order_id"]] = buyer
    return order


async def settled(shop: Shop, item: Item, left: Left, token: str = "tok_visa", quantity: int = 2) -> Order:
    """Have somebody new order, and wait for what becomes of it."""
    order = await placed(shop, item, left, token, quantity)
    left.settled[order["order_id"]] = await shop.staff.settled(order)
    return left.settled[order["order_id"]]


async def given_back(shop: Shop, payment_id: str, total: Decimal, within: float) -> None:
    """Wait until so much of a payment was given back."""

    async def look() -> bool:
        return amount((await shop.staff.get_payment(payment_id))["refunded_amount"]) == total

    await eventually(look, within)


async def refunded(shop: Shop, order: Order) -> Order | None:
    """Look whether an order says that its money was given back."""
    found = await shop.staff.get_order(order["order_id"])
    return found if found["payment"]["status"] == "refunded" else None


async def fill(shop: Shop, older: Version) -> Left:
    """Sell until there is something of everything, and leave some of it under way."""
    left = Left()
    plenty, scarce = await shop.item(price="19.90", stock=100), await shop.item(stock=1)
    for token in ("tok_visa", "tok_mastercard", "tok_declined", "tok_insufficient_funds"):
        await settled(shop, plenty, left, token)
    rivals = [await shop.shopper() for _ in range(2)]
    for rival in rivals:
        await rival.add(scarce)
    for rival in rivals:  # for the second of the two it is out of stock
        order = await rival.settled(await rival.order())
        left.settled[order["order_id"]], left.buyers[order["order_id"]] = order, rival
    changed_mind = await settled(shop, plenty, left)
    await shop.staff.cancel_order(changed_mind["order_id"])
    left.settled[changed_mind["order_id"]] = await eventually(lambda: refunded(shop, changed_mind), 60)
    for quantity in (1, 3):
        shopper = await shop.shopper()
        left.carts.append((shopper, await shopper.add(plenty, quantity)))

    # From here on much is begun and nothing comes to its end.
    whole, part = await settled(shop, plenty, left), await settled(shop, plenty, left)
    await gateway(older.environment, error_rate=1.0)
    await shop.staff.cancel_order(whole["order_id"])
    left.refunding[whole["payment"]["payment_id"]] = amount(whole["total_amount"])
    five: Money = {"currency_code": "USD", "units": "5", "nanos": 0}
    await shop.staff.refund_payment(
        part["payment"]["payment_id"], request_id="part", reason="scratched", amount=five
    )
    left.refunding[part["payment"]["payment_id"]] = amount(five)
    for order in (whole, part):
        del left.settled[order["order_id"]]
    for token in ("tok_visa", "tok_timeout", "tok_declined"):
        order = await placed(shop, plenty, left, token)
        left.pending[order["order_id"]] = token
    return left


async def test_a_shop_that_an_older_version_has_filled_goes_on_where_it_was(
    older: Version, newer: Version
) -> None:
    older.stoa("up")
    async with at_the_edge(older.environment) as shop:
        left = await fill(shop, older)
        older.stoa("down")
        newer.stoa("up")
        await shop.staff.renew()  # which work of staff is theirs stands in tokens of the newer version

        for order_id, before in left.settled.items():
            buyer = left.buyers[order_id]
            # A newer version may say more of an order, and send it; it changes nothing of what was.
            now = await buyer.get_order(order_id)
            assert {**now, **before} == now
            await buyer.renew()  # with the same password
            listed = (await buyer.list_user_orders(buyer.user_id))["orders"]
            assert [order["order_id"] for order in listed] == [order_id]
        for owner, cart in left.carts:
            items = (await owner.get_cart(owner.user_id))["items"]
            # A newer version may say more of a thing, and nothing else of it than before.
            assert [now | before for now, before in zip(items, cart["items"], strict=True)] == items
            assert (await shop.nobody().refresh(refresh_token=owner.refresh_token))["access_token"]

        for order_id, token in left.pending.items():
            order = await shop.staff.settled({"order_id": order_id}, 90)
            assert order["status"] == ("cancelled" if token == "tok_declined" else "confirmed"), order
        for payment_id, total in left.refunding.items():
            await given_back(shop, payment_id, total, 90)
        assert (await settled(shop, await shop.item(), Left()))["status"] == "confirmed"

    assert "every rule holds" in newer.stoa("audit", "--wait", "90")
    assert "0 differed" in newer.stoa("replay", "order")
