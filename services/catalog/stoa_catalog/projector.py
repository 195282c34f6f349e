"""The projection of products from the document store into the read model.

Whoever writes a product projects it at once, so that every process shows it. If it could not, because the
read model was down or the process died in between, the event of the change does: the service consumes its own
events. They only say which product to read again: the product as the document store has it is put into the
model, by its revision. So it does not matter in which order or how often events come. Whatever else may be
wrong is found by comparing: a page of the model now and then (`reconcile`), all of it when an operator asks
(`rebuild`), before the first start and after an upgrade that makes other views (`prepare`). See ADR 28.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

from stoa_catalog.hot_set import HotSet
from stoa_catalog.model import Product
from stoa_catalog.ports import ProductReader, ReadModel
from stoa_catalog.read_model import Entry, Listing
from stoa_chassis.avro import Event
from stoa_chassis.errors import Unavailable
from stoa_chassis.telemetry import get_logger
from stoa_events import ProductCreated, ProductDeleted, ProductRated, ProductUpdated

V = TypeVar("V")

_log = get_logger(__name__)
_PAGE = 500  # products that are compared at once
_SUSPECTS = 10_000  # are looked at again together, since each look waits so long
_TOLD = 1_000  # products by their ids, of those that differed


@dataclass(slots=True)
class Compared:
    """How many products on sale a comparison has seen, and in which the read model differed.

    Of very many that differed some are named.
    """

    replayed: int = 0
    differed: list[UUID] = field(default_factory=list)
    mended: int = 0

    def found(self, wrong: Iterable[UUID]) -> None:
        """Count products that were wrong, and name them while there are not too many."""
        for product_id in wrong:
            self.mended += 1
            if len(self.differed) < _TOLD:
                self.differed.append(product_id)


class Projector(Generic[V]):
    """Keeps the read model current, and what this process holds of it.

    `present` makes what readers get of a product, in the form that `form` names. From a write of a document
    until the read model has it, `write_seconds` may go by; usually it is milliseconds.
    """

    def __init__(
        self,
        reader: ProductReader,
        read_model: ReadModel[V],
        hot: HotSet[V],
        present: Callable[[Product], V],
        form: str,
        write_seconds: float = 1.0,
    ) -> None:
        self._reader = reader
        self._read_model = read_model
        self._hot = hot
        self._present = present
        self._form = form
        self._write_seconds = write_seconds

    def listing(self, product: Product) -> Listing[V]:
        """Make what the read model has of a product."""
        return Listing.of(product, self._present(product))

    async def project(self, product: Product) -> None:
        """Show a product, as this process has just written it, through every process.

        If the read model can't be reached, this process shows it, and the others when its event was consumed.
        """
        listing = self.listing(product)
        try:
            await self._read_model.put([listing])
        except Unavailable as error:
            _log.warning(
                "a change can't be projected yet", product_id=str(product.product_id), error=str(error)
            )
            self._hot.show(listing.entry)
        else:
            self._hot.changed(product.product_id)

    async def on_product_changed(
        self, event: Event[ProductCreated] | Event[ProductUpdated] | Event[ProductDeleted]
    ) -> None:
        """Project a product as the store has it now, unless the model is as late as the event or later."""
        change = event.payload
        await self._catch_up(change.product_id, lambda known: known.version < change.version)

    async def on_product_rated(self, event: Event[ProductRated]) -> None:
        """Project a product as the store has it now, unless the model's rating is as late or later."""
        change = event.payload
        await self._catch_up(change.product_id, lambda known: known.rating_version < change.version)

    async def _catch_up(self, product_id: UUID, is_behind: Callable[[Entry[V]], bool]) -> None:
        known = await self._read_model.get([product_id])
        if not known or is_behind(known[0]):
            await self.fetch([product_id])

    async def fetch(self, product_ids: Iterable[UUID]) -> Sequence[Listing[V]]:
        """Project products as the store has them now, and return them."""
        listings = [self.listing(product) for product in await self._reader.batch(product_ids)]
        if listings:
            await self._read_model.put(listings)
        return listings

    # ------------------------------------------------------------------------------------------- comparing

    async def prepare(self) -> bool:
        """Fill a read model that was never complete. Return whether its views have the form of now."""
        if not await self._read_model.form():
            async with self._read_model.alone():
                if not await self._read_model.form():  # else another process has done it meanwhile
                    await self._compare_all(telling=False)
                    await self._read_model.has_form(self._form)
        return await self._read_model.form() == self._form

    async def upgrade(self) -> None:
        """Make all views anew if they were made in another form, once for all processes."""
        async with self._read_model.alone():
            if await self._read_model.form() != self._form:
                compared = await self._compare_all(telling=False)
                await self._read_model.has_form(self._form)
                _log.info("views were made anew", form=self._form, products=compared.mended)

    async def rebuild(self) -> Compared:
        """Compare all of the read model with the store, mend what differs, and tell what did.

        Readers read on meanwhile, and what is written meanwhile is projected as ever.
        """
        async with self._read_model.alone():
            compared = await self._compare_all(telling=True)
            await self._read_model.has_form(self._form)
        _log.info("read model rebuilt", products=compared.replayed, differed=compared.mended)
        return compared

    async def reconcile(self, seconds: float, products: int) -> None:
        """Compare the next page of so many products, if no process has in the last so many seconds."""
        turn = await self._read_model.take_turn(seconds)
        if turn is None:
            return
        (after,) = turn
        page = [product async for product in self._reader.walk(after, products)]
        upto = page[-1].product_id if len(page) == products else None
        compared = Compared()
        async for part in self._compare(page, after, upto):
            await self._settle(part.differing(), compared)
        await self._read_model.compared(upto)
        if compared.mended:
            _log.warning("the read model differed from the documents", products=compared.mended)

    async def _compare_all(self, *, telling: bool) -> Compared:
        """Compare everything. Unless it is `telling`, what is newer is put without a second look."""
        compared = Compared()
        suspects: dict[UUID, int] = {}
        after: UUID | None = None
        async for products in _pages(self._reader.walk()):
            compared.replayed += sum(product.deleted_at is None for product in products)
            upto = products[-1].product_id if len(products) == _PAGE else None
            async for part in self._compare(products, after, upto):
                differing = part.differing()
                if not telling and (newer := part.newer()):
                    await self._read_model.put(newer, part.revisions_of(newer))
                    compared.found(listing.product_id for listing in newer)
                    for listing in newer:
                        del differing[listing.product_id]
                suspects |= differing
                if len(suspects) > _SUSPECTS:
                    await self._settle(suspects, compared)
                    suspects = {}
            after = upto
        await self._settle(suspects, compared)
        return compared

    async def _compare(
        self, products: Sequence[Product], after: UUID | None, upto: UUID | None
    ) -> AsyncIterator["_Part[V]"]:
        """Yield what the documents and the model have in a range of ids, in parts of bounded size."""
        wanted = [self.listing(product) for product in products]
        while True:
            found = await self._read_model.listings_between(after, upto, 2 * _PAGE)
            last = list(found)[-1] if len(found) == 2 * _PAGE else upto
            here = [listing for listing in wanted if last is None or listing.product_id <= last]
            yield _Part({listing.product_id: listing for listing in here}, found)
            if last == upto:
                return
            after, wanted = last, wanted[len(here) :]

    async def _settle(self, suspects: dict[UUID, int], compared: Compared) -> None:
        """Look again at what differed, once what was under way then has arrived, and mend what still does."""
        if not suspects:
            return
        await asyncio.sleep(self._write_seconds)
        ids = sorted(suspects)
        for start in range(0, len(ids), _PAGE):
            await self._mend(ids[start : start + _PAGE], suspects, compared)

    async def _mend(self, ids: Sequence[UUID], before: dict[UUID, int], compared: Compared) -> None:
        """Put right what differs of these products.

        `before` are the revisions that the model must have by now. It is read first: what it has then, a
        document that is read later has as well, or it is wrong.
        """
        found = await self._read_model.listings(ids)
        wanted = {each.product_id: self.listing(each) for each in await self._reader.batch(ids)}
        wrong = [
            product_id
            for product_id in ids
            if wanted.get(product_id) != found.get(product_id)
            and not _under_way(found.get(product_id), wanted.get(product_id), before.get(product_id, 0))
        ]
        seen = {product_id: found[product_id].revision for product_id in wrong if product_id in found}
        if there := [wanted[product_id] for product_id in wrong if product_id in wanted]:
            await self._read_model.put(there, {each: seen[each] for each in seen if each in wanted})
        if gone := {each: revision for each, revision in seen.items() if each not in wanted}:
            await self._read_model.drop(gone)
        compared.found(wrong)


@dataclass(frozen=True, slots=True)
class _Part(Generic[V]):
    """The products in a range of ids: as they are wanted, by the documents, and as the model was found."""

    wanted: Mapping[UUID, Listing[V]]
    found: Mapping[UUID, Listing[V]]

    def differing(self) -> dict[UUID, int]:
        """Return what differs, with the revision of the document, 0 if there is none."""
        return {
            product_id: self.wanted[product_id].revision if product_id in self.wanted else 0
            for product_id in self.wanted.keys() | self.found.keys()
            if self.wanted.get(product_id) != self.found.get(product_id)
        }

    def newer(self) -> list[Listing[V]]:
        """Return what differs and is not older than what was found, which was read later."""
        return [
            listing
            for product_id, listing in self.wanted.items()
            if (found := self.found.get(product_id)) is None
            or (found != listing and found.revision <= listing.revision)
        ]

    def revisions_of(self, listings: Iterable[Listing[V]]) -> dict[UUID, int]:
        """Return the revisions that were found of these products."""
        ids = (listing.product_id for listing in listings)
        return {each: self.found[each].revision for each in ids if each in self.found}


async def _pages(products: AsyncIterator[Product]) -> AsyncIterator[list[Product]]:
    """Yield full pages, and at last what is left, though it be nothing."""
    page: list[Product] = []
    async for product in products:
        page.append(product)
        if len(page) == _PAGE:
            yield page
            page = []
    yield page


def _under_way(found: Listing[V] | None, wanted: Listing[V] | None, before: int) -> bool:
    """Tell whether the model only lacks what was written after the document had the revision `before`."""
    return found is not None and wanted is not None and 0 < before <= found.revision < wanted.revision
