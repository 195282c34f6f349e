"""Walks the saga table: asks, asks again, and gives up when a step's deadline has passed.

Whoever brings an order to a step asks at once, after the commit. The row in `sagas` makes sure of it: if the
process dies in between, or the other service is down, or its answer is lost, the row falls due and any
instance asks again. Answers to a repeated question are the same, so that asking too often does no harm.
"""

import asyncio
from datetime import timedelta
from uuid import UUID

import structlog

from stoa_chassis.clock import Clock
from stoa_chassis.errors import DomainError
from stoa_chassis.uow import UnitOfWork
from stoa_order.model import Order
from stoa_order.repository import DueSaga, Tx
from stoa_order.saga import Commands, step_of

_LOOK_EVERY = timedelta(seconds=1)
_BATCH = 50
# Questions under way at once; those beyond it are left to `run`, which takes them when they fall due.
_CONCURRENCY = 32

log = structlog.get_logger()


class SagaEngine:
    """Brings every order's saga to its end."""

    def __init__(self, uow: UnitOfWork[Tx], commands: Commands, clock: Clock) -> None:
        self._uow = uow
        self._commands = commands
        self._clock = clock
        self._asking: dict[UUID, asyncio.Task[None]] = {}

    def ask(self, order: Order, payment_token: str | None = None) -> None:
        """Ask what the order's step asks, in the background."""
        step = step_of(order)
        if step and step.asks and order.order_id not in self._asking and len(self._asking) < _CONCURRENCY:
            task = asyncio.create_task(self._ask(order, payment_token))
            self._asking[order.order_id] = task
            task.add_done_callback(lambda _: self._asking.pop(order.order_id, None))

    async def run(self) -> None:
        """Look after all sagas that are due, for ever."""
        while True:
            while await self.look() == _BATCH:
                pass
            await asyncio.sleep(_LOOK_EVERY.total_seconds())

    async def look(self) -> int:
        """Take up the sagas that are due at this moment; return how many there were."""
        async with self._uow.begin() as tx:
            due = await tx.orders.claim_due(self._clock.now(), _BATCH)
        await asyncio.gather(*(self._take_up(saga) for saga in due))
        return len(due)

    async def _take_up(self, saga: DueSaga) -> None:
        async def decide(tx: Tx) -> Order:
            order = await tx.orders.get(saga.order_id)
            step = step_of(order)
            # The step may have ended since the saga was claimed; then its deadline means nothing any more.
            if saga.overdue and step and step.name == saga.step and step.gives_up:
                log.warning("saga step timed out", order_id=str(order.order_id), step=step.name)
                step.gives_up(order, self._clock.now())
                await tx.orders.save(order)
                tx.publish(order)
            return order

        try:
            order = await self._uow.run(decide)
        except Exception:
            # One order's trouble must not keep the others waiting; this one falls due again.
            log.exception("saga could not be taken up", order_id=str(saga.order_id), step=saga.step)
            return
        self.ask(order, saga.payment_token)

    async def _ask(self, order: Order, payment_token: str | None) -> None:
        step = step_of(order)
        assert step is not None
        assert step.asks is not None
        try:
            await step.asks(self._commands, order, payment_token)
        except DomainError as error:
            log.warning(
                "saga step will be asked again",
                order_id=str(order.order_id),
                step=step.name,
                reason=error.reason,
                error=error.message,
            )
        except Exception:
            log.exception(
                "saga step failed and will be asked again", order_id=str(order.order_id), step=step.name
            )
