"""What is relied on of the read model, in memory and in PostgreSQL alike."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoa_catalog import ports, testing
from stoa_catalog.model import Category, Details, Filters, Product, VariantDraft
from stoa_catalog.read_model import Listing
from stoa_catalog.shared_read_model import SharedReadModel
from stoa_chassis.ids import new_id
from stoa_chassis.postgres import Database
from stoa_chassis.testing import eventually
from stoa_contracts.money import Money

NOW = datetime(2026, 11, 24, tzinfo=UTC)

_names = st.sampled_from(["", "a", "b", "c"])
_details = st.builds(
    Details,
    name=st.text(max_size=3),
    category=st.sampled_from(["home", "garden", "a"]),
    subcategory=_names,
    brand=_names,
    tags=st.lists(st.sampled_from(["a", "b", "new", 'it\'s "new", {a}\\']), unique=True).map(tuple),
)
_prices = st.integers(1, 12).map(lambda cents: Decimal(cents) / 100)
_variants = st.lists(_prices, min_size=1, max_size=3)
_step = st.tuples(st.integers(0, 5), _details, _variants, st.booleans())
_bounds = st.none() | _prices
examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass
class Empty:
    """Gives a read model that has nothing, again and again."""

    database: Database | None = None

    async def __call__(self) -> ports.ReadModel[bytes]:
        if self.database is None:
            return testing.ReadModel[bytes]()
        await self.database.execute("TRUNCATE products, listings, listing_tags, sections")
        await self.database.execute("UPDATE comparison SET form = '', due_at = '-infinity', after = NULL")
        return SharedReadModel(self.database)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.stack)])
def empty(request: pytest.FixtureRequest) -> Empty:
    """What gives an empty read model, of each kind."""
    return Empty(request.getfixturevalue("database") if request.param == "postgres" else None)


@st.composite
def histories(draw: st.DrawFn) -> list[Product]:
    """Every version that some products had, in the order in which they came to be."""
    products: dict[int, Product] = {}
    versions: list[Product] = []
    for number, details, prices, deletes in draw(st.lists(_step, max_size=25)):
        drafts = [VariantDraft(None, str(at), Money(price, "USD")) for at, price in enumerate(prices)]
        now = NOW + timedelta(seconds=len(versions))
        product = products.get(number)
        if product is None:
            product = products[number] = Product.create(details, drafts, now)
        elif product.deleted_at is None and deletes:
            product.delete(now)
        elif product.deleted_at is None:
            product.update(details, drafts, product.etag, now)
        versions.append(replace(product, events=[]))
    return versions


@st.composite
def filters(draw: st.DrawFn) -> Filters:
    low, high = draw(_bounds), draw(_bounds)
    if low is not None and high is not None and low > high:
        low, high = high, low
    return Filters(
        category=draw(st.sampled_from(["", "home", "garden", "nowhere"])),
        subcategory=draw(_names),
        brand=draw(_names),
        tag=draw(st.sampled_from(["", "a", "new"])),
        min_price=low,
        max_price=high,
    )


def listing(product: Product) -> Listing[bytes]:
    """What the read model has of a product; its view is good enough to be told from others."""
    return Listing.of(product, repr((product.product_id, product.version)).encode())


async def put(model: ports.ReadModel[bytes], versions: Iterable[Product]) -> None:
    for version in versions:
        await model.put([listing(version)])


def on_sale(versions: Iterable[Product]) -> list[Product]:
    """The products that all these changes leave, newest first."""
    last = {product.product_id: product for product in versions}
    left = [product for product in last.values() if product.deleted_at is None]
    return sorted(left, key=lambda product: product.product_id, reverse=True)


def passes(product: Product, wanted: Filters) -> bool:
    """What a filter means, product by product, without any index."""
    details = product.details
    low, high = wanted.min_price or Decimal(0), wanted.max_price or Decimal(10**9)
    return (
        wanted.category in ("", details.category)
        and wanted.subcategory in ("", details.subcategory)
        and wanted.brand in ("", details.brand)
        and (not wanted.tag or wanted.tag in details.tags)
        and any(low <= variant.price.amount <= high for variant in product.variants)
    )


async def walk(model: ports.ReadModel[bytes], wanted: Filters, size: int) -> list[UUID]:
    """All pages of a list."""
    seen: list[UUID] = []
    before: UUID | None = None
    while page := await model.page(wanted, before, size):
        assert len(page) <= size
        assert all(entry.on_sale for entry in page)
        seen += [entry.product_id for entry in page]
        before = page[-1].product_id
    return seen


def ids(products: Iterable[Product]) -> list[UUID]:
    return [product.product_id for product in products]


def shelves(products: Sequence[Product]) -> list[Category]:
    names = sorted({product.details.category for product in products})
    found = []
    for name in names:
        parts = [product.details.subcategory for product in products if product.details.category == name]
        found.append(Category(name, len(parts), tuple(sorted(set(parts) - {""}))))
    return found


async def check(model: ports.ReadModel[bytes], history: Sequence[Product]) -> None:
    """The model is what all these changes leave."""
    last = {product.product_id: listing(product) for product in history}
    expected = on_sale(history)
    assert await walk(model, Filters(), 2) == ids(expected)
    assert await model.categories() == shelves(expected)
    assert await model.listings(last) == last
    assert await model.listings_between(None, None, 100) == last
    assert {each.product_id: each for each in await model.get(last)} == {
        product_id: each.entry for product_id, each in last.items()
    }
    for product_id, each in last.items():
        for variant_id in each.entry.variant_ids:
            assert [found.product_id for found in await model.with_variants([variant_id])] == [product_id]
    old = {variant.variant_id for product in history for variant in product.variants}
    now = {variant_id for each in last.values() for variant_id in each.entry.variant_ids}
    assert await model.with_variants(old - now) == []


@examples
@given(history=histories(), chance=st.randoms(use_true_random=False))
async def test_it_is_what_the_documents_are_in_whatever_order_their_revisions_come(
    empty: Empty, history: list[Product], chance: Random
) -> None:
    await put(model := await empty(), history)
    await check(model, history)
    shuffled = [*history, *history[::2]]
    chance.shuffle(shuffled)
    await put(model := await empty(), shuffled)
    await check(model, history)


@examples
@given(history=histories(), wanted=filters(), size=st.integers(1, 4))
async def test_a_list_has_what_a_look_at_every_product_finds(
    empty: Empty, history: list[Product], wanted: Filters, size: int
) -> None:
    await put(model := await empty(), history)
    assert await walk(model, wanted, size) == ids(
        product for product in on_sale(history) if passes(product, wanted)
    )


@examples
@given(history=histories(), size=st.integers(1, 10))
async def test_many_at_once_are_as_one_after_the_other(
    empty: Empty, history: list[Product], size: int
) -> None:
    model = await empty()
    for start in range(0, len(history), size):
        products = history[start : start + size]
        last = {product.product_id: product for product in products}
        await model.put([listing(product) for product in last.values()])
    await check(model, history)


def a_product(*prices: str, **details: Any) -> Product:
    drafts = [VariantDraft(None, str(at), Money(Decimal(price), "USD")) for at, price in enumerate(prices)]
    return Product.create(Details(**{"name": "Lamp", "category": "home", **details}), drafts, NOW)


@pytest.fixture
async def model(empty: Empty) -> ports.ReadModel[bytes]:
    """An empty read model, of each kind."""
    return await empty()


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        ("5", "5", True),
        ("9", "9", True),
        ("4.99", "5", True),
        ("9", "9.01", True),
        ("5.01", "8.99", False),
        ("0", "4.99", False),
        ("9.01", None, False),
        ("9", None, True),
        (None, "5", True),
        (None, "4.99", False),
    ],
)
async def test_a_variant_must_cost_something_within_both_bounds_which_are_included(
    model: ports.ReadModel[bytes], low: str | None, high: str | None, found: bool
) -> None:
    await put(model, [product := a_product("9", "5")])
    bounds = Filters(min_price=low and Decimal(low), max_price=high and Decimal(high))  # type: ignore[arg-type]
    assert await walk(model, bounds, 1) == [product.product_id] * found


async def test_what_is_free_is_found_without_bounds_and_from_nothing_on(
    model: ports.ReadModel[bytes],
) -> None:
    await put(model, [product := a_product("0")])
    for wanted in (Filters(), Filters(max_price=Decimal(0)), Filters(min_price=Decimal(0))):
        assert await walk(model, wanted, 1) == [product.product_id]


async def test_a_tag_a_brand_and_a_category_of_the_same_name_are_told_apart(
    model: ports.ReadModel[bytes],
) -> None:
    tagged, branded = a_product("1", tags=("lux",)), a_product("1", brand="lux")
    in_part, in_category = a_product("1", subcategory="lux"), a_product("1", category="lux")
    await put(model, [tagged, branded, in_part, in_category])
    for wanted, product in [
        (Filters(tag="lux"), tagged),
        (Filters(brand="lux"), branded),
        (Filters(subcategory="lux"), in_part),
        (Filters(category="lux"), in_category),
    ]:
        assert await walk(model, wanted, 5) == [product.product_id]


async def test_texts_with_signs_that_mean_something_to_the_store_are_kept(
    model: ports.ReadModel[bytes],
) -> None:
    odd = 'a"b\\c,{d} %(e)s \u2603 \U0001f600'
    product = a_product("1", name=odd, category=odd, subcategory=odd, brand=odd, tags=(odd, "NULL", " x "))
    await put(model, [product])
    assert await model.listings([product.product_id]) == {product.product_id: listing(product)}
    assert await walk(model, Filters(odd, odd, odd, odd), 5) == [product.product_id]
    assert await walk(model, Filters(tag="NULL"), 5) == [product.product_id]


async def test_what_no_store_can_hold_is_replaced(model: ports.ReadModel[bytes]) -> None:
    product = a_product("1", name="a\0b", brand="\0")
    await put(model, [product])
    assert await model.listings([product.product_id]) == {product.product_id: listing(product)}


async def test_a_revision_that_was_found_to_be_wrong_counts_for_nothing(
    model: ports.ReadModel[bytes],
) -> None:
    product, other = a_product("1"), a_product("2")
    right = listing(product)
    wrong = replace(right, entry=replace(right.entry, view=b"wrong", revision=right.revision + 5))
    await model.put([wrong, listing(other)])
    await model.put([right])
    await model.put([right], {product.product_id: right.revision})
    assert await model.listings([product.product_id]) == {product.product_id: wrong}, (
        "it is not what was seen"
    )
    await model.put([right], {product.product_id: wrong.revision})
    assert await model.listings([product.product_id]) == {product.product_id: right}
    assert await walk(model, Filters(), 5) == ids([other, product])


async def test_what_has_no_document_is_dropped_if_it_is_as_seen(model: ports.ReadModel[bytes]) -> None:
    product, other = a_product("1", tags=("a",)), a_product("2", tags=("a",))
    await put(model, [product, other])
    await model.drop({product.product_id: 1, new_id(): 1})
    assert len(await model.get([product.product_id])) == 1
    await model.drop({product.product_id: product.revision})
    assert await model.get([product.product_id]) == []
    assert await walk(model, Filters(tag="a"), 5) == [other.product_id]
    assert await model.categories() == [Category("home", 1, ())]
    await put(model, [product])
    assert await model.categories() == [Category("home", 2, ())]


async def test_a_range_of_ids_has_its_lower_bound_outside_and_its_upper_inside(
    model: ports.ReadModel[bytes],
) -> None:
    products = [a_product("1") for _ in range(4)]
    await put(model, products)
    first, second, third, fourth = ids(products)
    for after, upto, expected in (
        (None, second, [first, second]),
        (first, third, [second, third]),
        (third, None, [fourth]),
        (fourth, None, []),
    ):
        assert list(await model.listings_between(after, upto, 9)) == expected
        assert list(await model.listings_between(after, upto, 1)) == expected[:1]


async def test_it_says_in_which_form_it_is_complete(model: ports.ReadModel[bytes]) -> None:
    assert await model.form() == ""
    await model.has_form("one")
    await model.has_form("two")
    assert await model.form() == "two"


async def test_one_has_a_turn_at_a_time_and_goes_on_where_the_last_one_was(
    model: ports.ReadModel[bytes],
) -> None:
    assert await model.take_turn(0) == (None,)
    await model.compared(last := new_id())
    turns = await asyncio.gather(*(model.take_turn(60) for _ in range(3)))
    assert sorted(turns, key=str) == [(last,), None, None]
    assert await model.take_turn(60) is None


async def test_who_is_alone_keeps_others_out(model: ports.ReadModel[bytes]) -> None:
    inside: list[int] = []

    async def enter(number: int) -> None:
        async with model.alone():
            inside.append(number)
            await asyncio.sleep(0.02)
            assert inside[-1] == number

    await asyncio.gather(*map(enter, range(3)))
    with suppress(LookupError):
        async with model.alone():
            raise LookupError
    await asyncio.wait_for(enter(3), 5)


# ------------------------------------------------------------------------------------ PostgreSQL on its own


@pytest.fixture
async def shared(database: Database) -> SharedReadModel:
    model = await Empty(database)()
    assert isinstance(model, SharedReadModel)
    return model


@pytest.mark.stack
async def test_writers_at_the_same_moment_count_each_product_once(shared: SharedReadModel) -> None:
    products = [a_product("1", category=f"shelf {number % 3}") for number in range(12)]
    history = list(products)
    for _ in range(5):
        for at, product in enumerate(products):
            moved = replace(product.details, category=f"shelf {(len(history) + at) % 3}")
            newer = replace(product, version=product.version + 1, details=moved)
            products[at] = newer
            history.append(newer)
    chance = Random(3)
    writes = []
    for _ in range(40):
        some = {product.product_id: product for product in chance.sample(history, 8)}
        writes.append(shared.put([listing(product) for product in some.values()]))
    await asyncio.gather(*writes, *(shared.put([listing(product)]) for product in history))
    await check(shared, history)


@pytest.fixture
async def told(shared: SharedReadModel) -> AsyncIterator[list[UUID | None]]:
    """What a process is told of: products, or None if it may be anything."""
    changes: list[UUID | None] = []
    following = asyncio.create_task(shared.follow(changes.append, lambda: changes.append(None)))
    await eventually(lambda: changes == [None])
    changes.clear()
    yield changes
    following.cancel()


@pytest.mark.stack
async def test_every_change_is_told_and_nothing_else(
    shared: SharedReadModel, told: list[UUID | None]
) -> None:
    one, two = a_product("1"), a_product("2")
    await put(shared, [one, one, two])
    gone = replace(one, version=2, deleted_at=NOW)
    await put(shared, [gone, one])
    await shared.drop({two.product_id: two.revision})
    await shared.drop({two.product_id: two.revision})
    expected = [one.product_id, two.product_id, one.product_id, two.product_id]
    await eventually(lambda: told == expected)


@pytest.mark.stack
async def test_of_very_many_changes_is_told_that_there_were_many(
    shared: SharedReadModel, told: list[UUID | None]
) -> None:
    await shared.put([listing(a_product("1")) for _ in range(101)])
    await eventually(lambda: told == [None])


@pytest.mark.stack
async def test_a_product_costs_one_statement_to_read(shared: SharedReadModel, database: Database) -> None:
    product = a_product("1", tags=("a",))
    await put(shared, [product])
    reads: list[Callable[[], Any]] = [
        lambda: shared.get([product.product_id]),
        lambda: shared.with_variants([product.variants[0].variant_id]),
        lambda: shared.page(Filters("home", tag="a", max_price=Decimal(3)), None, 20),
        shared.categories,
    ]
    for read in reads:
        before = database.statements
        assert await read()
        assert database.statements == before + 1
