"""The use cases of inventory."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from uuid import UUID

from stoa_chassis.avro import Event
from stoa_chassis.clock import Clock
from stoa_chassis.errors import check_same_request
from stoa_chassis.uow import UnitOfWork, transactional
from stoa_events import (
    OrderCancelled,
    OrderPlaced,
    OrderReturned,
    OrderShipped,
    ProductCreated,
    ProductDeleted,
    ProductUpdated,
)
from stoa_inventory.model import Adjustment, Hold, Stock, VariantNotFound, Wanted, sum_up
from stoa_inventory.ports import Catalog, StockReader, Tx

_BATCH = 100


class Inventory:
    """Counting stock, and promising it to orders."""

    def __init__(self, uow: UnitOfWork[Tx], reader: StockReader, catalog: Catalog, clock: Clock) -> None:
        self._uow = uow
        self._reader = reader
        self._catalog = catalog
        self._clock = clock

    async def get(self, variant_id: UUID) -> Stock:
        """Read the stock of a variant. Raises VariantNotFound."""
        return _found(await self._reader.get([variant_id]), variant_id)

    async def batch(self, variant_ids: Sequence[UUID]) -> Mapping[UUID, Stock]:
        """Read the stock of several variants; those that are not counted are left out."""
        return await self._reader.get(variant_ids)

    async def announce(self) -> None:
        """Publish of which variants it has changed whether they can be bought, and nobody has said so.

        Whoever changes a stock says so. This is for what an older version has changed, or left.
        """
        while variant_ids := await self._reader.unannounced(_BATCH):
            await self._announce(variant_ids)

    async def list(self, *, low_only: bool, after: tuple[int, UUID] | None, limit: int) -> Sequence[Stock]:
        """Read stock, the scarcest first, that comes after (available, variant id) in that order."""
        return await self._reader.list(low_only=low_only, after=after, limit=limit)

    async def adjust(self, variant_id: UUID, delta: int, reason: str, request_id: str) -> Stock:
        """Count more of a variant, or fewer; once for each request id.

        Raises:
            VariantNotFound: the shop does not sell it.
            VariantWithdrawn, StockReserved, StockTooLarge: see `Stock.adjust`.
            RequestIdReused: the request id stands for another adjustment.
        """
        adjustment = Adjustment(delta, reason)
        return await self._of_sold(variant_id, lambda: self._adjust(variant_id, adjustment, request_id))

    async def set_threshold(self, variant_id: UUID, threshold: int) -> Stock:
        """Set below how many available a variant counts as low. Raises VariantNotFound, VariantWithdrawn."""
        return await self._of_sold(variant_id, lambda: self._set_threshold(variant_id, threshold))

    @transactional
    async def on_product_changed(self, tx: Tx, event: Event[ProductCreated] | Event[ProductUpdated]) -> None:
        """Count the variants that a product has now, and no more those that it had."""
        product = event.payload
        if await tx.stocks.note_version(product.product_id, product.version):
            sold = {variant.variant_id for variant in product.variants}
            await tx.stocks.add(product.product_id, sold)
            await self._sell(tx, product.product_id, sold)

    @transactional
    async def on_product_deleted(self, tx: Tx, event: Event[ProductDeleted]) -> None:
        """Count no variant of a product any more."""
        product = event.payload
        if await tx.stocks.note_version(product.product_id, product.version):
            # Also those of which nothing was known yet, so that it is known that they are gone.
            await tx.stocks.add(product.product_id, product.variant_ids)
            await self._sell(tx, product.product_id, ())

    @transactional
    async def on_order_placed(self, tx: Tx, event: Event[OrderPlaced]) -> None:
        """Promise an order all that it wants, or refuse it; one that was cancelled already gets nothing."""
        order, now = event.payload, self._clock.now()
        hold = Hold.begin(order.order_id, now)
        if not await tx.holds.add(hold):
            return
        wanted = sum_up(Wanted(item.product_id, item.variant_id, item.quantity) for item in order.items)
        stocks = await tx.stocks.lock(line.variant_id for line in wanted)
        hold.on_order_placed(wanted, stocks, now)
        await tx.holds.save(hold, stocks.values())

    @transactional
    async def on_order_cancelled(self, tx: Tx, event: Event[OrderCancelled]) -> None:
        """Release what is promised to an order, also if only later it is known to have been placed."""
        order_id, now = event.payload.order_id, self._clock.now()
        if await tx.holds.add(Hold.released(order_id, now)):
            return
        hold = await tx.holds.lock(order_id)
        stocks = await tx.stocks.lock(hold.quantities)
        hold.on_order_cancelled(stocks, now)
        await tx.holds.save(hold, stocks.values())

    @transactional
    async def on_order_shipped(self, tx: Tx, event: Event[OrderShipped]) -> None:
        """Turn what is promised to an order into goods that left.

        Raises NotReserved if nothing is: the event is then parked for a person to look at.
        """
        hold = await tx.holds.lock(event.payload.order_id)
        stocks = await tx.stocks.lock(hold.quantities)
        hold.on_order_shipped(stocks, self._clock.now())
        await tx.holds.save(hold, stocks.values())

    @transactional
    async def on_order_returned(self, tx: Tx, event: Event[OrderReturned]) -> None:
        """Put goods of an order back on the shelf: all, or a part now and perhaps another later.

        Raises NotReserved if the order never had any.
        """
        order = event.payload
        came_back = [Wanted(item.product_id, item.variant_id, item.quantity) for item in order.items]
        hold = await tx.holds.lock(order.order_id)
        returned = await tx.holds.returned(order.order_id)
        stocks = await tx.stocks.lock(hold.quantities)
        hold.on_order_returned(came_back, returned, stocks, self._clock.now())
        await tx.holds.save(hold, stocks.values())

    async def _sell(self, tx: Tx, product_id: UUID, sold: Collection[UUID]) -> None:
        for stock in (await tx.stocks.lock_product(product_id)).values():
            if stock.sell(stock.variant_id in sold, self._clock.now()):
                await tx.stocks.save(stock)

    async def _of_sold(self, variant_id: UUID, count: Callable[[], Awaitable[Stock]]) -> Stock:
        """Count a variant; if it is not known, ask the catalog, whose event may still be on its way."""
        try:
            return await count()
        except VariantNotFound:
            product_id = await self._catalog.product_of(variant_id)
            if product_id is None:
                raise
        await self._begin_to_count(product_id, variant_id)
        return await count()

    @transactional
    async def _begin_to_count(self, tx: Tx, product_id: UUID, variant_id: UUID) -> None:
        await tx.stocks.add(product_id, [variant_id])

    @transactional
    async def _announce(self, tx: Tx, variant_ids: Sequence[UUID]) -> None:
        for stock in (await tx.stocks.lock(variant_ids)).values():
            stock.announce()
            await tx.stocks.save(stock)

    @transactional
    async def _adjust(self, tx: Tx, variant_id: UUID, adjustment: Adjustment, request_id: str) -> Stock:
        stock = _found(await tx.stocks.lock([variant_id]), variant_id)
        done = await tx.stocks.adjustment(variant_id, request_id)
        if done is None:
            stock.adjust(adjustment, request_id, self._clock.now())
            await tx.stocks.save(stock)
        else:
            check_same_request(done, adjustment)
        return stock

    @transactional
    async def _set_threshold(self, tx: Tx, variant_id: UUID, threshold: int) -> Stock:
        stock = _found(await tx.stocks.lock([variant_id]), variant_id)
        stock.set_threshold(threshold, self._clock.now())
        await tx.stocks.save(stock)
        return stock


def _found(stocks: Mapping[UUID, Stock], variant_id: UUID) -> Stock:
    if variant_id not in stocks:
        raise VariantNotFound(f"variant {variant_id} not found")
    return stocks[variant_id]
