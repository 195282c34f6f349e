"""What staff may make of a product, and what others are told of it."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_catalog.model import (
    MAX_TEXT,
    Details,
    EtagMismatch,
    Filters,
    Product,
    ProductNotFound,
    Rating,
    SkuTaken,
    Variant,
    VariantDraft,
    check_currency,
    sku_key,
)
from stoa_chassis.errors import Code, InvalidArgument
from stoa_chassis.ids import new_id
from stoa_contracts.money import Money
from stoa_events import ProductCreated, ProductDeleted, ProductRated, ProductUpdated, ProductVariant

from .conftest import a_full_product, as_drafts

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
LAMP = Details("Lamp", "home", brand="Lux", tags=("light",), specifications={"socket": "E27"})


def usd(amount: str) -> Money:
    return Money(Decimal(amount), "USD")


def draft(sku: str, price: str | Money = "19.90", **changes: Any) -> VariantDraft:
    price = usd(price) if isinstance(price, str) else price
    return VariantDraft(**{"variant_id": None, "sku": sku, "price": price, **changes})


def lamp(*skus: str) -> Product:
    product = Product.create(LAMP, [draft(sku) for sku in skus or ("L-1", "L-2")], NOW)
    product.events.clear()
    return product


def named(error: pytest.ExceptionInfo[InvalidArgument]) -> list[str]:
    return [violation.field for violation in error.value.violations]


def told(product: Product) -> dict[str, object]:
    """What the events of a new or changed product must carry: all but its rating, which is apart."""
    details = product.details
    facts: dict[str, object] = {
        "product_id": product.product_id,
        "version": product.version,
        "name": details.name,
        "description": details.description,
        "category": details.category,
        "subcategory": details.subcategory,
        "brand": details.brand,
        "tags": details.tags,
        "variants": tuple(
            ProductVariant(
                variant_id=variant.variant_id,
                sku=variant.sku,
                attributes=variant.attributes,
                price=variant.price,
                images=variant.images,
                weight_grams=variant.weight_grams,
            )
            for variant in product.variants
        ),
        "specifications": details.specifications,
        "created_at": product.created_at,
        "updated_at": product.updated_at,
    }
    assert all(facts.values())
    return facts


def fields_of(event: ProductCreated | ProductUpdated | ProductVariant) -> dict[str, object]:
    return {field.name: getattr(event, field.name) for field in fields(event)}


def test_a_product_is_published_with_all_that_is_known_of_it() -> None:
    asked = a_full_product()
    product = Product.create(
        asked.details, [replace(each, variant_id=None) for each in as_drafts(asked)], NOW
    )
    (created,) = product.events
    assert isinstance(created, ProductCreated)
    assert fields_of(created) == told(product)
    assert all(all(fields_of(variant).values()) for variant in created.variants)
    product.update(replace(asked.details, name="New"), as_drafts(product), "1", LATER)
    (_, updated) = product.events
    assert isinstance(updated, ProductUpdated)
    assert fields_of(updated) == told(product)


def test_a_new_product_gives_its_variants_their_ids() -> None:
    with pytest.raises(InvalidArgument) as refused:
        Product.create(LAMP, [draft("L-1"), draft("L-2", variant_id=new_id())], NOW)
    assert named(refused) == ["product.variants[1].variant_id"]


def test_a_sku_is_not_given_twice() -> None:
    with pytest.raises(InvalidArgument) as refused:
        Product.create(LAMP, [draft("L-1"), draft("L-2"), draft("L-1"), draft("l-2")], NOW)
    assert named(refused) == ["product.variants[2].sku", "product.variants[3].sku"]


@pytest.mark.parametrize("again", ["l-Ö", "L-O\u0308", " l-o\u0308"])
def test_a_sku_is_the_same_however_its_letters_are_capitalised_and_composed(again: str) -> None:
    assert sku_key(again) == sku_key("L-Ö")


def test_a_letter_whose_small_form_is_composed_otherwise_makes_no_other_sku() -> None:
    assert sku_key("\u0390") == sku_key("\u03aa\u0301")


def test_a_product_too_big_for_its_events_is_refused() -> None:
    images = tuple("x" * 500 for _ in range(20))
    with pytest.raises(InvalidArgument, match=f"more than {MAX_TEXT:,} bytes") as refused:
        Product.create(LAMP, [draft(str(number), images=images) for number in range(100)], NOW)
    assert named(refused) == ["product"]


@pytest.mark.parametrize(
    "where", ["name", "description", "category", "subcategory", "brand", "tags", "specifications"]
)
def test_every_text_of_a_product_counts_and_as_much_as_may_be_is_taken(where: str) -> None:
    def with_text(size: int) -> Details:
        text = "é" * (size // 2) + "x" * (size % 2)  # two bytes each
        value: Any = {"tags": (text,), "specifications": {text[:5]: text[5:]}}.get(where, text)
        return replace(Details("", ""), **{where: value})

    assert Product.create(with_text(MAX_TEXT), [draft("")], NOW)
    with pytest.raises(InvalidArgument):
        Product.create(with_text(MAX_TEXT + 1), [draft("")], NOW)


@pytest.mark.parametrize("where", ["sku", "attributes", "images"])
def test_every_text_of_every_variant_counts(where: str) -> None:
    def with_text(size: int) -> VariantDraft:
        text = "x" * size
        value: Any = {"attributes": {text[:5]: text[5:]}, "images": (text[:5], text[5:])}.get(where, text)
        return replace(draft(""), **{where: value})

    def product_of(size: int) -> Product:
        return Product.create(Details("", ""), [draft("1"), with_text(size)], NOW)

    assert product_of(MAX_TEXT - 1)
    with pytest.raises(InvalidArgument):
        product_of(MAX_TEXT)


def test_an_update_keeps_the_variants_whose_ids_it_has_and_gives_the_others_new_ones() -> None:
    product = lamp("L-1", "L-2")
    kept = product.variants[1]
    product.update(LAMP, [draft("L-3"), draft("L-2", "25", variant_id=kept.variant_id)], "1", LATER)
    assert [variant.sku for variant in product.variants] == ["L-3", "L-2"]
    assert product.variants[1] == Variant(kept.variant_id, "L-2", usd("25"))
    assert product.variants[0].variant_id not in {variant.variant_id for variant in lamp().variants}
    assert (product.etag, product.updated_at, product.created_at) == ("2", LATER, NOW)
    (event,) = product.events
    assert isinstance(event, ProductUpdated)
    assert (event.version, [variant.sku for variant in event.variants]) == (2, ["L-3", "L-2"])


def test_a_variant_that_is_sent_without_its_id_is_known_by_its_sku() -> None:
    product = lamp("L-1", "L-2")
    first, second = (variant.variant_id for variant in product.variants)
    product.update(LAMP, [draft("l-2", "25"), draft("L-3"), draft("L-1")], "1", LATER)
    assert [variant.sku for variant in product.variants] == ["l-2", "L-3", "L-1"]
    ids = [variant.variant_id for variant in product.variants]
    assert (ids[0], ids[2]) == (second, first)
    assert ids[1] not in (first, second)


def test_a_sku_that_passes_to_another_variant_does_not_take_its_id_along() -> None:
    product = lamp("L-1", "L-2")
    first, second = (variant.variant_id for variant in product.variants)
    product.update(LAMP, [draft("L-2", variant_id=first), draft("L-1", variant_id=second)], "1", LATER)
    assert [(each.variant_id, each.sku) for each in product.variants] == [(first, "L-2"), (second, "L-1")]
    product.update(LAMP, [draft("L-3", variant_id=first), draft("L-2")], "2", LATER)
    assert product.variants[0].variant_id == first
    assert product.variants[1].variant_id not in (first, second)


def test_an_update_of_a_version_that_is_not_the_latest_is_refused() -> None:
    product = lamp()
    product.update(Details("Better lamp", "home"), as_drafts(product), "1", LATER)
    with pytest.raises(EtagMismatch):
        product.update(Details("Other lamp", "home"), as_drafts(product), "1", LATER)
    assert product.details.name == "Better lamp"


def test_an_update_can_be_sent_again_when_its_answer_got_lost() -> None:
    product = lamp("L-1")
    asked = [*as_drafts(product), draft("L-2")]
    product.update(LAMP, asked, "1", LATER)
    variants = product.variants
    product.update(LAMP, asked, "1", LATER + timedelta(minutes=1))
    assert (product.version, product.variants, product.updated_at) == (2, variants, LATER)
    assert len(product.events) == 1


def test_an_update_names_each_variant_that_is_not_of_the_product() -> None:
    product = lamp()
    first = product.variants[0].variant_id
    asked = [
        draft("L-1", variant_id=first),
        draft("L-2", variant_id=first),
        draft("L-3", variant_id=new_id()),
        draft("L-4"),
    ]
    with pytest.raises(InvalidArgument) as refused:
        product.update(LAMP, asked, "1", LATER)
    assert named(refused) == ["product.variants[1].variant_id", "product.variants[2].variant_id"]
    assert product.version == 1


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize(
    "change",
    [
        {"sku": "other"},
        {"price": usd("21.00")},
        {"attributes": {"color": "red"}},
        {"images": ("https://stoa.example/1.jpg",)},
        {"weight_grams": 250},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_update_of_one_of_several_variants_is_made(at: int, change: dict[str, Any]) -> None:
    product = lamp("L-1", "L-2", "L-3")
    before, asked = product.variants, as_drafts(product)
    asked[at] = replace(asked[at], **change)
    product.update(LAMP, asked, "1", LATER)
    assert product.version == 2
    assert product.variants == (*before[:at], replace(before[at], **change), *before[at + 1 :])
    assert len(product.events) == 1


def test_an_update_of_the_details_alone_or_of_the_number_of_variants_is_made() -> None:
    product = lamp("L-1", "L-2")
    product.update(replace(LAMP, brand="Other"), as_drafts(product), "1", LATER)
    assert (product.version, product.details.brand) == (2, "Other")
    product.update(product.details, as_drafts(product)[:1], "2", LATER)
    assert (product.version, [variant.sku for variant in product.variants]) == (3, ["L-1"])


def test_an_update_never_sets_the_time_of_the_last_change_back() -> None:
    product = lamp("L-1")
    product.update(LAMP, [draft("L-2")], "1", LATER)
    product.update(LAMP, [draft("L-3")], "2", NOW)
    assert (product.version, product.updated_at) == (3, LATER)


def test_two_variants_may_swap_their_skus() -> None:
    product = lamp("L-1", "L-2")
    one, two = as_drafts(product)
    product.update(
        LAMP,
        [draft("L-2", variant_id=one.variant_id), draft("L-1", variant_id=two.variant_id)],
        "1",
        LATER,
    )
    assert [variant.sku for variant in product.variants] == ["L-2", "L-1"]


def test_a_deletion_is_published_once_and_a_deleted_product_cannot_be_changed() -> None:
    product = lamp()
    ids = tuple(variant.variant_id for variant in product.variants)
    product.delete(LATER)
    product.delete(LATER + timedelta(hours=1))
    assert product.events == [ProductDeleted(product_id=product.product_id, version=2, variant_ids=ids)]
    assert product.deleted_at == LATER
    with pytest.raises(ProductNotFound):
        product.update(LAMP, as_drafts(product), "2", LATER)


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.booleans()), min_size=1, max_size=6))
def test_each_change_makes_one_version_and_one_event(changes: list[tuple[str, bool]]) -> None:
    product = lamp("A")
    for name, keep in changes:
        before = product.version
        drafts = as_drafts(product) if keep else [draft(name)]
        product.update(Details(name, "home"), drafts, product.etag, LATER)
        assert product.version - before in (0, 1)
    versions = [event.version for event in product.events]
    assert versions == list(range(2, product.version + 1))


def test_the_price_of_a_variant_is_in_the_currency_of_the_shop_or_named() -> None:
    euro = Money(Decimal(1), "EUR")
    check_currency([draft("1"), draft("2")], "USD")
    with pytest.raises(InvalidArgument, match="must be in USD") as refused:
        check_currency([draft("1"), draft("2", price=euro), draft("3", price=euro)], "USD")
    assert named(refused) == ["product.variants[1].price", "product.variants[2].price"]


def test_a_sku_of_another_product_is_named_where_it_stands() -> None:
    refused = SkuTaken.at([0, 2])
    assert [violation.field for violation in refused.violations] == [
        "product.variants[0].sku",
        "product.variants[2].sku",
    ]
    assert refused.message == "a SKU belongs to another product"


def test_a_client_is_told_why_by_a_reason() -> None:
    product = lamp()
    with pytest.raises(EtagMismatch) as changed:
        product.update(Details("Other", "home"), as_drafts(product), "7", LATER)
    product.delete(LATER)
    with pytest.raises(ProductNotFound) as gone:
        product.update(LAMP, as_drafts(product), "2", LATER)
    refusals = (changed.value, gone.value, SkuTaken.at([0]))
    assert [(refused.code, refused.reason) for refused in refusals] == [
        (Code.ABORTED, "ETAG_MISMATCH"),
        (Code.NOT_FOUND, "PRODUCT_NOT_FOUND"),
        (Code.ALREADY_EXISTS, "SKU_TAKEN"),
    ]
    assert changed.value.metadata == {"product_id": str(product.product_id)}


def test_bounds_that_no_price_can_meet_are_refused() -> None:
    assert Filters(min_price=Decimal(5), max_price=Decimal(5)).max_price == 5
    with pytest.raises(InvalidArgument) as refused:
        Filters(min_price=Decimal(9), max_price=Decimal(1))
    assert named(refused) == ["min_price"]


def test_a_rating_that_comes_late_or_twice_changes_nothing() -> None:
    for order in permutations([(5, 1, 2), (9, 2, 3), (4, 1, 5), (5, 1, 2)]):
        product = lamp("A")
        for change in order:
            product.rate(*change)
        assert product.rating == Rating(4.0, 1, 5)
        published = [event.version for event in product.events if isinstance(event, ProductRated)]
        assert published == sorted(set(published))
        assert product.version == 1


def test_a_product_whose_last_rating_was_taken_back_has_none() -> None:
    product = lamp("A")
    product.rate(5, 1, 1)
    product.rate(0, 0, 2)
    assert product.rating == Rating(0.0, 0, 2)


def test_a_rating_is_published_as_the_mean_and_makes_a_later_revision_of_the_same_version() -> None:
    product = lamp("A")
    before = product.revision
    product.rate(9, 2, 3)
    assert product.events == [ProductRated(product_id=product.product_id, average=4.5, count=2, version=3)]
    assert product.revision == before + 3 == (1 << 32) + 3


def test_what_staff_leaves_out_is_empty() -> None:
    assert Details("Lamp", "home") == Details("Lamp", "home", "", "", "", (), {})
    price, variant_id = usd("1.00"), new_id()
    assert VariantDraft(None, "A", price) == VariantDraft(None, "A", price, {}, (), 0)
    assert Variant(variant_id, "A", price) == Variant(variant_id, "A", price, {}, (), 0)
    assert lamp("A").rating == Rating(0.0, 0, 0)
    assert Filters() == Filters("", "", "", "", None, None)
