"""What can be found: entries of the index, what changes them, and what somebody looks for.

An entry is put together from three sources that know nothing of each other: the catalogue says what a
product is, its ratings what buyers think, the warehouse of each variant whether it can be bought. Each says
so in events with a version of its own, which may come late, twice, or in any order. So an entry keeps the
version of each source, and a change counts only if its version is a later one: applied in whatever order,
and however often, the same changes make the same entry. What was deleted stays as a tombstone, its version,
so that a late event does not bring it back.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from stoa_chassis.errors import InvalidArgument, Unavailable
from stoa_contracts.money import Money


class IndexMissing(Unavailable):
    """There is no index yet, or not any more; it is being made."""

    reason = "INDEX_MISSING"


@dataclass(frozen=True, slots=True)
class Variant:
    """The sellable unit, as the catalogue has it."""

    variant_id: UUID
    sku: str
    price: Money
    attributes: Mapping[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()

    @property
    def pairs(self) -> list[str]:
        """Its attributes as a filter has them: `color:blue`. No name that is new has a colon."""
        return [f"{name}:{value}" for name, value in self.attributes.items()]


@dataclass(frozen=True, slots=True)
class Details:
    """What the catalogue says of a product on sale."""

    name: str
    category: str
    variants: tuple[Variant, ...]
    created_at: datetime
    description: str = ""
    subcategory: str = ""
    brand: str = ""
    tags: tuple[str, ...] = ()
    specifications: Mapping[str, str] = field(default_factory=dict)

    @property
    def image(self) -> str:
        """The first image of its variants, "" if they have none."""
        return next((image for variant in self.variants for image in variant.images), "")


@dataclass(frozen=True, slots=True)
class Rating:
    """What buyers think: the mean of all ratings (1 to 5; 0 without any) and how many there are."""

    average: float = 0.0
    count: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a variant can be bought."""

    in_stock: bool
    version: int


@dataclass(slots=True)
class Entry:
    """A product in the index; without `details` it is not on sale, or nothing is known of it yet."""

    product_id: UUID
    version: int = 0
    """Of the details, or of the deletion."""
    details: Details | None = None
    rating: Rating = Rating()
    availability: dict[UUID, Availability] = field(default_factory=dict)
    """By variant, also of variants that the details don't have (any more)."""

    def is_in_stock(self, variant_id: UUID) -> bool:
        """Tell whether a variant can be bought; one of which nothing was heard can't."""
        known = self.availability.get(variant_id)
        return known is not None and known.in_stock

    @property
    def in_stock(self) -> bool:
        """Whether any variant can be bought."""
        return self.details is not None and any(
            self.is_in_stock(variant.variant_id) for variant in self.details.variants
        )

    @property
    def price_from(self) -> Money | None:
        """What the cheapest variant costs."""
        return min(variant.price for variant in self.details.variants) if self.details else None


class Change(Protocol):
    """Something that a source says of a product."""

    def apply(self, entry: Entry) -> bool:
        """Change the entry, unless it has this or a later version; tell whether it was changed."""
        ...


@dataclass(frozen=True, slots=True)
class Described:
    """The catalogue says what a product is, or with no details that it was taken off sale."""

    version: int
    details: Details | None

    def apply(self, entry: Entry) -> bool:
        """Change the entry, unless it has this or a later version; tell whether it was changed."""
        if self.version <= entry.version:
            return False
        entry.version, entry.details = self.version, self.details
        return True


@dataclass(frozen=True, slots=True)
class Rated:
    """Buyers think otherwise of a product."""

    rating: Rating

    def apply(self, entry: Entry) -> bool:
        """Change the entry, unless it has this or a later version; tell whether it was changed."""
        if self.rating.version <= entry.rating.version:
            return False
        entry.rating = self.rating
        return True


@dataclass(frozen=True, slots=True)
class Available:
    """A variant can be bought, or can't be any more."""

    variant_id: UUID
    availability: Availability

    def apply(self, entry: Entry) -> bool:
        """Change the entry, unless it has this or a later version; tell whether it was changed."""
        known = entry.availability.get(self.variant_id)
        if known is not None and self.availability.version <= known.version:
            return False
        entry.availability[self.variant_id] = self.availability
        return True


# ----------------------------------------------------------------------------------------------- searches


class Sort(StrEnum):
    """In which order products are found; those that are equal in it come in that of their ids."""

    RELEVANCE = "relevance"
    PRICE_ASC = "price_asc"
    PRICE_DESC = "price_desc"
    NEWEST = "newest"
    RATING = "rating"


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What somebody looks for.

    Price, stock and attributes are those of one variant; of the values of an attribute any will do. Raises
    InvalidArgument if no price can be within the bounds.
    """

    words: str = ""
    category: str = ""
    subcategory: str = ""
    brand: str = ""
    tag: str = ""
    min_price: Decimal | None = None
    max_price: Decimal | None = None
    min_rating: float = 0.0
    in_stock: bool = False
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cheapest_first: bool = False
    """Among those that match the words about as well."""
    sort: Sort = Sort.RELEVANCE

    def __post_init__(self) -> None:
        if self.min_price is not None and self.max_price is not None and self.min_price > self.max_price:
            raise InvalidArgument("min_price", "must not be more than max_price")


@dataclass(frozen=True, slots=True)
class PriceWords:
    """What is left of a query without the words about prices, and what those say."""

    words: str
    min_price: Decimal | None = None
    max_price: Decimal | None = None
    cheapest_first: bool = False


_CURRENCY = r"(?:[$€£]|(?:usd|eur|gbp|dollars?|euros?|pounds?|bucks)\b)"
# Not if it goes on, or if it is a measure: `under 30 cm`.
_AMOUNT = (
    rf"(?:{_CURRENCY}\s*)?(\d{{1,9}}(?:[.,]\d{{1,2}})?)(?:\s*{_CURRENCY})?"
    r"(?![\w.,]*\d|\s*(?:cm|mm|m|ml|l|g|kg|w|inch)\b)"
)
_BETWEEN = re.compile(rf"\b(?:between|from)\s+{_AMOUNT}\s+(?:and|to)\s+{_AMOUNT}", re.IGNORECASE)
_AT_MOST = re.compile(
    rf"\b(?:under|below|less than|cheaper than|up to|at most|max(?:imum)?|no more than|<)\s*{_AMOUNT}",
    re.IGNORECASE,
)
_AT_LEAST = re.compile(rf"\b(?:over|above|more than|at least|min(?:imum)?|from|>)\s*{_AMOUNT}", re.IGNORECASE)
_CHEAP = re.compile(r"\b(?:cheap|cheapest|inexpensive|affordable|budget|low[- ]priced?)\b", re.IGNORECASE)


def price_words(query: str) -> PriceWords:
    """Understand what a query says of prices: `lamp under 30`, `between 20 and 50 euros`, `cheap chair`."""
    least = most = None
    if between := _BETWEEN.search(query):
        least, most = sorted(map(_amount, between.groups()))
        query = _without(query, between)
    if at_most := _AT_MOST.search(query):
        most, query = _amount(at_most.group(1)), _without(query, at_most)
    if at_least := _AT_LEAST.search(query):
        least, query = _amount(at_least.group(1)), _without(query, at_least)
    if least is not None and most is not None and least > most:
        least = most = None
    words, cheap = _CHEAP.subn(" ", query)
    if cheap and not words.strip():
        words = query  # a word of a name, perhaps
    return PriceWords(" ".join(words.split()), least, most, bool(cheap))


def _amount(text: str) -> Decimal:
    return Decimal(text.replace(",", "."))


def _without(text: str, part: re.Match[str]) -> str:
    return f"{text[: part.start()]} {text[part.end() :]}"


@dataclass(frozen=True, slots=True)
class Hit:
    """A product that was found."""

    product_id: UUID
    name: str
    brand: str
    category: str
    price_from: Money
    rating: Rating
    image: str
    in_stock: bool
    score: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """A value of a field, and how many products have it."""

    value: str
    count: int


@dataclass(frozen=True, slots=True)
class Facet:
    """The values of a field by which what was found can be narrowed further."""

    field: str
    buckets: tuple[Bucket, ...]


# Of whole prices, from and below; the last has no end.
PRICE_STEPS = (0, 10, 25, 50, 100, 250, 500, 1000)
RATING_STEPS = (4, 3, 2, 1)


def price_range(start: int) -> str:
    """Name the range of prices that begins at one of the steps: "10-25", "1000-"."""
    later = [step for step in PRICE_STEPS if step > start]
    return f"{start}-{later[0]}" if later else f"{start}-"


@dataclass(frozen=True, slots=True)
class Found:
    """Some of the products that were found, how many there are in all, and what they can be narrowed by.

    `places` say of each hit where a search goes on after it.
    """

    hits: Sequence[Hit]
    places: Sequence[Mapping[str, object]]
    total_size: int
    facets: Sequence[Facet] = ()


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What somebody may be about to type: a category, or a product."""

    text: str
    product_id: UUID | None = None
