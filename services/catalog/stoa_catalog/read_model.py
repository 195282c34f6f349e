"""What the read model has of a product: what readers get of it, and what lists find it by.

What readers get is made once per revision of a product, not once per request.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Generic, Self, TypeVar
from uuid import UUID

from stoa_catalog.model import REVISION_BITS, Category, Product

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Entry(Generic[V]):
    """A revision of a product: `view` is what readers get while it is on sale."""

    product_id: UUID
    revision: int
    on_sale: bool
    name: str
    variant_ids: tuple[UUID, ...]
    view: V

    @property
    def version(self) -> int:
        """Which version of the product it is."""
        return self.revision >> REVISION_BITS

    @property
    def rating_version(self) -> int:
        """Which version of its rating it has."""
        return self.revision & ((1 << REVISION_BITS) - 1)


@dataclass(frozen=True, slots=True)
class Listing(Generic[V]):
    """An entry with what lists find it by: nothing, if it is not on sale.

    `prices` are those of its variants, the lowest first.
    """

    entry: Entry[V]
    category: str = ""
    subcategory: str = ""
    brand: str = ""
    tags: tuple[str, ...] = ()
    prices: tuple[Decimal, ...] = ()

    @classmethod
    def of(cls, product: Product, view: V) -> Self:
        """List a product."""
        details = product.details
        entry = Entry(
            product.product_id,
            product.revision,
            product.deleted_at is None,
            _storable(details.name),
            tuple(variant.variant_id for variant in product.variants),
            view,
        )
        if not entry.on_sale:
            return cls(entry)
        return cls(
            entry,
            _storable(details.category),
            _storable(details.subcategory),
            _storable(details.brand),
            tuple(map(_storable, details.tags)),
            tuple(sorted(variant.price.amount for variant in product.variants)),
        )

    @property
    def product_id(self) -> UUID:
        """Which product it is."""
        return self.entry.product_id

    @property
    def revision(self) -> int:
        """Which revision of it."""
        return self.entry.revision


def categories_of(sections: Iterable[tuple[str, str, int]]) -> Sequence[Category]:
    """Make categories, by name, of how many products each of their parts has."""
    parts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for category, subcategory, count in sections:
        parts[category][subcategory] = count
    return [
        Category(name, sum(counts.values()), tuple(sorted(filter(None, counts))))
        for name, counts in sorted(parts.items())
    ]


def _storable(text: str) -> str:
    """Return a text as every store can hold it: products of older versions may have the character NUL."""
    return text.replace("\0", "\ufffd")
