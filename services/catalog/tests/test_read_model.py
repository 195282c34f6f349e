"""The read model holds what the documents say, in whatever order their versions come."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from stoa_catalog.model import Category, Details, Filters, Product, VariantDraft
from stoa_catalog.read_model import Listing, ReadModel
from stoa_contracts.money import Money

NOW = datetime(2026, 11, 24, tzinfo=UTC)

_names = st.sampled_from(["", "a", "b", "c"])
_details = st.builds(
    Details,
    name=st.text(max_size=3),
    category=st.sampled_from(["home", "garden", "a"]),
    subcategory=_names,
    brand=_names,
    tags=st.lists(st.sampled_from(["a", "b", "new"]), unique=True).map(tuple),
)
_prices = st.integers(1, 12).map(lambda cents: Decimal(cents) / 100)
_variants = st.lists(_prices, min_size=1, max_size=3)
_step = st.tuples(st.integers(0, 5), _details, _variants, st.booleans())
_bounds = st.none() | _prices


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


def model_of(versions: Iterable[Product]) -> ReadModel[Product]:
    """A model that was given these versions of products, in this order."""
    model = ReadModel[Product]()
    for product in versions:
        if product.deleted_at is None:
            model.put(Listing.of(product, product))
        else:
            model.take_off(product.product_id, product.version)
    return model


def on_sale(versions: Iterable[Product]) -> list[Product]:
    """The documents that all these changes leave, newest first."""
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


def walk(model: ReadModel[Product], wanted: Filters, size: int) -> list[Product]:
    """All pages of a list."""
    seen: list[Product] = []
    before: UUID | None = None
    while page := model.page(wanted, before, size):
        assert len(page) <= size
        seen += [listing.view for listing in page]
        before = page[-1].product_id
    return seen


def shelves(products: Sequence[Product]) -> list[Category]:
    names = sorted({product.details.category for product in products})
    found = []
    for name in names:
        parts = [product.details.subcategory for product in products if product.details.category == name]
        found.append(Category(name, len(parts), tuple(sorted(set(parts) - {""}))))
    return found


@given(histories(), st.randoms(use_true_random=False))
def test_the_model_is_what_the_documents_are_in_whatever_order_their_versions_come(
    history: list[Product], chance: Random
) -> None:
    shuffled = [*history, *history[::2]]
    chance.shuffle(shuffled)
    expected = on_sale(history)
    in_order, in_disorder = model_of(history), model_of(shuffled)
    for model in (in_order, in_disorder):
        assert walk(model, Filters(), 2) == expected
        assert model.categories() == shelves(expected)
        assert len(model) == len(expected)
        for product in expected:
            assert model.get(product.product_id) == Listing.of(product, product)
            for variant in product.variants:
                assert model.with_variant(variant.variant_id) == model.get(product.product_id)
    assert in_order.differences(in_disorder) == []
    assert in_order.differences(model_of(on_sale(history))) == []
    gone = {product.product_id for product in history} - {product.product_id for product in expected}
    assert all(in_disorder.is_gone(product_id) for product_id in gone)
    old_variants = {variant.variant_id for product in history for variant in product.variants}
    new_variants = {variant.variant_id for product in expected for variant in product.variants}
    assert not any(in_disorder.with_variant(variant) for variant in old_variants - new_variants)


@given(histories(), filters(), st.integers(1, 4))
def test_a_list_has_what_a_look_at_every_product_finds(
    history: list[Product], wanted: Filters, size: int
) -> None:
    expected = [product for product in on_sale(history) if passes(product, wanted)]
    assert walk(model_of(history), wanted, size) == expected


@given(histories())
def test_nothing_is_left_of_what_is_forgotten(history: list[Product]) -> None:
    model = model_of(product for product in history if product.deleted_at is None)
    for product in history:
        model.forget(product.product_id)
    assert model.categories() == []
    assert walk(model, Filters(), 10) == []
    assert vars(model) == vars(ReadModel[Product]()) | {"_categories": []}
