"""What the use cases rely on, of the store in memory and of PostgreSQL alike."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.due import Backoff, DueStore
from stoa_chassis.ids import new_id
from stoa_chassis.memory import ConstraintViolated, MemoryStore, memory_unit_of_work
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_chassis.uow import LostRace, UnitOfWork
from stoa_order import ports, repository, testing
from stoa_order.model import Line, Order, OrderNotFound, OrderView, Saga
from stoa_order.replay import replay
from stoa_order.testing import NOW, a_confirmed_order, a_line, an_order, paid, reserved

SECOND = timedelta(seconds=1)
BACKOFF = Backoff(5 * SECOND, 60 * SECOND)
REFUSED = (ConstraintViolated, asyncpg.IntegrityConstraintViolationError)


@dataclass
class Store:
    """One of the stores, behind the ports."""

    uow: UnitOfWork[ports.Tx]
    views: ports.OrderViews
    sagas: DueStore[Saga]
    published: Callable[[], Awaitable[list[str]]]

    async def save(self, order: Order, saga: Saga | None = None) -> None:
        async def work(tx: ports.Tx) -> None:
            await tx.orders.save(order, saga)

        await self.uow.run(work)

    async def get(self, order_id: UUID) -> Order:
        return await self.uow.run(lambda tx: tx.orders.get(order_id))


@pytest.fixture
def in_memory() -> Store:
    store = MemoryStore(testing.Rows())

    async def published() -> list[str]:
        return [event.topic for event in store.published]

    return Store(
        memory_unit_of_work(lambda: store, testing.open_tx),
        testing.OrderViews(lambda: store),
        testing.DueSagas(lambda: store, BACKOFF),
        published,
    )


@pytest.fixture
async def in_postgres(database: Database, codec: EventCodec) -> Store:
    await database.execute("TRUNCATE order_events, orders, order_items, order_status_history, sagas, outbox")

    async def published() -> list[str]:
        return [row["topic"] for row in await database.fetch("SELECT topic FROM outbox ORDER BY id")]

    return Store(
        postgres_unit_of_work(database, codec, repository.open_tx, SystemClock()),
        repository.OrderViews(database),
        repository.DueSagas(database, BACKOFF),
        published,
    )


@pytest.fixture(params=["in_memory", pytest.param("in_postgres", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    made: Store = request.getfixturevalue(request.param)
    return made


def a_saga(order: Order, *, step: str = "charge", due: float = 5, deadline: float | None = 30) -> Saga:
    return Saga(
        order_id=order.order_id,
        step=step,
        since=NOW,
        due=NOW + due * SECOND,
        deadline=None if deadline is None else NOW + deadline * SECOND,
        token="tok_visa",
        correlation_id="the request",
    )


async def test_an_order_is_made_of_its_facts_and_has_its_saga(store: Store) -> None:
    order = a_confirmed_order()
    saga = a_saga(order)
    await store.save(order, saga)
    found = await store.get(order.order_id)
    assert found == order
    assert found.saga == order.saga == saga
    assert not found.changes


async def test_an_order_without_a_saga_has_none(store: Store) -> None:
    order = an_order()
    await store.save(order)
    assert (await store.get(order.order_id)).saga is None


async def test_an_order_that_was_never_placed_is_not_found(store: Store) -> None:
    with pytest.raises(OrderNotFound):
        await store.get(new_id())
    assert await store.views.get(new_id()) is None
    assert await store.views.by_request(new_id(), "request") is None
    assert not await store.views.list(user_id=None, status=None, before=None, limit=10)


async def test_what_is_shown_is_what_the_facts_say_in_every_field(store: Store) -> None:
    order = a_confirmed_order()
    assert all(getattr(order.view, field.name) for field in fields(OrderView))
    await store.save(order)
    assert await store.views.get(order.order_id) == order.view


async def test_what_is_shown_follows_every_change(store: Store) -> None:
    order = an_order()
    await store.save(order)
    assert await store.views.get(order.order_id) == order.view
    order.on_inventory_reserved(reserved(order), NOW)
    order.on_payment_successful(paid(order), NOW)
    await store.save(order)
    assert await store.views.get(order.order_id) == order.view
    order.cancel("changed my mind", NOW)
    await store.save(order)
    assert await store.views.get(order.order_id) == order.view


async def test_an_order_is_found_by_the_request_that_led_to_it(store: Store) -> None:
    order = an_order(request_id="mine")
    await store.save(order)
    assert await store.views.by_request(order.user_id, "mine") == order
    assert await store.views.by_request(new_id(), "mine") is None
    assert await store.views.by_request(order.user_id, "another") is None


async def test_a_list_goes_from_the_newest_to_the_oldest(store: Store) -> None:
    buyer = new_id()
    orders = [an_order(user_id=buyer, request_id=str(number)) for number in range(3)]
    for order in (*orders, an_order()):
        await store.save(order)
    newest, middle, oldest = (order.view for order in reversed(orders))
    views = store.views
    assert await views.list(user_id=buyer, status=None, before=None, limit=2) == [newest, middle]
    assert await views.list(user_id=buyer, status=None, before=middle.order_id, limit=2) == [oldest]
    assert len(await views.list(user_id=None, status="pending", before=None, limit=9)) == 4
    assert not await views.list(user_id=buyer, status="confirmed", before=None, limit=9)


async def test_a_saved_order_publishes_its_events_once(store: Store) -> None:
    order = an_order()
    await store.save(order)
    await store.save(order)
    assert await store.published() == ["order.placed"]


async def test_a_transaction_that_fails_changes_and_publishes_nothing(store: Store) -> None:
    order = an_order()

    async def fail(tx: ports.Tx) -> None:
        await tx.orders.save(order, a_saga(order))
        raise LookupError

    with pytest.raises(LookupError):
        await store.uow.run(fail)
    assert await store.views.get(order.order_id) is None
    assert await store.sagas.next_due() is None
    assert await store.published() == []


async def test_an_order_as_it_was_before_is_not_saved(store: Store) -> None:
    order = an_order()
    await store.save(order)
    stale = await store.get(order.order_id)
    order.cancel("faster", NOW)
    await store.save(order)
    stale.cancel("slower", NOW)

    async def save_once(tx: ports.Tx) -> None:
        with pytest.raises(LostRace):
            await tx.orders.save(stale, None)
        raise LookupError  # the transaction is broken

    with pytest.raises(LookupError):
        await store.uow.run(save_once)
    view = await store.views.get(order.order_id)
    assert view
    assert view.history[-1].reason == "faster"


async def test_a_request_leads_to_one_order(store: Store) -> None:
    first = an_order()
    await store.save(first)
    with pytest.raises(ports.RequestTaken):
        await store.save(an_order(user_id=first.user_id))
    await store.save(an_order())  # another buyer's request of the same name
    again = replace(an_order(user_id=first.user_id), order_id=first.order_id)
    with pytest.raises(ports.RequestTaken):
        await store.save(again)  # twice at once, it is twice the order for which it claimed the cart
    assert await store.published() == ["order.placed"] * 2


@pytest.mark.parametrize(
    ("line", "constraint"),
    [(a_line(quantity=0), "quantity_check"), (a_line("0.00"), "price_check")],
)
async def test_what_the_books_forbid_is_not_stored(store: Store, line: Line, constraint: str) -> None:
    with pytest.raises(REFUSED, match=constraint):
        await store.save(an_order(line))


async def test_a_saga_that_goes_on_at_its_step_keeps_its_times(store: Store) -> None:
    order = an_order()
    saga = a_saga(order)
    await store.save(order, saga)
    order.on_inventory_reserved(reserved(order), NOW)
    await store.save(order, replace(saga, due=NOW + 9 * SECOND))
    assert (await store.get(order.order_id)).saga == saga


async def test_a_saga_at_another_step_begins_anew(store: Store) -> None:
    order = an_order()
    await store.save(order, a_saga(order, due=0))
    await store.sagas.claim_due(NOW, 10)
    order.on_inventory_reserved(reserved(order), NOW)
    refund = a_saga(order, step="refund", due=7, deadline=None)
    await store.save(order, refund)
    assert (await store.get(order.order_id)).saga == refund


async def test_a_settled_order_has_no_saga(store: Store) -> None:
    order = an_order()
    await store.save(order, a_saga(order))
    order.cancel("changed my mind", NOW)
    await store.save(order, None)
    assert (await store.get(order.order_id)).saga is None
    assert await store.sagas.next_due() is None


async def test_a_due_saga_is_taken_once_and_falls_due_again(store: Store) -> None:
    order = an_order()
    saga = a_saga(order, due=5)
    await store.save(order, saga)
    assert await store.sagas.next_due() == NOW + 5 * SECOND
    assert not await store.sagas.claim_due(NOW, 10)
    due = NOW + 5 * SECOND
    (claimed,) = await store.sagas.claim_due(due, 10)
    assert claimed == replace(saga, attempts=1, due=due + BACKOFF.first)
    assert not await store.sagas.claim_due(due, 10)
    assert await store.sagas.next_due() == due + BACKOFF.first


async def test_the_pause_doubles_up_to_the_longest_but_never_beyond_the_deadline(store: Store) -> None:
    order, hasty = an_order(), an_order()
    await store.save(order, a_saga(order, due=0, deadline=None))
    await store.save(hasty, a_saga(hasty, due=0, deadline=12))
    pauses: dict[UUID, list[float]] = {order.order_id: [], hasty.order_id: []}
    now = NOW
    for _ in range(12):
        for saga in await store.sagas.claim_due(now, 10):
            pauses[saga.order_id].append((saga.due - now) / SECOND)
        due = await store.sagas.next_due()
        assert due
        now = due
    assert pauses[order.order_id][:6] == [5, 10, 20, 40, 60, 60]
    assert pauses[hasty.order_id][:3] == [5, 7, 20]  # at the deadline, and then as ever


async def test_the_longest_due_comes_first_and_no_more_than_asked_for(store: Store) -> None:
    orders = [an_order() for _ in range(3)]
    for order, due in zip(orders, (3, 1, 2), strict=True):
        await store.save(order, a_saga(order, due=due))
    claimed = await store.sagas.claim_due(NOW + 5 * SECOND, 2)
    assert {saga.order_id for saga in claimed} == {orders[1].order_id, orders[2].order_id}
    (last,) = await store.sagas.claim_due(NOW + 5 * SECOND, 2)
    assert last.order_id == orders[0].order_id


async def test_a_saga_that_is_put_off_falls_due_then_unless_its_order_was_settled(store: Store) -> None:
    order, settled = an_order(), an_order()
    for each in (order, settled):
        await store.save(each, a_saga(each))
    settled.cancel("changed my mind", NOW)
    await store.save(settled, None)
    for each in (order, settled):
        await store.sagas.put_off(a_saga(each), NOW + SECOND)
    (claimed,) = await store.sagas.claim_due(NOW + SECOND, 10)
    assert claimed.order_id == order.order_id


# What only a database has.


@pytest.mark.stack
async def test_an_order_that_was_changed_since_it_was_read_begins_again(in_postgres: Store) -> None:
    order = an_order()
    await in_postgres.save(order)
    lost = 0

    async def slow(tx: ports.Tx) -> None:
        nonlocal lost
        found = await tx.orders.get(order.order_id)
        if not lost:
            order.cancel("faster", NOW)
            await in_postgres.save(order)
        found.cancel("slower", NOW)
        try:
            await tx.orders.save(found, None)
        except LostRace:
            lost += 1
            raise

    await in_postgres.uow.run(slow)
    assert lost == 1
    view = await in_postgres.views.get(order.order_id)
    assert view
    assert view.history[-1].reason == "faster"


@pytest.mark.stack
async def test_the_event_store_only_grows(in_postgres: Store, database: Database) -> None:
    order = an_order()
    await in_postgres.save(order)
    for change in ("UPDATE order_events SET type = 'x'", "DELETE FROM order_events"):
        with pytest.raises(asyncpg.RaiseError, match="only grows"):
            await database.execute(f"{change} WHERE order_id = $1", order.order_id)


@pytest.mark.stack
async def test_processes_that_claim_at_once_get_different_sagas(in_postgres: Store) -> None:
    orders = [an_order() for _ in range(10)]
    for order in orders:
        await in_postgres.save(order, a_saga(order, due=0))
    claims = await asyncio.gather(*(in_postgres.sagas.claim_due(NOW, 3) for _ in range(4)))
    claimed = [saga.order_id for claim in claims for saga in claim]
    assert sorted(claimed) == sorted(order.order_id for order in orders)


@pytest.mark.stack
async def test_a_saga_that_an_older_process_stored_has_no_correlation_id(
    in_postgres: Store, database: Database
) -> None:
    order = an_order()
    await in_postgres.save(order)
    await database.execute(
        "INSERT INTO sagas (order_id, step, started_at, due_at) VALUES ($1, 'charge', $2, $2)",
        order.order_id,
        NOW,
    )
    (saga,) = await in_postgres.sagas.claim_due(NOW, 10)
    assert (saga.correlation_id, saga.token, saga.deadline) == ("", None, None)


@pytest.mark.stack
async def test_a_replay_rebuilds_what_was_lost_and_touches_nothing_else(
    in_postgres: Store, database: Database
) -> None:
    orders = [a_confirmed_order() for _ in range(4)]
    _, wrong, lost, short = orders
    for order in orders:
        await in_postgres.save(order)
    await database.execute("UPDATE orders SET status = 'shipped' WHERE order_id = $1", wrong.order_id)
    for table in ("order_items", "order_status_history", "orders"):
        await database.execute(f"DELETE FROM {table} WHERE order_id = $1", lost.order_id)
    await database.execute("DELETE FROM order_items WHERE order_id = $1 AND line = 2", short.order_id)

    report = await replay(database)
    assert report.replayed == 4
    assert set(report.differed) == {wrong.order_id, lost.order_id, short.order_id}
    for order in orders:
        assert await in_postgres.views.get(order.order_id) == order.view
    assert not (await replay(database)).differed
