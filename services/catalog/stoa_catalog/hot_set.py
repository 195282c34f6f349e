"""What a process holds of the read model: what was asked for lately, within bounds.

An entry is held until it is changed by whichever process, or something else was asked for more lately. A list
is held until any product changes. Between asking the read model and holding its answer a change may come, so
who asks takes a ticket first: what was changed since is not held.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import islice
from typing import Generic, TypeVar
from uuid import UUID

from stoa_catalog.model import Category
from stoa_catalog.read_model import Entry

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
V = TypeVar("V")

_ENTRY_BYTES = 700  # of an entry beside its view: its object and ids, its place here
_VARIANT_BYTES = 250  # of a variant's id, in the entry and by itself
_LIST_BYTES = 1_000  # of a list beside its entries
_SHARE_OF_LISTS = 0.25
_REMEMBERED = 1_000  # changes


class HotSet(Generic[V]):
    """The entries and lists that were asked for lately, in `megabytes` at most; `size` is that of a view."""

    def __init__(self, megabytes: float, size: Callable[[V], int]) -> None:
        self._size = size
        of_lists = int(megabytes * 1_000_000 * _SHARE_OF_LISTS)
        self._entries = _Recent[UUID, Entry[V]](int(megabytes * 1_000_000) - of_lists, self._evicted)
        self._lists = _Recent[Hashable, Sequence[Entry[V]]](of_lists)
        self._by_variant: dict[UUID, UUID] = {}
        self._categories: Sequence[Category] | None = None
        self._changes = 0
        self._changed: deque[UUID] = deque(maxlen=_REMEMBERED)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """How many it takes, roughly."""
        return self._entries.bytes + self._lists.bytes

    @property
    def ticket(self) -> int:
        """What to take before the read model is asked for something that is to be held."""
        return self._changes

    def get(self, product_id: UUID) -> Entry[V] | None:
        """Return an entry that is held."""
        return self._entries.get(product_id)

    def with_variant(self, variant_id: UUID) -> Entry[V] | None:
        """Return the entry, if it is held, of the product that has a variant."""
        product_id = self._by_variant.get(variant_id)
        return None if product_id is None else self._entries.get(product_id)

    def page(self, key: Hashable) -> Sequence[Entry[V]] | None:
        """Return a list that is held."""
        return self._lists.get(key)

    def categories(self) -> Sequence[Category] | None:
        """Return the categories, if they are held."""
        return self._categories

    def keep(self, entries: Iterable[Entry[V]], ticket: int) -> None:
        """Hold entries, but for those that were changed since the ticket was taken."""
        missed = self._changes - ticket
        if missed > len(self._changed):
            return
        changed = set(islice(reversed(self._changed), missed))
        for entry in entries:
            if entry.product_id not in changed:
                self.show(entry)

    def keep_page(self, key: Hashable, entries: Sequence[Entry[V]], ticket: int) -> None:
        """Hold a list, unless anything was changed since the ticket was taken."""
        if ticket == self._changes:
            self._lists.put(key, entries, _LIST_BYTES + sum(map(self._cost, entries)))

    def keep_categories(self, categories: Sequence[Category], ticket: int) -> None:
        """Hold the categories, unless anything was changed since the ticket was taken."""
        if ticket == self._changes:
            self._categories = categories

    def show(self, entry: Entry[V]) -> None:
        """Hold an entry, whatever the read model has."""
        self._entries.put(entry.product_id, entry, self._cost(entry))
        if entry.product_id in self._entries:
            self._by_variant |= dict.fromkeys(entry.variant_ids, entry.product_id)

    def changed(self, product_id: UUID) -> None:
        """Forget a product and all lists, since it was changed."""
        self._changes += 1
        self._changed.append(product_id)
        self._entries.drop(product_id)
        self._lists.clear()
        self._categories = None

    def clear(self) -> None:
        """Forget everything, since anything may have changed."""
        self._changes += _REMEMBERED + 1
        self._entries.clear()
        self._lists.clear()
        self._by_variant.clear()
        self._categories = None

    def _cost(self, entry: Entry[V]) -> int:
        return _ENTRY_BYTES + _VARIANT_BYTES * len(entry.variant_ids) + self._size(entry.view)

    def _evicted(self, entry: Entry[V]) -> None:
        for variant_id in entry.variant_ids:
            self._by_variant.pop(variant_id, None)


class _Recent(Generic[K, T]):
    """What was asked for most lately, within a bound (LRU)."""

    def __init__(self, bound: int, evicted: Callable[[T], None] = lambda _: None) -> None:
        self.bytes = 0
        self._bound = bound
        self._evicted = evicted
        self._kept: OrderedDict[K, tuple[T, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: K) -> bool:
        return key in self._kept

    def get(self, key: K) -> T | None:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: K, value: T, size: int) -> None:
        """Keep something in place of what was kept by its key, unless it is too big by itself."""
        self.drop(key)
        if size > self._bound:
            return
        self._kept[key] = value, size
        self.bytes += size
        while self.bytes > self._bound:
            oldest, _ = next(iter(self._kept.items()))
            self.drop(oldest)

    def drop(self, key: K) -> None:
        if (found := self._kept.pop(key, None)) is not None:
            self.bytes -= found[1]
            self._evicted(found[0])

    def clear(self) -> None:
        self._kept.clear()
        self.bytes = 0
