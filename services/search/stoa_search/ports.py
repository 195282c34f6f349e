"""What the use cases of search need from outside."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from stoa_search.model import Availability, Criteria, Described, Entry, Found, Rated, Suggestion


class ProductIndex(Protocol):
    """What is searched in."""

    async def search(
        self, criteria: Criteria, after: Mapping[str, Any], limit: int, *, facets: bool
    ) -> Found:
        """Find products, after a place that an earlier search has named. Raises IndexMissing."""
        ...

    async def suggest(self, text: str, limit: int) -> Sequence[Suggestion]:
        """Find categories and products whose names begin like this. Raises IndexMissing."""
        ...


class Entries(Protocol):
    """The entries of one or several indices, to be changed by many processes at once."""

    async def read(self, product_ids: Collection[UUID]) -> Sequence["Stored"]:
        """Read the entry of each product in each index, an empty one where there is none.

        Raises IndexMissing.
        """
        ...

    async def write(self, entries: Iterable["Stored"]) -> Collection[UUID]:
        """Write entries as they were read and then changed.

        Those that somebody else has written meanwhile stay as they are: their products are returned.
        """
        ...


@dataclass(slots=True)
class Stored:
    """An entry as it was read: from which index, and which writing of it (None: there is none)."""

    entry: Entry
    index: str = ""
    writing: tuple[int, int] | None = None


class NewIndex(Protocol):
    """An index that is being filled, and that events are written to as well."""

    @property
    def entries(self) -> Entries:
        """Its entries alone."""
        ...

    def known(self) -> AsyncIterator[Sequence[Entry]]:
        """Walk through what the index in use knows of products that it does not show."""
        ...

    async def use(self) -> None:
        """Answer searches from it from now on, and delete the one before."""
        ...


class Indices(Protocol):
    """Making indices, and putting them into use."""

    @property
    def fed(self) -> Entries:
        """The entries of all indices that events are written to."""
        ...

    async def ensure(self) -> bool:
        """Have an index in use; tell whether it is still to be filled."""
        ...

    async def note_filled(self) -> None:
        """Note that the index in use was filled."""
        ...

    async def new(self) -> NewIndex:
        """Make a new index, to which events are written from now on as well."""
        ...


class Catalog(Protocol):
    """What the shop sells."""

    def products(self) -> AsyncIterator[Sequence[tuple[UUID, Described, Rated]]]:
        """Walk through all products on sale, some at a time."""
        ...


class Inventory(Protocol):
    """What can be bought."""

    async def availability(self, variant_ids: Sequence[UUID]) -> Mapping[UUID, Availability]:
        """Tell of variants whether they can be bought; those of which nothing was ever said are left out."""
        ...
