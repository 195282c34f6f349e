"""The cart API through the chassis: policy, validation, errors and calls to peers as in production."""

from collections.abc import AsyncIterator
from datetime import UTC
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from google.type import money_pb2
from redis.asyncio import Redis

from stoa.cart.v1 import cart_pb2
from stoa.cart.v1.cart_pb2_grpc import CartServiceStub, add_CartServiceServicer_to_server
from stoa.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from stoa.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from stoa_cart.api import CartServicer
from stoa_cart.model import Cart, CartBusy, Offer, OutOfStock
from stoa_cart.peers import Catalog, Inventory
from stoa_cart.repository import CartReader, PriceBook, open_tx
from stoa_cart.service import Carts
from stoa_cart.testing import Rows, Shelf
from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.ids import new_id
from stoa_chassis.kafka import Producer
from stoa_chassis.memory import MemoryStore
from stoa_chassis.money_proto import to_proto
from stoa_chassis.redis_outbox import RedisOutbox
from stoa_chassis.redis_uow import redis_unit_of_work
from stoa_chassis.testing import InProcessServer, serve_in_process
from stoa_chassis.timestamps import to_timestamp
from stoa_contracts.money import Money

from .conftest import CLAIM_FOR, CURRENCY, NOW, CartService, a_full_cart, cancelled, deleted, ordered

Memory = MemoryStore[Rows]
SHOPPER = new_id()
LAMP, LAMP_PRODUCT = new_id(), new_id()
PRICE = Money(Decimal("19.99"), "USD")


@pytest.fixture
def use_cases(service: CartService) -> Carts:
    """There are 5 lamps and nothing else."""
    service.shelf.offers[LAMP], service.shelf.stock[LAMP] = Offer(LAMP_PRODUCT, LAMP, PRICE), 5
    return service.carts


@pytest.fixture
async def server(use_cases: Carts) -> AsyncIterator[InProcessServer]:
    async with serve_in_process(add_CartServiceServicer_to_server, CartServicer(use_cases)) as server:
        yield server


def adding(user_id: UUID = SHOPPER, **changes: Any) -> cart_pb2.AddCartItemRequest:
    item = {"product_id": str(LAMP_PRODUCT), "variant_id": str(LAMP), "quantity": 2, **changes}
    return cart_pb2.AddCartItemRequest(user_id=str(user_id), item=cart_pb2.NewCartItem(**item))


async def refusal(call: Any) -> RemoteError:
    with pytest.raises(RemoteError) as refused:
        await call
    return refused.value


async def test_a_cart_comes_back_as_the_contract_says(server: InProcessServer, service: CartService) -> None:
    cart = (await server.stub(CartServiceStub, as_user=SHOPPER).AddCartItem(adding())).cart
    [item] = cart.items
    assert (cart.user_id, item.product_id, item.variant_id) == (str(SHOPPER), str(LAMP_PRODUCT), str(LAMP))
    assert (item.quantity, item.price) == (2, to_proto(PRICE))
    assert (cart.subtotal.currency_code, cart.subtotal.units, cart.subtotal.nanos) == ("USD", 39, 980_000_000)
    assert cart.updated_at.ToDatetime(UTC) == service.clock.now()


async def test_nothing_of_a_cart_is_left_out(server: InProcessServer, memory: Memory) -> None:
    """Every field of the message has the value of the entity's field, which is not empty."""
    stored = a_full_cart()
    memory.rows = Rows(carts={stored.user_id: stored})
    request = cart_pb2.GetCartRequest(user_id=str(stored.user_id))
    cart = (await server.stub(CartServiceStub, as_user=stored.user_id).GetCart(request)).cart
    assert cart == cart_pb2.Cart(
        user_id=str(stored.user_id),
        items=[
            cart_pb2.CartItem(
                item_id=str(item.item_id),
                product_id=str(item.product_id),
                variant_id=str(item.variant_id),
                quantity=item.quantity,
                price=to_proto(item.price),
                available=True,
            )
            for item in stored.items
        ],
        subtotal=to_proto(stored.subtotal),
        updated_at=to_timestamp(NOW),
    )
    for message in (cart, *cart.items):
        assert {field.name for field, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name)


async def test_an_empty_cart_has_a_subtotal_and_was_never_changed(server: InProcessServer) -> None:
    request = cart_pb2.GetCartRequest(user_id=str(SHOPPER))
    cart = (await server.stub(CartServiceStub, as_user=SHOPPER).GetCart(request)).cart
    assert (cart.user_id, len(cart.items), cart.subtotal.currency_code) == (str(SHOPPER), 0, "USD")
    assert not cart.HasField("updated_at")


async def test_items_are_changed_and_taken_out_by_their_id(server: InProcessServer) -> None:
    shopper = server.stub(CartServiceStub, as_user=SHOPPER)
    item = (await shopper.AddCartItem(adding())).cart.items[0]
    key = {"user_id": str(SHOPPER), "item_id": item.item_id}
    patch = cart_pb2.CartItemPatch(quantity=4)
    changed = (await shopper.UpdateCartItem(cart_pb2.UpdateCartItemRequest(**key, item=patch))).cart
    assert [(line.item_id, line.quantity) for line in changed.items] == [(item.item_id, 4)]
    for _ in range(2):
        left = (await shopper.RemoveCartItem(cart_pb2.RemoveCartItemRequest(**key))).cart
        assert not left.items
    gone = await refusal(shopper.UpdateCartItem(cart_pb2.UpdateCartItemRequest(**key, item=patch)))
    assert (gone.code, gone.reason) == (Code.NOT_FOUND, "CART_ITEM_NOT_FOUND")


async def test_ids_are_the_same_in_capitals(server: InProcessServer) -> None:
    me = server.stub(CartServiceStub, as_user=SHOPPER)
    await me.AddCartItem(adding())
    shouted = adding(variant_id=str(LAMP).upper(), product_id=str(LAMP_PRODUCT).upper(), quantity=1)
    shouted.user_id = shouted.user_id.upper()
    cart = (await me.AddCartItem(shouted)).cart
    [item] = cart.items
    assert (cart.user_id, item.variant_id, item.quantity) == (str(SHOPPER), str(LAMP), 3)
    remove = cart_pb2.RemoveCartItemRequest(user_id=str(SHOPPER), item_id=item.item_id.upper())
    assert not (await me.RemoveCartItem(remove)).cart.items


async def test_a_cleared_cart_is_empty(server: InProcessServer) -> None:
    shopper = server.stub(CartServiceStub, as_user=SHOPPER)
    await shopper.AddCartItem(adding())
    await shopper.ClearCart(cart_pb2.ClearCartRequest(user_id=str(SHOPPER)))
    assert not (await shopper.GetCart(cart_pb2.GetCartRequest(user_id=str(SHOPPER)))).cart.items


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"quantity": 0}, {"quantity"}),
        ({"quantity": -1}, {"quantity"}),
        ({"quantity": 1000}, {"quantity"}),
        ({"product_id": "lamp", "variant_id": ""}, {"product_id", "variant_id"}),
        ({"price": money_pb2.Money(currency_code="USD", units=1)}, {"price"}),
        ({"price": money_pb2.Money(currency_code="EUR")}, {"price"}),
    ],
)
async def test_bad_items_are_refused_naming_the_field(
    server: InProcessServer, memory: Memory, changes: dict[str, Any], fields: set[str]
) -> None:
    error = await refusal(server.stub(CartServiceStub, as_user=SHOPPER).AddCartItem(adding(**changes)))
    assert error.code is Code.INVALID_ARGUMENT
    assert {violation.field for violation in error.violations} == fields
    assert not memory.rows.carts


async def test_an_item_has_to_be_sent(server: InProcessServer) -> None:
    shopper = server.stub(CartServiceStub, as_user=SHOPPER)
    for call in (
        shopper.AddCartItem(cart_pb2.AddCartItemRequest(user_id=str(SHOPPER))),
        shopper.UpdateCartItem(cart_pb2.UpdateCartItemRequest(user_id=str(SHOPPER), item_id=str(new_id()))),
    ):
        assert [violation.field for violation in (await refusal(call)).violations] == ["body"]


async def test_too_few_in_stock_says_how_many_there_are(server: InProcessServer) -> None:
    shopper = server.stub(CartServiceStub, as_user=SHOPPER)
    await shopper.AddCartItem(adding(quantity=4))
    error = await refusal(shopper.AddCartItem(adding(quantity=2)))
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, OutOfStock.reason)
    assert (error.metadata["requested"], error.metadata["available"]) == ("6", "5")


async def test_nobody_touches_another_s_cart_not_even_staff(server: InProcessServer, memory: Memory) -> None:
    user, item = str(SHOPPER), str(new_id())
    patch = cart_pb2.CartItemPatch(quantity=1)
    for caller in (
        server.stub(CartServiceStub, as_user=new_id()),
        server.stub(CartServiceStub, as_user=new_id(), staff=True),
    ):
        for call in (
            caller.GetCart(cart_pb2.GetCartRequest(user_id=user)),
            caller.AddCartItem(adding()),
            caller.UpdateCartItem(cart_pb2.UpdateCartItemRequest(user_id=user, item_id=item, item=patch)),
            caller.RemoveCartItem(cart_pb2.RemoveCartItemRequest(user_id=user, item_id=item)),
            caller.ClearCart(cart_pb2.ClearCartRequest(user_id=user)),
        ):
            error = await refusal(call)
            assert (error.code, error.reason) == (Code.PERMISSION_DENIED, "NOT_OWNER")
    assert not memory.rows.carts


async def test_without_a_token_there_is_no_cart(server: InProcessServer) -> None:
    request = cart_pb2.GetCartRequest(user_id=str(SHOPPER))
    assert (await refusal(server.stub(CartServiceStub).GetCart(request))).code is Code.UNAUTHENTICATED


async def test_only_the_order_service_reads_a_cart_for_checkout(server: InProcessServer) -> None:
    request = cart_pb2.GetCartForCheckoutRequest(user_id=str(SHOPPER), request_id="r")
    cart = (await server.stub(CartServiceStub, as_service="order").GetCartForCheckout(request)).cart
    assert cart.user_id == str(SHOPPER)
    for caller in (
        server.stub(CartServiceStub, as_user=SHOPPER),
        server.stub(CartServiceStub, as_user=SHOPPER, staff=True),
        server.stub(CartServiceStub, as_service="payment"),
    ):
        assert (await refusal(caller.GetCartForCheckout(request))).code is Code.PERMISSION_DENIED
        assert (await refusal(caller.ClaimCart(claiming("0")))).code is Code.PERMISSION_DENIED


def claiming(version: str, request_id: str = "r", order_id: UUID | None = None) -> cart_pb2.ClaimCartRequest:
    return cart_pb2.ClaimCartRequest(
        user_id=str(SHOPPER), request_id=request_id, order_id=str(order_id or new_id()), version=version
    )


async def test_a_cart_is_claimed_once_and_a_checkout_says_by_which_request(
    server: InProcessServer, service: CartService
) -> None:
    shopper = server.stub(CartServiceStub, as_user=SHOPPER)
    order = server.stub(CartServiceStub, as_service="order")
    checkout = cart_pb2.GetCartForCheckoutRequest(user_id=str(SHOPPER), request_id="r")
    await shopper.AddCartItem(adding())
    found = await order.GetCartForCheckout(checkout)
    assert (len(found.cart.items), found.order_id, list(found.lapsed_order_ids)) == (1, "", [])
    first = claiming(found.version)
    for again in (first, claiming(found.version)):
        claimed = await order.ClaimCart(again)
        assert (claimed.order_id, claimed.ttl.ToTimedelta()) == (first.order_id, CLAIM_FOR)
    assert not (await shopper.GetCart(cart_pb2.GetCartRequest(user_id=str(SHOPPER)))).cart.items
    repeated = await order.GetCartForCheckout(checkout)
    assert (repeated.order_id, repeated.version) == (first.order_id, found.version)
    assert repeated.cart.items == found.cart.items
    empty = await refusal(order.ClaimCart(claiming(found.version, "another")))
    assert (empty.code, empty.reason) == (Code.ABORTED, "CART_EMPTY")
    await shopper.AddCartItem(adding(quantity=1))
    changed = await refusal(order.ClaimCart(claiming(found.version, "another")))
    assert (changed.code, changed.reason) == (Code.ABORTED, "CART_CHANGED")
    service.clock.advance(minutes=1)
    checkout.request_id = "another"
    lapsed = await order.GetCartForCheckout(checkout)
    assert (lapsed.order_id, list(lapsed.lapsed_order_ids)) == ("", [first.order_id])


async def test_an_order_service_of_before_reads_a_cart_without_a_request_and_claims_nothing(
    server: InProcessServer, service: CartService
) -> None:
    await server.stub(CartServiceStub, as_user=SHOPPER).AddCartItem(adding())
    await service.handle(cancelled(ordered(SHOPPER, (Offer(LAMP_PRODUCT, LAMP, PRICE), 1))))
    request = cart_pb2.GetCartForCheckoutRequest(user_id=str(SHOPPER))
    found = await server.stub(CartServiceStub, as_service="order").GetCartForCheckout(request)
    assert [item.quantity for item in found.cart.items] == [2]
    assert found.order_id == "", "what is known of an order that claimed nothing is of no request"


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"request_id": ""}, {"request_id"}),
        ({"request_id": "two words"}, {"request_id"}),
        ({"order_id": "one"}, {"order_id"}),
        ({"version": ""}, {"version"}),
        ({"version": "v" * 65}, {"version"}),
    ],
)
async def test_a_bad_claim_is_refused_naming_the_field(
    server: InProcessServer, changes: dict[str, str], fields: set[str]
) -> None:
    request = claiming("0")
    for name, value in changes.items():
        setattr(request, name, value)
    error = await refusal(server.stub(CartServiceStub, as_service="order").ClaimCart(request))
    assert {violation.field for violation in error.violations} == fields


async def test_what_is_not_on_sale_any_more_is_marked_and_can_only_be_removed(
    server: InProcessServer, service: CartService
) -> None:
    shopper = server.stub(CartServiceStub, as_user=SHOPPER)
    await shopper.AddCartItem(adding())
    await service.handle(deleted(Offer(LAMP_PRODUCT, LAMP, PRICE), version=2))
    cart = (await shopper.GetCart(cart_pb2.GetCartRequest(user_id=str(SHOPPER)))).cart
    [item] = cart.items
    assert (item.available, cart.subtotal.units, cart.subtotal.nanos) == (False, 0, 0)
    key = {"user_id": str(SHOPPER), "item_id": item.item_id}
    for quantity in (1, 3):
        patch = cart_pb2.CartItemPatch(quantity=quantity)
        error = await refusal(shopper.UpdateCartItem(cart_pb2.UpdateCartItemRequest(**key, item=patch)))
        assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "ITEM_UNAVAILABLE")
    assert not (await shopper.RemoveCartItem(cart_pb2.RemoveCartItemRequest(**key))).cart.items


async def test_a_busy_cart_asks_to_try_again(
    server: InProcessServer, use_cases: Carts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: object) -> Cart:
        raise CartBusy

    monkeypatch.setattr(use_cases, "get", busy)
    request = cart_pb2.GetCartRequest(user_id=str(SHOPPER))
    error = await refusal(server.stub(CartServiceStub, as_user=SHOPPER).GetCart(request))
    assert (error.code, error.reason) == (Code.ABORTED, "CART_BUSY")


async def test_while_the_store_is_down_the_service_is_unavailable_and_says_when_to_come_back() -> None:
    redis = Redis.from_url("redis://127.0.0.1:1")
    outbox = RedisOutbox(redis, "test:outbox", EventCodec("http://127.0.0.1:1"), Producer("127.0.0.1:1"))
    uow = redis_unit_of_work(redis, outbox, "test:inbox", open_tx(CURRENCY), CartBusy)
    shelf = Shelf(CURRENCY)
    carts = Carts(uow, CartReader(redis, CURRENCY), PriceBook(redis), shelf, shelf, SystemClock(), CLAIM_FOR)
    async with serve_in_process(add_CartServiceServicer_to_server, CartServicer(carts)) as server:
        request = cart_pb2.ClearCartRequest(user_id=str(SHOPPER))
        error = await refusal(server.stub(CartServiceStub, as_user=SHOPPER).ClearCart(request))
    assert error.code is Code.UNAVAILABLE
    assert error.retry_after


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    """A catalogue with one lamp."""

    async def BatchGetVariants(
        self, request: catalog_pb2.BatchGetVariantsRequest, context: object
    ) -> catalog_pb2.BatchGetVariantsResponse:
        entry = catalog_pb2.BatchGetVariantsResponse.Entry(
            product_id=str(LAMP_PRODUCT),
            product_name="Lamp",
            variant=catalog_pb2.Variant(variant_id=str(LAMP), sku="L", price=to_proto(PRICE)),
        )
        return catalog_pb2.BatchGetVariantsResponse(variants=[entry] * (str(LAMP) in request.variant_ids))


class InventoryServicer(inventory_pb2_grpc.InventoryServiceServicer):
    """Five of everything."""

    async def CheckAvailability(
        self, request: inventory_pb2.CheckAvailabilityRequest, context: object
    ) -> inventory_pb2.CheckAvailabilityResponse:
        available = inventory_pb2.CheckAvailabilityResponse.Availability
        return inventory_pb2.CheckAvailabilityResponse(
            variants=[available(variant_id=variant_id, available=5) for variant_id in request.variant_ids]
        )


async def test_the_catalogue_and_the_inventory_let_the_cart_service_ask() -> None:
    add_catalog = catalog_pb2_grpc.add_CatalogServiceServicer_to_server
    add_inventory = inventory_pb2_grpc.add_InventoryServiceServicer_to_server
    async with (
        serve_in_process(add_catalog, CatalogServicer(), name="catalog") as shop,  # type: ignore[abstract]
        serve_in_process(add_inventory, InventoryServicer(), name="inventory") as store,  # type: ignore[abstract]
    ):
        catalog = Catalog(shop.stub(catalog_pb2_grpc.CatalogServiceStub, as_service="cart"))
        inventory = Inventory(store.stub(inventory_pb2_grpc.InventoryServiceStub, as_service="cart"))
        assert await catalog.offer(LAMP) == Offer(LAMP_PRODUCT, LAMP, PRICE)
        assert await catalog.offer(new_id()) is None
        assert await inventory.available(LAMP) == 5
