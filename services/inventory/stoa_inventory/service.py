"""The use cases of inventory."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from stoa_chassis.avro import Event
from stoa_chassis.clock import Clock
from stoa_chassis.uow import UnitOfWork
from stoa_events import (
    InventoryOutOfStock,
    OrderCancelled,
    OrderPlaced,
    OrderReturned,
    OrderShipped,
    ProductCreated,
    ProductUpdated,
)
from stoa_inventory.model import (
    Change,
    HoldStatus,
    NotReserved,
    RequestReused,
    Stock,
    VariantNotFound,
    Wanted,
    low_stock,
    release,
    reserve,
    returnable,
    ship,
    sum_up,
    take_back,
)
from stoa_inventory.repository import Adjustment, StockReader, Tx


class Catalog(Protocol):
    """What the shop sells."""

    async def product_of(self, variant_id: UUID) -> UUID | None:
        """Return the product of a variant, None if it is not sold."""
        ...


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

    async def available(self, variant_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        """Tell how many of some variants can still be promised."""
        stocks = await self._reader.get(variant_ids)
        return {key: stocks[key].available if key in stocks else 0 for key in variant_ids}

    async def list(self, *, low_only: bool, after: tuple[int, UUID] | None, limit: int) -> Sequence[Stock]:
        """Read stock, the scarcest first."""
        return await self._reader.list(low_only=low_only, after=after, limit=limit)

    async def adjust(self, variant_id: UUID, delta: int, reason: str, request_id: str) -> Stock:
        """Count more of a variant, or fewer; once for each request id.

        Raises:
            VariantNotFound: the shop does not sell it.
            StockReserved, StockTooLarge: see `Stock.adjust`.
            RequestReused: the request id stands for another adjustment.
        """

        async def decide(tx: Tx) -> Stock:
            stock = _found(await tx.stocks.lock([variant_id]), variant_id)
            done = await tx.stocks.adjustment(variant_id, request_id)
            if done == Adjustment(delta, reason):
                return stock
            if done is not None:
                raise RequestReused(f"request id {request_id} was used for another adjustment")
            was_low = stock.is_low
            change = stock.adjust(delta)
            await tx.stocks.apply(
                [change],
                {variant_id: stock},
                self._clock.now(),
                request_id=request_id,
                reason=reason,
            )
            if stock.is_low and not was_low:
                tx.outbox.add(low_stock(stock))
            return stock

        return await self._knowing(variant_id, lambda: self._uow.run(decide))

    async def set_threshold(self, variant_id: UUID, threshold: int) -> Stock:
        """Set below how many available a variant counts as low. Raises VariantNotFound."""

        async def decide(tx: Tx) -> Stock:
            stock = _found(await tx.stocks.lock([variant_id]), variant_id)
            was_low, stock.threshold = stock.is_low, threshold
            await tx.stocks.set_threshold(variant_id, threshold)
            if stock.is_low and not was_low:
                tx.outbox.add(low_stock(stock))
            return stock

        return await self._knowing(variant_id, lambda: self._uow.run(decide))

    async def product_changed(self, event: Event[ProductCreated] | Event[ProductUpdated]) -> None:
        """Begin to count the variants that a product has now."""
        product = event.payload
        async with self._uow.begin(consuming=event) as tx:
            await tx.stocks.add(product.product_id, (variant.variant_id for variant in product.variants))

    async def order_placed(self, event: Event[OrderPlaced]) -> None:
        """Promise an order all that it wants, or refuse it; one that was cancelled already gets nothing."""
        order = event.payload
        wanted = sum_up(Wanted(item.product_id, item.variant_id, item.quantity) for item in order.items)

        async def decide(tx: Tx) -> None:
            now = self._clock.now()
            if await tx.stocks.open_hold(order.order_id, HoldStatus.HELD, now):
                return
            stocks = await tx.stocks.lock(line.variant_id for line in wanted)
            were_low = _low(stocks)
            changes, answer = reserve(order.order_id, wanted, stocks)
            if isinstance(answer, InventoryOutOfStock):
                await tx.stocks.close_hold(order.order_id, HoldStatus.REFUSED, now)
            else:
                await tx.stocks.apply(changes, stocks, now, order_id=order.order_id)
            tx.outbox.add(answer)
            for variant_id in _low(stocks) - were_low:
                tx.outbox.add(low_stock(stocks[variant_id]))

        await self._uow.run(decide, consuming=event)

    async def order_cancelled(self, event: Event[OrderCancelled]) -> None:
        """Release what is promised to an order, also if the order itself is heard of only later."""

        async def decide(tx: Tx) -> None:
            now = self._clock.now()
            status = await tx.stocks.open_hold(event.payload.order_id, HoldStatus.RELEASED, now)
            if status is HoldStatus.HELD:
                await self._settle(tx, event.payload.order_id, HoldStatus.RELEASED, release)

        await self._uow.run(decide, consuming=event)

    async def order_shipped(self, event: Event[OrderShipped]) -> None:
        """Turn what is promised to an order into goods that left.

        Raises NotReserved if nothing is: the event is then parked for a person to look at.
        """

        async def decide(tx: Tx) -> None:
            await self._ship(tx, event.payload.order_id)

        await self._uow.run(decide, consuming=event)

    async def order_returned(self, event: Event[OrderReturned]) -> None:
        """Put goods of an order back on the shelf: all, or a part now and perhaps another later.

        Raises NotReserved if the order never had any.
        """
        order_id = event.payload.order_id
        came_back = [Wanted(i.product_id, i.variant_id, i.quantity) for i in event.payload.items]

        async def decide(tx: Tx) -> None:
            # The topics are not ordered among each other: that it left may be heard only after it is back.
            await self._ship(tx, order_id)
            out = await tx.stocks.out_for(order_id)
            back = returnable(came_back, out)
            await self._change(tx, order_id, back, take_back)
            if back == out:
                await tx.stocks.close_hold(order_id, HoldStatus.RETURNED, self._clock.now())

        await self._uow.run(decide, consuming=event)

    async def _ship(self, tx: Tx, order_id: UUID) -> None:
        status = await tx.stocks.lock_hold(order_id)
        if status is HoldStatus.HELD:
            await self._settle(tx, order_id, HoldStatus.SHIPPED, ship)
        elif status not in (HoldStatus.SHIPPED, HoldStatus.RETURNED):
            raise NotReserved(f"order {order_id} has no stock here: {status or 'never heard of'}")

    async def _settle(
        self, tx: Tx, order_id: UUID, status: HoldStatus, change: Callable[[UUID, int], Change]
    ) -> None:
        await self._change(tx, order_id, await tx.stocks.reserved_for(order_id), change)
        await tx.stocks.close_hold(order_id, status, self._clock.now())

    async def _change(
        self, tx: Tx, order_id: UUID, quantities: Mapping[UUID, int], change: Callable[[UUID, int], Change]
    ) -> None:
        stocks = await tx.stocks.lock(quantities)
        changes = [stocks[key].apply(change(key, quantity)) for key, quantity in quantities.items()]
        await tx.stocks.apply(changes, stocks, self._clock.now(), order_id=order_id)

    async def _knowing(self, variant_id: UUID, work: Callable[[], Awaitable[Stock]]) -> Stock:
        """Do the work; if the variant is not known, ask the catalog, whose event may still be on its way."""
        try:
            return await work()
        except VariantNotFound:
            product_id = await self._catalog.product_of(variant_id)
            if product_id is None:
                raise
        async with self._uow.begin() as tx:
            await tx.stocks.add(product_id, [variant_id])
        return await work()


def _found(stocks: Mapping[UUID, Stock], variant_id: UUID) -> Stock:
    if variant_id not in stocks:
        raise VariantNotFound(f"variant {variant_id} not found")
    return stocks[variant_id]


def _low(stocks: Mapping[UUID, Stock]) -> set[UUID]:
    return {variant_id for variant_id, stock in stocks.items() if stock.is_low}
