"""What the use cases of inventory need from outside."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from stoa_inventory.model import Adjustment, Hold, Stock


class Stocks(Protocol):
    """The stock of each variant that was ever sold."""

    async def add(self, product_id: UUID, variant_ids: Iterable[UUID]) -> None:
        """Begin to count variants, from zero; those that are counted already stay as they are."""
        ...

    async def note_version(self, product_id: UUID, version: int) -> bool:
        """Note the version of a product; tell whether it is a later one than was noted.

        Nobody else notes one of the product until the transaction ends.
        """
        ...

    async def lock_product(self, product_id: UUID) -> dict[UUID, Stock]:
        """Read the stock of the variants that a product has or had, locked as by `lock`."""
        ...

    async def lock(self, variant_ids: Iterable[UUID]) -> dict[UUID, Stock]:
        """Read the stock of variants, which nobody else changes until the transaction ends.

        They are locked in the order of their ids, so that two orders never wait for each other. Those that
        are not counted are left out.
        """
        ...

    async def adjustment(self, variant_id: UUID, request_id: str) -> Adjustment | None:
        """Read the adjustment that a request led to, if it did."""
        ...

    async def save(self, stock: Stock) -> None:
        """Store a locked stock with its movements, and publish its events."""
        ...


class Holds(Protocol):
    """What orders hold of the stock; one for an order."""

    async def add(self, hold: Hold) -> bool:
        """Store the hold of an order, still on nothing, unless the order has one; tell whether it was stored.

        One that is being stored by another transaction is waited for.
        """
        ...

    async def lock(self, order_id: UUID) -> Hold:
        """Read the hold of an order, which nobody else changes until the transaction ends.

        Raises NotReserved if the order has none.
        """
        ...

    async def returned(self, order_id: UUID) -> Mapping[UUID, int]:
        """Read how many of each variant came back from an order whose hold is locked."""
        ...

    async def save(self, hold: Hold, stocks: Iterable[Stock]) -> None:
        """Store a changed hold with the locked stocks that it changed, and publish the events of all."""
        ...


@dataclass(frozen=True, slots=True)
class Tx:
    """What a use case sees of a transaction."""

    stocks: Stocks
    holds: Holds


class StockReader(Protocol):
    """Reads stock outside of a transaction."""

    async def get(self, variant_ids: Iterable[UUID]) -> dict[UUID, Stock]:
        """Read the stock of variants; those that are not counted are left out."""
        ...

    async def unannounced(self, limit: int) -> Sequence[UUID]:
        """Return variants that can or can't be bought otherwise than was last published."""
        ...

    async def list(self, *, low_only: bool, after: tuple[int, UUID] | None, limit: int) -> Sequence[Stock]:
        """Read stock, the scarcest first, that comes after (available, variant id) in that order."""
        ...


class Catalog(Protocol):
    """What the shop sells."""

    async def product_of(self, variant_id: UUID) -> UUID | None:
        """Return the product of a variant, None if it is not sold."""
        ...
