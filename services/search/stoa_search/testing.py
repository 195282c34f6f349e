"""The index in memory, for tests of use cases: behind the same ports, and refusing what OpenSearch refuses.

It knows words only as they are written. All else – filters, counts, order, pages, writing only what nobody
else has written – is as in OpenSearch: one suite, tests/test_repository.py, runs on both.
"""

import copy
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from stoa_chassis.ids import new_id
from stoa_contracts.money import Money
from stoa_search.model import (
    PRICE_STEPS,
    RATING_STEPS,
    Availability,
    Bucket,
    Criteria,
    Described,
    Details,
    Entry,
    Facet,
    Found,
    Hit,
    IndexMissing,
    Rated,
    Rating,
    Sort,
    Suggestion,
    Variant,
    price_range,
)
from stoa_search.ports import Stored
from stoa_search.queries import ATTRIBUTE

_ROOTS = ("category", "subcategory", "brand", "tag")


@dataclass
class MemoryIndices:
    """All indices, the one that is searched, and those that events are written to."""

    indices: dict[str, dict[UUID, tuple[Entry, int]]] = field(default_factory=dict)
    """The entries of each by product, and which writing of it they are."""
    used: str = ""
    filled: set[str] = field(default_factory=set)
    views: dict[str, list[Entry]] = field(default_factory=dict)
    on_write: Callable[[], None] = lambda: None
    """What happens before entries are written, as from another process."""

    @property
    def fed(self) -> "MemoryEntries":
        """The entries of all indices that events are written to."""
        return MemoryEntries(self, None)

    async def ensure(self) -> bool:
        """Have an index in use; tell whether it is still to be filled."""
        if not self.used:
            self.used = "products-0"
            self.indices[self.used] = {}
        return self.used not in self.filled

    async def note_filled(self) -> None:
        """Note that the index in use was filled."""
        self.filled.add(self.used)

    async def new(self) -> "MemoryNewIndex":
        """Make a new index, to which events are written from now on as well."""
        for name in set(self.indices) - {self.used}:
            del self.indices[name]
        name = f"products-{new_id()}"
        self.indices[name] = {}
        return MemoryNewIndex(self, name)

    def entries(self) -> list[Entry]:
        """Return copies of what is searched. Raises IndexMissing."""
        if self.used not in self.indices:
            raise IndexMissing("there is no index to search in yet")
        return [copy.deepcopy(entry) for entry, _ in self.indices[self.used].values()]


@dataclass
class MemoryEntries:
    """The entries of one index, or of all."""

    store: MemoryIndices
    index: str | None

    async def read(self, product_ids: Collection[UUID]) -> Sequence[Stored]:
        """Read the entry of each product in each index, an empty one where there is none."""
        names = [self.index] if self.index else sorted(self.store.indices)
        if not names or not set(names) <= self.store.indices.keys():
            raise IndexMissing("there is no index to search in yet")
        return [self._stored(name, each) for name in names for each in product_ids]

    async def write(self, entries: Iterable[Stored]) -> Collection[UUID]:
        """Write entries as they were read and then changed; return those that somebody else has written."""
        self.store.on_write()
        lost = set()
        for each in entries:
            if each.index not in self.store.indices:
                raise IndexMissing("the index is gone")
            index, key = self.store.indices[each.index], each.entry.product_id
            _, writing = index.get(key, (None, 0))
            if (each.writing or (0, 0)) != (writing, int(bool(writing))):
                lost.add(key)
            else:
                index[key] = copy.deepcopy(each.entry), writing + 1
        return lost

    def _stored(self, index: str, product_id: UUID) -> Stored:
        if product_id not in self.store.indices[index]:
            return Stored(Entry(product_id), index)
        entry, writing = self.store.indices[index][product_id]
        return Stored(copy.deepcopy(entry), index, (writing, 1))


@dataclass
class MemoryNewIndex:
    """An index that is being filled."""

    store: MemoryIndices
    name: str

    @property
    def entries(self) -> MemoryEntries:
        """Its entries alone."""
        return MemoryEntries(self.store, self.name)

    async def known(self) -> AsyncIterator[Sequence[Entry]]:
        """Walk through what the index in use knows of products that it does not show."""
        yield [entry for entry in self.store.entries() if entry.details is None]

    async def use(self) -> None:
        """Answer searches from it from now on, and delete the one before."""
        del self.store.indices[self.store.used]
        self.store.used = self.name
        self.store.filled.add(self.name)


@dataclass
class MemoryProductIndex:
    """What is searched in."""

    store: MemoryIndices

    async def search(
        self, criteria: Criteria, after: Mapping[str, Any], limit: int, *, facets: bool
    ) -> Found:
        """Find products, after a place that an earlier search has named. Raises IndexMissing."""
        view = str(after.get("view") or new_id())
        entries = self.store.views.setdefault(view, self.store.entries())
        matching = [entry for entry in entries if entry.details is not None and _matches(entry, criteria)]
        found = sorted((each for each in matching if _passes(each, criteria)), key=_order(criteria.sort))
        start = next((at + 1 for at, each in enumerate(found) if str(each.product_id) == after.get("id")), 0)
        hits = [_hit(each) for each in found[start : start + limit]]
        return Found(
            hits=hits,
            places=[{"view": view, "id": str(hit.product_id)} for hit in hits],
            total_size=len(found),
            facets=_facets(matching, criteria) if facets else (),
        )

    async def suggest(self, text: str, limit: int) -> Sequence[Suggestion]:
        """Find categories and products whose names begin like this. Raises IndexMissing."""
        shown = [(entry, entry.details) for entry in self.store.entries() if entry.details is not None]
        shelves = dict.fromkeys(
            shelf for _, details in shown for shelf in (details.category, details.subcategory) if shelf
        )
        found = [Suggestion(shelf) for shelf in shelves if _begins(shelf, text)]
        found += [
            Suggestion(details.name, entry.product_id)
            for entry, details in shown
            if _begins(f"{details.name} {details.brand}", text)
        ]
        return found[:limit]


def _begins(name: str, text: str) -> bool:
    words = name.lower().split()
    return all(any(word.startswith(typed) for word in words) for typed in text.lower().split())


def _matches(entry: Entry, criteria: Criteria) -> bool:
    details = entry.details
    assert details is not None
    traits = [value for variant in details.variants for value in variant.attributes.values()]
    texts = (details.name, details.description, details.brand, details.category, *details.tags, *traits)
    words = " ".join(texts).lower().split()
    return all(word in words for word in criteria.words.lower().split())


def _conditions(criteria: Criteria) -> dict[str, Callable[[Entry, Variant], bool]]:
    """Return what must hold of one variant, by the facet."""
    conditions: dict[str, Callable[[Entry, Variant], bool]] = {}
    if criteria.min_price is not None or criteria.max_price is not None:
        least, most = criteria.min_price or Decimal(0), criteria.max_price or Decimal("Infinity")
        conditions["price"] = lambda _, variant: least <= variant.price.amount <= most
    if criteria.in_stock:
        conditions["in_stock"] = lambda entry, variant: entry.is_in_stock(variant.variant_id)
    for name, values in criteria.attributes.items():
        pairs = {f"{name}:{value}".lower() for value in values}
        conditions[ATTRIBUTE + name] = lambda _, variant, pairs=pairs: bool(  # type: ignore[misc]
            pairs & {pair.lower() for pair in variant.pairs}
        )
    return conditions


def _variants(entry: Entry, criteria: Criteria, without: str) -> list[Variant]:
    """Return the variants of a product that meet all conditions but one."""
    assert entry.details is not None
    conditions = [holds for facet, holds in _conditions(criteria).items() if facet != without]
    return [each for each in entry.details.variants if all(holds(entry, each) for holds in conditions)]


def _passes(entry: Entry, criteria: Criteria, without: str = "") -> bool:
    for facet in _ROOTS:
        asked = getattr(criteria, facet)
        if asked and facet != without and asked.lower() not in map(str.lower, _values(entry, facet)):
            return False
    if without != "min_rating" and entry.rating.average < criteria.min_rating:
        return False
    return bool(_variants(entry, criteria, without))


def _values(entry: Entry, facet: str) -> Sequence[str]:
    assert entry.details is not None
    if facet == "tag":
        return entry.details.tags
    value = getattr(entry.details, facet)
    return [value] if value else []


def _facets(matching: Sequence[Entry], criteria: Criteria) -> list[Facet]:
    counted: dict[str, Counter[str]] = {}

    def count(facet: str, of: Callable[[Entry], Iterable[str]]) -> None:
        passing = [entry for entry in matching if _passes(entry, criteria, facet)]
        counted[facet] = Counter(value for entry in passing for value in set(of(entry)))

    for facet in _ROOTS:
        count(facet, lambda entry, facet=facet: _values(entry, facet))  # type: ignore[misc]
    count("price", lambda entry: {_step(each) for each in _variants(entry, criteria, "price")})
    count("min_rating", lambda entry: [str(step) for step in RATING_STEPS if entry.rating.average >= step])
    count(
        "in_stock",
        lambda entry: [
            "true" for each in _variants(entry, criteria, "in_stock") if entry.is_in_stock(each.variant_id)
        ],
    )
    names = {
        name
        for entry in matching
        if entry.details
        for each in entry.details.variants
        for name in each.attributes
    }
    for name in sorted(names):
        count(
            ATTRIBUTE + name,
            lambda entry, name=name: [  # type: ignore[misc]
                each.attributes[name]
                for each in _variants(entry, criteria, ATTRIBUTE + name)
                if name in each.attributes
            ],
        )
    return [
        Facet(facet, tuple(Bucket(*each) for each in _in_order(facet, values)))
        for facet, values in counted.items()
        if values
    ]


def _in_order(facet: str, values: Counter[str]) -> list[tuple[str, int]]:
    if facet in ("price", "min_rating"):
        return sorted(values.items(), key=lambda each: int(each[0].split("-")[0]))
    return sorted(values.items(), key=lambda each: (-each[1], each[0]))


def _step(variant: Variant) -> str:
    return price_range(max(step for step in PRICE_STEPS if step <= variant.price.amount))


def _order(sort: Sort) -> Callable[[Entry], tuple[Any, ...]]:
    def key(entry: Entry) -> tuple[Any, ...]:
        details, price = entry.details, entry.price_from
        assert details is not None
        assert price is not None
        first: Mapping[Sort, tuple[Any, ...]] = {
            Sort.RELEVANCE: (not entry.in_stock,),
            Sort.PRICE_ASC: (price.amount,),
            Sort.PRICE_DESC: (-price.amount,),
            Sort.NEWEST: (-details.created_at.timestamp(),),
            Sort.RATING: (-entry.rating.average, -entry.rating.count),
        }
        return (*first[sort], str(entry.product_id))

    return key


def _hit(entry: Entry) -> Hit:
    details, price = entry.details, entry.price_from
    assert details is not None
    assert price is not None
    return Hit(
        product_id=entry.product_id,
        name=details.name,
        brand=details.brand,
        category=details.category,
        price_from=price,
        rating=Rating(entry.rating.average, entry.rating.count),
        image=details.image,
        in_stock=entry.in_stock,
        score=1.0,
    )


# --------------------------------------------------------------------------------------------- other services


@dataclass
class FakeCatalog:
    """A catalogue in memory: what it says of each product on sale."""

    said: dict[UUID, tuple[Described, Rated]] = field(default_factory=dict)
    on_page: Callable[[], None] = lambda: None
    """What happens while it is walked through."""

    async def products(self) -> AsyncIterator[Sequence[tuple[UUID, Described, Rated]]]:
        """Walk through all products on sale, two at a time."""
        said = [(product_id, *each) for product_id, each in self.said.items()]
        for start in range(0, len(said), 2):
            self.on_page()
            yield said[start : start + 2]


@dataclass
class FakeInventory:
    """A warehouse in memory."""

    said: dict[UUID, Availability] = field(default_factory=dict)

    async def availability(self, variant_ids: Sequence[UUID]) -> Mapping[UUID, Availability]:
        """Tell of variants whether they can be bought; those of which nothing was ever said are left out."""
        return {each: self.said[each] for each in variant_ids if each in self.said}


# ------------------------------------------------------------------------------------------------- examples


def a_variant(price: str = "20.00", **attributes: str) -> Variant:
    """Return a variant of which every field has a value."""
    variant_id = new_id()
    attributes = attributes or {"color": "blue"}
    return Variant(
        variant_id, f"SKU-{variant_id}", Money(Decimal(price), "USD"), attributes, ("/a.jpg", "/b.jpg")
    )


def some_details(name: str = "Alba Desk Lamp", *variants: Variant, **changes: Any) -> Details:
    """Return details of which every field has a value."""
    values: dict[str, Any] = {
        "category": "Lighting",
        "variants": variants or (a_variant(),),
        "created_at": datetime(2026, 11, 26, 12, 30, 15, 123456, UTC),
        "description": "Stays where you leave it.",
        "subcategory": "Desk lamps",
        "brand": "Lumora",
        "tags": ("lamp", "desk"),
        "specifications": {"Light source": "LED, 8 W"},
    }
    return Details(name=name, **(values | changes))
