"""What the use cases rely on, of the store in memory and of PostgreSQL alike."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.ids import new_id
from stoa_chassis.memory import ConstraintViolated, MemoryStore, memory_unit_of_work
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_chassis.uow import UnitOfWork
from stoa_shipping import ports, repository, testing
from stoa_shipping.model import Label, Shipment, ShipmentNotFound, Status

from .conftest import BACKOFF, CARRIERS, FIRST, NOW, RETRY, SECOND, a_parcel, scan

REFUSED = (ConstraintViolated, asyncpg.IntegrityConstraintViolationError)


@dataclass
class Store:
    """One of the stores, behind the ports."""

    uow: UnitOfWork[ports.Tx]
    reader: ports.ShipmentReader
    weights: ports.Weights
    unfinished: ports.Unfinished
    published: Callable[[], Awaitable[list[str]]]


@pytest.fixture
def in_memory() -> Store:
    store = MemoryStore(testing.Rows())

    async def published() -> list[str]:
        return [event.topic for event in store.published]

    return Store(
        memory_unit_of_work(lambda: store, testing.open_tx),
        testing.ShipmentReader(lambda: store),
        testing.Weights(lambda: store),
        testing.Unfinished(lambda: store, BACKOFF, RETRY.lease),
        published,
    )


@pytest.fixture
async def in_postgres(database: Database, codec: EventCodec) -> Store:
    await database.execute("TRUNCATE shipments, variant_weights, outbox")

    async def published() -> list[str]:
        return [row["topic"] for row in await database.fetch("SELECT topic FROM outbox ORDER BY id")]

    return Store(
        postgres_unit_of_work(database, codec, repository.open_tx, SystemClock()),
        repository.ShipmentReader(database),
        repository.Weights(database),
        repository.Unfinished(database, BACKOFF, RETRY.lease),
        published,
    )


@pytest.fixture(params=["in_memory", pytest.param("in_postgres", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    made: Store = request.getfixturevalue(request.param)
    return made


def label() -> Label:
    number = uuid4().hex
    return Label(number, f"https://ups.example/{number}", NOW + timedelta(days=4))


def waiting() -> Shipment:
    return Shipment.begin(uuid4(), "the request", NOW)


def pending() -> Shipment:
    shipment = waiting()
    shipment.on_payment_successful(CARRIERS, NOW)
    shipment.on_order_confirmed(uuid4(), a_parcel(), CARRIERS, NOW)
    return shipment


def created() -> Shipment:
    shipment = pending()
    shipment.ask_next(CARRIERS, NOW)
    shipment.on_booked(FIRST, label(), RETRY, NOW)
    return shipment


async def add(store: Store, shipment: Shipment) -> Shipment:
    """Store a new one, as the first that is heard of its order does: its events come later."""
    shipment.events.clear()
    assert await begin(store, shipment) == shipment
    return shipment


async def begin(store: Store, shipment: Shipment) -> Shipment:
    return await store.uow.run(lambda tx: tx.shipments.begin(shipment))


async def save(store: Store, shipment: Shipment) -> None:
    await store.uow.run(lambda tx: tx.shipments.save(shipment))


async def test_every_field_comes_back_as_it_was(store: Store) -> None:
    shipment = replace(
        created(),
        stopping=True,
        problem="too far",
        erased=True,
        attempts=3,
        due_at=NOW + timedelta(minutes=5),
    )
    shipment.on_voided(SECOND, NOW)
    shipment = replace(shipment, history=(*shipment.history, scan(Status.IN_TRANSIT, 1)))
    assert all(getattr(shipment, each.name) for each in fields(shipment) if each.compare)
    await add(store, shipment)
    assert await store.reader.get(shipment.shipment_id) == shipment
    assert await store.reader.of_order(shipment.order_id) == shipment
    assert await store.uow.run(lambda tx: tx.shipments.lock(shipment.shipment_id)) == shipment
    again = replace(waiting(), order_id=shipment.order_id)
    assert await begin(store, again) == shipment


async def test_one_of_which_little_is_known_comes_back_as_it_was(store: Store) -> None:
    shipment = await add(store, waiting())
    assert await store.reader.get(shipment.shipment_id) == shipment
    again = pending()
    again = replace(again, shipment_id=shipment.shipment_id, order_id=shipment.order_id)
    await save(store, again)
    assert await store.reader.get(shipment.shipment_id) == again


async def test_an_order_has_one_shipment(store: Store) -> None:
    first = await add(store, waiting())
    other = replace(waiting(), order_id=first.order_id)
    assert await begin(store, other) == first
    assert await store.reader.get(other.shipment_id) is None


async def test_those_who_begin_at_once_begin_the_same(store: Store) -> None:
    order_id = new_id()
    begun = await asyncio.gather(
        *(
            store.uow.run(lambda tx: tx.shipments.begin(replace(waiting(), order_id=order_id)))
            for _ in range(5)
        )
    )
    assert len({each.shipment_id for each in begun}) == 1


async def test_what_never_was_is_not_found(store: Store) -> None:
    assert await store.reader.get(new_id()) is None
    assert await store.reader.of_order(new_id()) is None
    with pytest.raises(ShipmentNotFound):
        await store.uow.run(lambda tx: tx.shipments.lock(new_id()))


async def test_what_is_saved_publishes_its_events_once(store: Store) -> None:
    shipment = await add(store, pending())
    shipment.on_booked(FIRST, label(), RETRY, NOW)
    await save(store, shipment)
    await save(store, shipment)
    shipment.on_scanned(FIRST, [scan(Status.IN_TRANSIT)], NOW, NOW)
    await save(store, shipment)
    assert await store.published() == ["shipment.created", "shipment.status_updated"]


async def save_unless_changed(store: Store, shipment: Shipment) -> bool:
    return await store.uow.run(lambda tx: tx.shipments.save_unless_changed(shipment))


async def test_what_nobody_has_changed_is_saved_as_it_is_known(store: Store) -> None:
    await add(store, shipment := pending())
    known = await store.reader.get(shipment.shipment_id)
    assert known is not None
    known.on_booked(FIRST, label(), RETRY, NOW)
    assert await save_unless_changed(store, known)
    known.on_confirmed(FIRST, NOW, NOW)
    assert await save_unless_changed(store, known)
    assert await store.reader.get(shipment.shipment_id) == known
    assert await store.published() == ["shipment.created"]


async def test_what_somebody_has_changed_is_not_saved_as_it_was_known(store: Store) -> None:
    await add(store, shipment := pending())
    known = await store.reader.get(shipment.shipment_id)
    assert known is not None
    shipment.attempts += 1
    await save(store, shipment)
    known.on_booked(FIRST, label(), RETRY, NOW)
    assert not await save_unless_changed(store, known)
    assert await store.reader.get(shipment.shipment_id) == shipment
    assert await store.published() == []
    assert not await save_unless_changed(store, replace(shipment, revision=None))


async def test_what_is_claimed_is_not_as_it_was_known(store: Store) -> None:
    await add(store, shipment := pending())
    known = await store.reader.get(shipment.shipment_id)
    assert known is not None
    await store.unfinished.claim_due(NOW, 10)
    assert not await save_unless_changed(store, known)


@pytest.mark.parametrize(
    "broken",
    [
        {"status": Status.PENDING, "parcel": None},
        {"status": Status.PENDING, "paid": False},
        {"status": Status.PENDING, "user_id": None},
        {"status": Status.PENDING, "due_at": None},
        {"status": Status.IN_TRANSIT, "carrier": "", "label": None},
        {"status": Status.PENDING, "stopping": True},
        {"label": None},
        {"carrier": ""},
    ],
    ids=str,
)
async def test_a_shipment_that_can_not_be_is_refused(store: Store, broken: dict[str, Any]) -> None:
    shipment = await add(store, created())
    with pytest.raises(REFUSED):
        await save(store, replace(shipment, **broken))
    assert await store.reader.get(shipment.shipment_id) == shipment


async def test_a_carriers_number_is_of_one_parcel(store: Store) -> None:
    first, second = await add(store, created()), created()
    second.label = first.label
    with pytest.raises(REFUSED):
        await add(store, second)
    await add(store, replace(second, carrier=SECOND))


async def test_the_newest_are_listed_first_page_by_page(store: Store) -> None:
    stored = [await add(store, each) for each in (pending(), created(), pending())]
    await add(store, waiting())
    stopped = waiting()
    stopped.stop(NOW)
    await add(store, stopped)
    assert await store.reader.list(None, None, 2) == [stored[2], stored[1]]
    assert await store.reader.list(None, stored[1].shipment_id, 2) == [stored[0]]
    assert await store.reader.list(Status.PENDING, None, 10) == [stored[2], stored[0]]
    assert await store.reader.list(Status.STOPPED, None, 10) == []


async def test_what_was_paid_and_then_stopped_is_listed(store: Store) -> None:
    shipment = pending()
    shipment.stop(NOW)
    await add(store, shipment)
    assert await store.reader.list(Status.STOPPED, None, 10) == [shipment]


async def test_what_is_due_is_claimed_by_one_and_falls_due_again(store: Store) -> None:
    early, late = await add(store, pending()), pending()
    late.due_at = NOW + timedelta(hours=1)
    await add(store, late)
    await add(store, waiting())
    assert await store.unfinished.next_due() == NOW
    (claimed,) = await store.unfinished.claim_due(NOW, 10)
    assert (claimed.shipment_id, claimed.attempts) == (early.shipment_id, 1)
    assert claimed.due_at == NOW + RETRY.lease
    assert await store.unfinished.claim_due(NOW, 10) == []
    (again,) = await store.unfinished.claim_due(NOW + RETRY.lease, 10)
    assert again.attempts == 2


async def test_one_is_put_off_unless_it_was_finished(store: Store) -> None:
    shipment = await add(store, pending())
    later = NOW + timedelta(days=1)
    await store.unfinished.put_off(shipment, later)
    assert await store.unfinished.next_due() == later
    shipment.stop(NOW)
    shipment.on_voided(FIRST, NOW)
    await save(store, shipment)
    await store.unfinished.put_off(shipment, later)
    assert await store.unfinished.next_due() is None


async def test_the_shipments_of_a_user_are_hers_alone(store: Store) -> None:
    first, second = await add(store, pending()), pending()
    second.user_id = first.user_id
    await add(store, second)
    await add(store, pending())
    assert first.user_id is not None
    user_id = first.user_id
    assert await store.uow.run(lambda tx: tx.shipments.of_user(user_id)) == [first, second]


async def test_an_erased_account_is_remembered(store: Store) -> None:
    shipment, other = replace(waiting(), user_id=uuid4()), replace(waiting(), user_id=uuid4())
    known = await add(store, waiting())
    assert shipment.user_id is not None
    user_id = shipment.user_id
    for _ in range(2):
        await store.uow.run(lambda tx: tx.erased_users.add(user_id, NOW))
    begun = [
        await begin(store, each) for each in (shipment, other, replace(shipment, order_id=known.order_id))
    ]
    assert [each.erased for each in begun] == [True, False, True]
    stored = await store.reader.get(shipment.shipment_id)
    assert stored is not None
    assert stored.erased


def by(version: int) -> Callable[[dict[UUID, int]], Callable[[ports.Tx], Awaitable[None]]]:
    return lambda grams: lambda tx: tx.weights.learn(grams, version)


async def test_the_latest_version_says_what_a_variant_weighs(store: Store) -> None:
    one, other, unweighed = uuid4(), uuid4(), uuid4()
    await store.uow.run(by(2)({one: 1200, other: 50, unweighed: 0}))
    await store.uow.run(by(1)({one: 7, other: 7}))
    await store.uow.run(by(2)({one: 8}))
    await store.uow.run(by(3)({other: 60}))
    assert await store.weights.of([one, other, unweighed, uuid4()]) == {one: 1200, other: 60}
    await store.uow.run(by(4)({other: 0}))
    assert await store.weights.of([one, other]) == {one: 1200}
    assert await store.weights.of([]) == {}
    await store.uow.run(by(5)({}))
