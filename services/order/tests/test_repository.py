"""What the use cases rely on, of the store in memory and of PostgreSQL alike."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, cast
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
from stoa_order import facts, ports, repository, testing
from stoa_order.model import Line, Order, OrderNotFound, OrderView, ReturnRefundMade, Saga
from stoa_order.replay import replay
from stoa_order.returns import ReturnItem, ReturnRequest
from stoa_order.testing import (
    GUEST,
    NOW,
    WINDOW,
    a_confirmed_order,
    a_delivered_order,
    a_line,
    an_order,
    paid,
    parcel,
    reserved,
)

# Of every version of every fact that was ever stored.
EXAMPLES = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "facts").iterdir()}
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
    await database.execute(
        "TRUNCATE order_events, orders, order_items, order_status_history, order_returns, guests, sagas, "
        "outbox"
    )

    async def published() -> list[str]:
        return [row["topic"] for row in await database.fetch("SELECT topic FROM outbox ORDER BY id")]

    return Store(
        postgres_unit_of_work(database, codec, repository.open_tx, SystemClock()),
        repository.OrderViews(database, database),
        repository.DueSagas(database, BACKOFF),
        published,
    )


@pytest.fixture(params=["in_memory", pytest.param("in_postgres", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    made: Store = request.getfixturevalue(request.param)
    return made


def an_order_with_everything() -> Order:
    """Return an order each of whose fields has a value."""
    order = a_confirmed_order(contact=GUEST)
    order.on_shipment_created(parcel(order), NOW)
    order.cancel("changed my mind", NOW)
    return order


def an_order_with_returns() -> Order:
    """Return a delivered order of which one return was paid back, and another was rejected."""
    order = a_delivered_order(a_line(), a_line("7.00", 3))
    for line, request_id in zip(order.lines, ("paid back", "rejected"), strict=True):
        item = ReturnItem(line.variant_id, 1)
        made = order.request_return(request_id, ReturnRequest((item,), "too dark"), WINDOW, NOW)
        order.approve_return(made.return_id, "sorry", NOW)
    order.reject_return(order.returns[1].return_id, "it is scratched", NOW)
    back = order.receive_return(order.returns[0].return_id, "", NOW)
    order.on_return_refunded(ReturnRefundMade(back.return_id, back.refund), NOW)
    return order


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
    order = an_order_with_everything()
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


async def test_returns_are_read_as_the_facts_say(store: Store) -> None:
    order, other = an_order_with_returns(), an_order_with_returns()
    for each in (order, other):
        await store.save(each)
    views, (first, second) = store.views, order.returns
    assert await store.get(order.order_id) == order
    assert await views.returns_of(order.order_id, after=None, limit=10) == [first, second]
    assert await views.returns_of(order.order_id, after=None, limit=1) == [first]
    assert await views.returns_of(order.order_id, after=first.return_id, limit=10) == [second]
    newest = [view.return_ for view in await views.returns(status=None, before=None, limit=10)]
    assert newest == sorted((*order.returns, *other.returns), key=lambda made: made.return_id, reverse=True)
    rejected = await views.returns(status="rejected", before=None, limit=10)
    assert {(view.order_id, view.return_.return_id) for view in rejected} == {
        (each.order_id, each.returns[1].return_id) for each in (order, other)
    }
    last = newest[-1].return_id
    assert not await views.returns(status=None, before=last, limit=10)


async def test_orders_are_found_by_their_buyer_and_by_a_guests_address(store: Store) -> None:
    guest_id, user_id = new_id(), new_id()
    orders = [an_order(user_id=guest_id, request_id=str(number), contact=GUEST) for number in range(2)]
    for order in (*orders, an_order()):
        await store.save(order)

    async def found(user: UUID) -> tuple[Sequence[UUID], Sequence[UUID]]:
        async def work(tx: ports.Tx) -> tuple[Sequence[UUID], Sequence[UUID]]:
            by_address = await tx.orders.of_address(GUEST.email.upper())
            return await tx.orders.of_buyer(user), by_address

        return await store.uow.run(work)

    ids = [order.order_id for order in orders]
    assert await found(guest_id) == (ids, ids)
    orders[0].change_buyer(user_id, NOW)
    await store.save(orders[0])
    assert await found(guest_id) == (ids[1:], ids[1:])
    assert await found(user_id) == (ids[:1], ids[1:])
    # Each of them may have sent the same request id.
    await store.save(an_order(user_id=user_id, request_id="0"))


async def test_the_account_that_a_guest_has_become_is_the_first_one(store: Store) -> None:
    guest_id, user_id = new_id(), new_id()

    async def touch(tx: ports.Tx) -> list[UUID | None]:
        before = await tx.guests.account_of(guest_id)
        await tx.guests.merge(guest_id, user_id)
        await tx.guests.merge(guest_id, new_id())
        return [before, await tx.guests.account_of(guest_id), await tx.guests.account_of(new_id())]

    assert await store.uow.run(touch) == [None, user_id, None]
    assert await store.uow.run(lambda tx: tx.guests.account_of(guest_id)) == user_id


async def test_an_erased_person_is_gone_from_the_facts_as_well(store: Store) -> None:
    order = an_order_with_returns()
    kept = an_order()
    await store.save(order)
    await store.save(kept)
    order = await store.get(order.order_id)
    order.erase_person(NOW)
    await store.save(order)
    found = await store.get(order.order_id)
    assert found == order
    assert found.shipping_address.recipient == ""
    assert await store.views.get(order.order_id) == order.view
    assert list(await store.views.returns_of(order.order_id, after=None, limit=10)) == list(order.returns)
    assert (await store.get(kept.order_id)).shipping_address == kept.shipping_address


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


async def test_who_has_just_ordered_looks_where_it_does_not_lag_and_who_turns_pages_need_not() -> None:
    asked: list[str] = []

    class Server:
        def __init__(self, name: str) -> None:
            self.name = name

        async def fetch(self, *_: object) -> list[Any]:
            asked.append(self.name)
            return []

    views = repository.OrderViews(cast(Database, Server("primary")), cast(Database, Server("replica")))
    await views.list(user_id=new_id(), status=None, before=None, limit=9)
    await views.list(user_id=new_id(), status=None, before=new_id(), limit=9)
    await views.list(user_id=None, status="pending", before=None, limit=9)
    await views.returns(status=None, before=None, limit=9)
    await views.returns_of(new_id(), after=None, limit=9)
    assert asked == ["primary", "replica", "replica", "replica", "primary"]


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
async def test_the_keys_of_guests_who_merged_before_are_as_those_of_who_merge_now(
    in_postgres: Store, database: Database
) -> None:
    merged, other = an_order(contact=GUEST), an_order(request_id=f"{new_id()}/like-one")
    for order in (merged, other):
        await in_postgres.save(order)
    merged.change_buyer(new_id(), NOW)
    await in_postgres.save(merged)
    await database.execute("UPDATE orders SET request_id = replace(request_id, ' ', '/')")
    migration = files("stoa_order") / "migrations" / "0004_keys_of_merged_guests.sql"
    await database.execute(migration.read_text())
    assert (await replay(database)).differed == []


@pytest.mark.stack
async def test_the_event_store_only_grows(in_postgres: Store, database: Database) -> None:
    order = an_order()
    await in_postgres.save(order)
    for change in ("UPDATE order_events SET type = 'x'", "DELETE FROM order_events"):
        with pytest.raises(asyncpg.RaiseError, match="only grows"):
            await database.execute(f"{change} WHERE order_id = $1", order.order_id)


@pytest.mark.stack
async def test_nothing_but_a_person_can_be_taken_out_of_a_fact(
    in_postgres: Store, database: Database
) -> None:
    order = a_confirmed_order(contact=GUEST)
    order.cancel("changed my mind", NOW)
    await in_postgres.save(order)
    for change in (
        "data = without_person(data), type = 'x'",
        "data = without_person(data) || jsonb_build_object('user_id', gen_random_uuid())",
        "data = without_person(data), at = now()",
    ):
        with pytest.raises(asyncpg.RaiseError, match="only grows"):
            await database.execute(f"UPDATE order_events SET {change} WHERE order_id = $1", order.order_id)
    rows = await database.fetch("SELECT data, without_person(data) AS without FROM order_events")
    assert all(row["without"] == facts.without_person(row["data"]) for row in rows)
    assert any(row["without"] != row["data"] for row in rows)


@pytest.mark.stack
@pytest.mark.parametrize("example", EXAMPLES)
async def test_a_person_is_taken_out_of_every_fact_that_was_ever_written(
    database: Database, example: str
) -> None:
    data = EXAMPLES[example]
    assert await database.fetchval("SELECT without_person($1::jsonb)", data) == facts.without_person(data)


@pytest.mark.stack
async def test_a_guest_who_signs_in_leaves_no_order_behind_that_is_placed_meanwhile(
    in_postgres: Store, database: Database
) -> None:
    for _ in range(10):
        guest_id, user_id = new_id(), new_id()
        order = an_order(user_id=guest_id, contact=GUEST)

        async def place(tx: ports.Tx, order: Order = order, guest_id: UUID = guest_id) -> None:
            if account := await tx.guests.account_of(guest_id):
                order.change_buyer(account, NOW)
            await tx.orders.save(order, None)

        async def merge(tx: ports.Tx, guest_id: UUID = guest_id, user_id: UUID = user_id) -> None:
            await tx.guests.merge(guest_id, user_id)
            for order_id in await tx.orders.of_buyer(guest_id):
                found = await tx.orders.get(order_id)
                found.change_buyer(user_id, NOW)
                await tx.orders.save(found, None)

        await asyncio.gather(in_postgres.uow.run(place), in_postgres.uow.run(merge))
        assert (await in_postgres.get(order.order_id)).user_id == user_id


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
    orders = [a_confirmed_order() for _ in range(4)] + [an_order_with_returns() for _ in range(3)]
    orders[-1].erase_person(NOW)
    _, wrong, lost, short, back, _, erased = orders
    for order in orders:
        await in_postgres.save(order)
    await database.execute("UPDATE orders SET status = 'shipped' WHERE order_id = $1", wrong.order_id)
    await database.execute("UPDATE order_returns SET status = 'requested' WHERE order_id = $1", back.order_id)
    for table in ("order_items", "order_status_history", "orders"):
        await database.execute(f"DELETE FROM {table} WHERE order_id = $1", lost.order_id)
    await database.execute("DELETE FROM order_items WHERE order_id = $1 AND line = 2", short.order_id)

    report = await replay(database)
    assert report.replayed == 7
    assert set(report.differed) == {wrong.order_id, lost.order_id, short.order_id, back.order_id}
    for order in orders:
        assert await in_postgres.views.get(order.order_id) == order.view
        returns = await in_postgres.views.returns_of(order.order_id, after=None, limit=10)
        assert tuple(returns) == order.returns
    assert erased.is_erased
    assert not (await replay(database)).differed
