"""The read model of the catalogue: products on sale, in memory, in the form in which readers get them.

What a reader gets of a product is made once per version, not once per request. The order in which versions
come does not matter: an older one never replaces a newer one, nor brings a product back that was taken off
sale. Lists come from an inverted index: for each term (`brand=Lux`) the products that have it, by id.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from operator import attrgetter
from sys import intern
from typing import Generic, Self, TypeVar
from uuid import UUID

from stoa_catalog.model import Category, Filters, Product

V = TypeVar("V")

_BY_ID = attrgetter("product_id")
_LOWEST, _HIGHEST = Decimal(0), Decimal("Infinity")


@dataclass(frozen=True, slots=True)
class Listing(Generic[V]):
    """A version of a product on sale: `view` is what readers get, the rest is what it is found by.

    `version` is the product's revision, `terms` are what lists are narrowed by (`brand=Lux`), `prices` are
    those of its variants, the lowest first.
    """

    product_id: UUID
    version: int
    category: str
    subcategory: str
    terms: frozenset[str]
    prices: tuple[Decimal, ...]
    variant_ids: tuple[UUID, ...]
    view: V

    @classmethod
    def of(cls, product: Product, view: V) -> Self:
        """List a product."""
        details = product.details
        terms = [
            *_terms(details.category, details.subcategory, details.brand),
            *(_term("tag", tag) for tag in details.tags),
        ]
        return cls(
            product.product_id,
            product.revision,
            intern(details.category),
            intern(details.subcategory),
            frozenset(map(intern, terms)),
            tuple(sorted(variant.price.amount for variant in product.variants)),
            tuple(variant.variant_id for variant in product.variants),
            view,
        )

    def costs_within(self, low: Decimal, high: Decimal) -> bool:
        """Tell whether one variant costs at least `low` and at most `high`."""
        at = bisect_left(self.prices, low)
        return at < len(self.prices) and self.prices[at] <= high


class ReadModel(Generic[V]):
    """All listings, and the indexes by which they are found."""

    def __init__(self) -> None:
        self._listings: dict[UUID, Listing[V]] = {}
        self._gone: dict[UUID, int] = {}  # the versions that took products off sale
        self._by_variant: dict[UUID, UUID] = {}
        # Oldest first, which is the order of the ids: what is new goes to the end.
        self._all: list[Listing[V]] = []
        self._by_term: defaultdict[str, list[Listing[V]]] = defaultdict(list)
        self._sections: Counter[tuple[str, str]] = Counter()  # products by category and subcategory
        self._categories: Sequence[Category] | None = None

    def __len__(self) -> int:
        return len(self._listings)

    def __iter__(self) -> Iterator[Listing[V]]:
        return iter(self._all)

    def get(self, product_id: UUID) -> Listing[V] | None:
        """Return a product on sale."""
        return self._listings.get(product_id)

    def is_gone(self, product_id: UUID) -> bool:
        """Tell whether the product is known to have been taken off sale, which is for ever."""
        return product_id in self._gone

    def version(self, product_id: UUID) -> int:
        """Return the version that is known of a product, on sale or gone; 0 if none is."""
        listing = self._listings.get(product_id)
        return listing.version if listing else self._gone.get(product_id, 0)

    def with_variant(self, variant_id: UUID) -> Listing[V] | None:
        """Return the product that has a variant."""
        product_id = self._by_variant.get(variant_id)
        return self._listings[product_id] if product_id else None

    def page(self, filters: Filters, before: UUID | None, limit: int) -> Sequence[Listing[V]]:
        """Return the newest products that pass the filters and are older than `before`."""
        wanted = _wanted(filters)
        # The rarest term leaves the least to look through.
        shortest = min((self._by_term.get(term, []) for term in wanted), key=len, default=self._all)
        end = len(shortest) if before is None else bisect_left(shortest, before, key=_BY_ID)
        newest_first = islice(reversed(shortest), len(shortest) - end, None)
        low = _LOWEST if filters.min_price is None else filters.min_price
        high = _HIGHEST if filters.max_price is None else filters.max_price
        any_price = filters.min_price is None and filters.max_price is None
        found: list[Listing[V]] = []
        for listing in newest_first:
            if wanted <= listing.terms and (any_price or listing.costs_within(low, high)):
                found.append(listing)
                if len(found) == limit:
                    break
        return found

    def categories(self) -> Sequence[Category]:
        """Return all categories, by name."""
        if self._categories is None:
            parts: defaultdict[str, dict[str, int]] = defaultdict(dict)
            for (category, subcategory), count in self._sections.items():
                parts[category][subcategory] = count
            self._categories = [
                Category(name, sum(counts.values()), tuple(sorted(filter(None, counts))))
                for name, counts in sorted(parts.items())
            ]
        return self._categories

    def put(self, listing: Listing[V]) -> None:
        """List a product, unless something newer is known of it."""
        if listing.version < self.version(listing.product_id) or self.is_gone(listing.product_id):
            return
        self.forget(listing.product_id)
        self._listings[listing.product_id] = listing
        self._by_variant |= dict.fromkeys(listing.variant_ids, listing.product_id)
        for index in self._indexes(listing):
            index.insert(bisect_left(index, listing.product_id, key=_BY_ID), listing)
        self._sections[listing.category, listing.subcategory] += 1

    def take_off(self, product_id: UUID, version: int) -> None:
        """Take a product off sale for ever: older versions of it that come later are passed over."""
        self.forget(product_id)
        self._gone[product_id] = version

    def forget(self, product_id: UUID) -> None:
        """Drop a product as if it had never been there."""
        self._categories = None
        listing = self._listings.pop(product_id, None)
        if listing is None:
            return
        for variant_id in listing.variant_ids:
            self._by_variant.pop(variant_id, None)
        for index in self._indexes(listing):
            del index[bisect_left(index, product_id, key=_BY_ID)]
        for term in listing.terms:
            if not self._by_term[term]:
                del self._by_term[term]
        section = (listing.category, listing.subcategory)
        self._sections[section] -= 1
        if not self._sections[section]:
            del self._sections[section]

    def differences(self, other: "ReadModel[V]") -> Sequence[UUID]:
        """Return the products of which the two don't hold the same."""
        mine, others = self._listings, other._listings
        return sorted(
            product_id
            for product_id in mine.keys() | others.keys()
            if mine.get(product_id) != others.get(product_id)
        )

    def _indexes(self, listing: Listing[V]) -> Iterable[list[Listing[V]]]:
        yield self._all
        for term in listing.terms:
            yield self._by_term[term]


def _wanted(filters: Filters) -> set[str]:
    wanted = set(_terms(filters.category, filters.subcategory, filters.brand))
    if filters.tag:
        wanted.add(_term("tag", filters.tag))
    return wanted


def _terms(category: str, subcategory: str, brand: str) -> Iterator[str]:
    named: Mapping[str, str] = {"category": category, "subcategory": subcategory, "brand": brand}
    return (_term(name, value) for name, value in named.items() if value)


def _term(name: str, value: str) -> str:
    return f"{name}={value}"
