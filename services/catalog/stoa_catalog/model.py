"""Products and the variants that are sold: what staff may make of them, and the events of it.

A product is one aggregate with a version that grows with every change. The version is the etag that a writer
must have read, and it travels in the events, so that whoever copies a product can tell an older state from a
newer one.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

from stoa_chassis.errors import Aborted, AlreadyExists, FieldViolation, InvalidArgument, NotFound
from stoa_chassis.ids import new_id
from stoa_contracts.money import Money
from stoa_events import (
    ProductCreated,
    ProductDeleted,
    ProductRated,
    ProductUpdated,
    ProductVariant,
)

# The bits of a revision that count what changes of a product without a new version of it.
REVISION_BITS = 32

# What all texts of a product may take, in bytes: its events carry them, and a broker takes a megabyte.
MAX_TEXT = 500_000


class ProductNotFound(NotFound):
    """There is no such product, or it was taken off sale."""

    reason = "PRODUCT_NOT_FOUND"


class EtagMismatch(Aborted):
    """Somebody changed the product since the writer read it."""

    reason = "ETAG_MISMATCH"


class SkuTaken(AlreadyExists):
    """A SKU belongs to a variant of another product already."""

    reason = "SKU_TAKEN"

    @classmethod
    def at(cls, positions: Iterable[int]) -> Self:
        """Make the error for the variants at these positions of the request."""
        return cls(
            "a SKU belongs to another product",
            violations=[FieldViolation(_path(at, "sku"), "belongs to another product") for at in positions],
        )


@dataclass(frozen=True, slots=True)
class Details:
    """What staff says of a product and all its variants share."""

    name: str
    category: str
    description: str = ""
    subcategory: str = ""
    brand: str = ""
    tags: tuple[str, ...] = ()
    specifications: Mapping[str, str] = field(default_factory=dict)


def sku_key(sku: str) -> str:
    """Return what makes a SKU unique: it is the same however it is capitalised.

    One that was stored before texts were put in order is the same as it is now.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", sku).strip().casefold())


@dataclass(frozen=True, slots=True)
class Variant:
    """The sellable unit. What nobody has weighed has a weight of 0."""

    variant_id: UUID
    sku: str
    price: Money
    attributes: Mapping[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    weight_grams: int = 0


@dataclass(frozen=True, slots=True)
class VariantDraft:
    """What staff says of a variant; one without an id is new."""

    variant_id: UUID | None
    sku: str
    price: Money
    attributes: Mapping[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    weight_grams: int = 0

    def describes(self, variant: Variant) -> bool:
        """Tell whether the variant is already what is asked."""
        return self.as_variant(variant.variant_id) == variant

    def as_variant(self, new: UUID | None = None) -> Variant:
        """Return the variant, with an id of its own if the draft has none."""
        return Variant(
            self.variant_id or new or new_id(),
            self.sku,
            self.price,
            dict(self.attributes),
            self.images,
            self.weight_grams,
        )


def check_currency(variants: Sequence[VariantDraft], currency: str) -> None:
    """Refuse prices in another currency than the shop sells in. Raises InvalidArgument."""
    violations = [
        FieldViolation(_path(at, "price"), f"must be in {currency}")
        for at, variant in enumerate(variants)
        if variant.price.currency != currency
    ]
    if violations:
        raise InvalidArgument.of(violations)


@dataclass(frozen=True, slots=True)
class Rating:
    """What buyers think: the mean of all ratings (1 to 5; 0 without any) and how many there are.

    `version` grows with every change of it.
    """

    average: float = 0.0
    count: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A variant of a product that was taken off sale, and what that was called."""

    product_id: UUID
    product_name: str
    variant_id: UUID


@dataclass(slots=True)
class Product:
    """A product, as it is now; `events` are its changes that are not published yet."""

    product_id: UUID
    version: int
    details: Details
    variants: tuple[Variant, ...]
    created_at: datetime
    updated_at: datetime
    rating: Rating = Rating()
    deleted_at: datetime | None = None
    events: list[ProductCreated | ProductUpdated | ProductDeleted | ProductRated] = field(
        default_factory=list
    )

    @classmethod
    def create(cls, details: Details, drafts: Sequence[VariantDraft], now: datetime) -> Self:
        """Add a product. Raises InvalidArgument naming the variant that can't be."""
        _check(details, drafts, known=frozenset())
        variants = tuple(draft.as_variant() for draft in drafts)
        product = cls(new_id(), 1, details, variants, created_at=now, updated_at=now)
        product.events.append(product._created())
        return product

    @property
    def etag(self) -> str:
        """The name of this version."""
        return str(self.version)

    @property
    def revision(self) -> int:
        """A number that grows with whatever changes: of two revisions the higher is the later."""
        return (self.version << REVISION_BITS) + self.rating.version

    def update(self, details: Details, drafts: Sequence[VariantDraft], etag: str, now: datetime) -> None:
        """Become what is asked. A variant keeps its id when its draft has it, or has none and the same SKU.

        The others are new or gone.

        Nothing happens if the product is that already, whatever the etag: so an update whose answer got lost
        can be sent again.

        Raises EtagMismatch, ProductNotFound after a deletion, InvalidArgument naming the variant.
        """
        if self.deleted_at is not None:
            raise ProductNotFound(f"product {self.product_id} not found")
        if self._is(details, drafts):
            return
        if etag != self.etag:
            raise EtagMismatch(
                "the product was changed since you read it", metadata={"product_id": str(self.product_id)}
            )
        _check(details, drafts, known={variant.variant_id for variant in self.variants})
        self.details = details
        self.variants = tuple(draft.as_variant(known) for draft, known in self._known(drafts))
        self._changed(now)
        self.events.append(self._updated())

    def delete(self, now: datetime) -> None:
        """Take the product off sale; again is fine."""
        if self.deleted_at is not None:
            return
        self.deleted_at = now
        self._changed(now)
        self.events.append(
            ProductDeleted(
                product_id=self.product_id,
                version=self.version,
                variant_ids=tuple(variant.variant_id for variant in self.variants),
            )
        )

    def rate(self, total: int, count: int, version: int) -> None:
        """Take over what buyers think: the sum of their ratings, and how many, as of a version.

        Nothing happens if something as late is known. It makes no new version of the product: staff does not
        have to read it again.
        """
        if version <= self.rating.version:
            return
        self.rating = Rating(total / count if count else 0.0, count, version)
        self.events.append(
            ProductRated(
                product_id=self.product_id, average=self.rating.average, count=count, version=version
            )
        )

    def _is(self, details: Details, drafts: Sequence[VariantDraft]) -> bool:
        return (
            details == self.details
            and len(drafts) == len(self.variants)
            and all(draft.describes(variant) for draft, variant in zip(drafts, self.variants, strict=True))
        )

    def _known(self, drafts: Sequence[VariantDraft]) -> Iterator[tuple[VariantDraft, UUID | None]]:
        """Yield each draft with the id of the variant that has its SKU, unless another draft has that id.

        Who sends a product without the ids, as it was created, means the same things: what orders, carts and
        the warehouse know them by must not change.
        """
        by_sku = {sku_key(variant.sku): variant.variant_id for variant in self.variants}
        claimed = {draft.variant_id for draft in drafts}
        for draft in drafts:
            known = by_sku.get(sku_key(draft.sku))
            yield draft, None if known in claimed else known

    def _changed(self, now: datetime) -> None:
        self.version += 1
        self.updated_at = max(now, self.updated_at)

    def _created(self) -> ProductCreated:
        variants = tuple(ProductVariant(**_facts(variant)) for variant in self.variants)
        return ProductCreated(**self._facts(), variants=variants)

    def _updated(self) -> ProductUpdated:
        variants = tuple(ProductVariant(**_facts(variant)) for variant in self.variants)
        return ProductUpdated(**self._facts(), variants=variants)

    def _facts(self) -> dict[str, Any]:
        """What both events say of a product."""
        return {
            "product_id": self.product_id,
            "version": self.version,
            "name": self.details.name,
            "description": self.details.description,
            "category": self.details.category,
            "subcategory": self.details.subcategory,
            "brand": self.details.brand,
            "tags": self.details.tags,
            "specifications": self.details.specifications,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }


@dataclass(frozen=True, slots=True)
class Category:
    """A shelf: how many products it holds and what its parts are called."""

    name: str
    product_count: int
    subcategories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Filters:
    """What narrows a list of products. One variant must cost something within both bounds.

    Raises InvalidArgument if no price can be within the bounds.
    """

    category: str = ""
    subcategory: str = ""
    brand: str = ""
    tag: str = ""
    min_price: Decimal | None = None
    max_price: Decimal | None = None

    def __post_init__(self) -> None:
        if self.min_price is not None and self.max_price is not None and self.min_price > self.max_price:
            raise InvalidArgument("min_price", "must not be more than max_price")


def _check(details: Details, drafts: Sequence[VariantDraft], known: Iterable[UUID]) -> None:
    """Refuse variants whose ids are not of this product or appear twice, SKUs that do, and too much text."""
    violations: list[FieldViolation] = []
    free_ids, skus = set(known), set[str]()
    for at, draft in enumerate(drafts):
        if draft.variant_id is not None and draft.variant_id not in free_ids:
            violations.append(
                FieldViolation(_path(at, "variant_id"), "is not a variant of this product, or is there twice")
            )
        if draft.variant_id is not None:
            free_ids.discard(draft.variant_id)
        key = sku_key(draft.sku)
        if key in skus:
            violations.append(FieldViolation(_path(at, "sku"), "is there twice"))
        skus.add(key)
    if sum(len(text.encode()) for text in _texts(details, drafts)) > MAX_TEXT:
        violations.append(FieldViolation("product", f"must not hold more than {MAX_TEXT:,} bytes of text"))
    if violations:
        raise InvalidArgument.of(violations)


def _texts(details: Details, drafts: Sequence[VariantDraft]) -> Iterator[str]:
    yield from (details.name, details.description, details.category, details.subcategory, details.brand)
    yield from details.tags
    for pairs in (details.specifications, *(draft.attributes for draft in drafts)):
        yield from pairs.keys()
        yield from pairs.values()
    for draft in drafts:
        yield draft.sku
        yield from draft.images


def _facts(variant: Variant) -> dict[str, Any]:
    return {
        "variant_id": variant.variant_id,
        "sku": variant.sku,
        "attributes": variant.attributes,
        "price": variant.price,
        "images": variant.images,
        "weight_grams": variant.weight_grams,
    }


def _path(position: int, name: str) -> str:
    return f"product.variants[{position}].{name}"
