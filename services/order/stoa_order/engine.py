"""Walks the saga table: asks, asks again, and gives up when a step's deadline has passed.

Whoever brings an order to a step asks at once, after the commit. The stored saga makes sure of it: if the
process dies in between, or the other service is down, or its answer is lost, the saga falls due and any
process asks again. Answers to a repeated question are the same, so that asking too often does no harm.

A reply takes effect in a transaction of its own, and then what the next step asks is asked at once as well.
"""

import asyncio
from datetime import timedelta
from uuid import UUID

from stoa_chassis.clock import Clock
from stoa_chassis.context import bound, correlation_id
from stoa_chassis.due import DueStore, DueWork
from stoa_chassis.errors import DomainError
from stoa_chassis.telemetry import get_logger
from stoa_chassis.uow import UnitOfWork, transactional
from stoa_order.model import Order, Saga
from stoa_order.ports import Peers, Tx
from stoa_order.saga import Ask, Reply, Step, Timeouts, plan, step_of

# Sagas that other processes left behind are found this late.
_SWEEP = timedelta(seconds=1)
# Questions under way at once; those beyond it are asked when their sagas fall due.
_CONCURRENCY = 64

_log = get_logger(__name__)


class SagaEngine:
    """Brings every order's saga to its end."""

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        sagas: DueStore[Saga],
        peers: Peers,
        clock: Clock,
        timeouts: Timeouts,
    ) -> None:
        self._uow = uow
        self._peers = peers
        self._clock = clock
        self._timeouts = timeouts
        self._asking: dict[UUID, asyncio.Task[None]] = {}
        self.due = DueWork(sagas, self.take_up, timeouts.retry, clock, sweep=_SWEEP)
        """Takes up the sagas that fall due."""

    def ask(self, order: Order) -> None:
        """Ask what the order's step asks, and what follows from replies, in the background."""
        if _asks(order) is None:
            return
        if order.order_id not in self._asking and len(self._asking) < _CONCURRENCY:
            task = asyncio.create_task(self._bring_through(order))
            self._asking[order.order_id] = task
            task.add_done_callback(lambda _: self._asking.pop(order.order_id, None))

    async def ask_now(self, order: Order) -> Order:
        """Ask what the order's step asks, and return the order as the reply leaves it.

        Without one, and if nothing is to be asked, it stays as it is.
        """
        return await self._ask(order) or order

    async def asked(self) -> None:
        """Wait until all that is being asked at this moment has its answer."""
        await asyncio.gather(*self._asking.values())

    async def take_up(self, saga: Saga) -> None:
        """Bring a saga on that is due: give its step up if its deadline has passed, or ask again."""
        self.ask(await self._bring_on(saga.order_id))

    @transactional
    async def _bring_on(self, tx: Tx, order_id: UUID) -> Order:
        order, now = await tx.orders.get(order_id), self._clock.now()
        step, saga = step_of(order), order.saga
        # The saga is read anew: the step that fell due may have ended since.
        if step and step.gives_up and saga and saga.step == step.name and saga.is_overdue(now):
            _log.warning("saga step timed out", order_id=order_id, step=step.name)
            step.gives_up(order, now)
            await tx.orders.save(order, plan(order, now, self._timeouts, correlation_id=correlation_id()))
        return order

    async def _bring_through(self, order: Order) -> None:
        answered: Order | None = order
        while answered is not None:
            answered = await self._ask(answered)

    async def _ask(self, order: Order) -> Order | None:
        """Ask once; return the order as the reply leaves it, None if there is none."""
        if (asks := _asks(order)) is None:
            return None
        step, ask, saga = asks
        # The caller of whoever brought the order to the step does not wait for this: without its deadline.
        with bound(saga.correlation_id or correlation_id()):
            try:
                reply = await ask(self._peers, order, saga)
                return await self._on_reply(order.order_id, step, reply) if reply is not None else None
            except DomainError as error:
                _log.warning(
                    "saga step will be asked again",
                    order_id=order.order_id,
                    step=step.name,
                    reason=error.reason,
                    error=error.message,
                )
            except Exception:
                _log.exception(
                    "saga step failed and will be asked again", order_id=order.order_id, step=step.name
                )
        return None

    @transactional
    async def _on_reply(self, tx: Tx, order_id: UUID, step: Step, reply: Reply) -> Order:
        order, now = await tx.orders.get(order_id), self._clock.now()
        step.answers[type(reply)](order, reply, now)
        await tx.orders.save(order, plan(order, now, self._timeouts, correlation_id=correlation_id()))
        return order


def _asks(order: Order) -> tuple[Step, Ask, Saga] | None:
    """Return what is to be asked for an order; None if nothing is."""
    step, saga = step_of(order), order.saga
    if step is None or step.asks is None or saga is None or saga.step != step.name:
        return None
    return step, step.asks, saga
