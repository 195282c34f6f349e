"""What the use cases rely on, of the store in memory and of PostgreSQL alike."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.due import Backoff
from stoa_chassis.memory import ConstraintViolated, MemoryStore, memory_unit_of_work
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_chassis.uow import UnitOfWork
from stoa_contracts.money import Money
from stoa_payment import ports, repository, testing
from stoa_payment.model import (
    Charge,
    ChargeStatus,
    GatewayRefund,
    Payment,
    PaymentNotFound,
    PaymentStatus,
    Refund,
    RefundTerms,
    RequestKey,
    RetryPolicy,
)

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
LEASE = timedelta(seconds=11)
BACKOFF = Backoff(timedelta(seconds=1), timedelta(seconds=15))
RETRY = RetryPolicy(LEASE, timedelta(hours=24))
REFUSED = (ConstraintViolated, asyncpg.IntegrityConstraintViolationError)


@dataclass
class Store:
    """One of the stores, behind the ports."""

    uow: UnitOfWork[ports.Tx]
    payments: ports.Payments
    refunds: ports.Refunds
    unsettled: ports.Unsettled
    published: Callable[[], Awaitable[list[str]]]


@pytest.fixture
def in_memory() -> Store:
    store = MemoryStore(testing.Rows())

    async def published() -> list[str]:
        return [event.topic for event in store.published]

    return Store(
        memory_unit_of_work(lambda: store, testing.open_tx),
        testing.Payments(lambda: store),
        testing.Refunds(lambda: store),
        testing.Unsettled(lambda: store, BACKOFF, LEASE),
        published,
    )


@pytest.fixture
async def in_postgres(database: Database, codec: EventCodec) -> Store:
    await database.execute("TRUNCATE payments, refunds, outbox")

    async def published() -> list[str]:
        return [row["topic"] for row in await database.fetch("SELECT topic FROM outbox ORDER BY id")]

    return Store(
        postgres_unit_of_work(database, codec, repository.open_tx, SystemClock()),
        repository.Payments(database),
        repository.Refunds(database),
        repository.Unsettled(database, BACKOFF, LEASE),
        published,
    )


@pytest.fixture(params=["in_memory", pytest.param("in_postgres", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    made: Store = request.getfixturevalue(request.param)
    return made


def a_payment(**changes: Any) -> Payment:
    amount = Money(Decimal(20), "USD")
    payment = Payment.begin(
        order_id=uuid4(),
        user_id=uuid4(),
        amount=amount,
        token="tok_visa",
        correlation_id="correlation",
        retry=RETRY,
        now=NOW,
    )
    for name, value in changes.items():
        setattr(payment, name, value)
    return payment


def key(request_id: str = "request", namespace: str = "user") -> RequestKey:
    return RequestKey(namespace, request_id)


KEY = key()


def promised(
    payment: Payment, amount: int | None = None, *, key: RequestKey = KEY, reason: str = ""
) -> Refund:
    """Promise a part back, or all that is left."""
    terms = RefundTerms(None if amount is None else Money(Decimal(amount), "USD"), reason)
    return payment.refund(terms, key=key, correlation_id="c", retry=RETRY, now=NOW)


async def paid(store: Store) -> Payment:
    payment = a_payment()
    await store.payments.add(payment)
    charge = Charge(f"ch_{uuid4()}", payment.order_id, payment.amount, ChargeStatus.SUCCEEDED, "visa", "4242")
    payment.settle(charge, NOW)
    await save(store, payment)
    return payment


async def save(store: Store, payment: Payment, *refunds: Refund) -> None:
    async def work(tx: ports.Tx) -> None:
        await tx.payments.save(payment)
        for refund in refunds:
            await tx.refunds.add(refund)

    await store.uow.run(work)


async def test_what_was_stored_is_read_as_it_was(store: Store) -> None:
    payment = a_payment()
    assert await store.payments.add(payment)
    assert await store.payments.get(payment.payment_id) == payment
    assert await store.payments.of_order(payment.order_id) == payment


async def test_a_payment_is_found_by_its_charge(store: Store) -> None:
    payment = await paid(store)
    await paid(store)
    assert await store.payments.of_charge(payment.charge_id or "") == payment
    assert await store.payments.of_charge("ch_unknown") is None


async def test_no_field_of_a_payment_is_lost(store: Store, a_full_payment: Payment) -> None:
    """Each field has a value in one of the two: some only a pending payment has, some only a settled one."""
    pending = replace(a_payment(attempts=1), held=True)
    for payment in (pending, a_full_payment):
        assert await store.payments.add(payment)
        assert await store.payments.get(payment.payment_id) == payment
    names = {field.name for field in fields(Payment)} - {"events"}
    assert {name for name in names if getattr(pending, name) or getattr(a_full_payment, name)} == names


async def test_no_field_of_a_refund_is_lost(store: Store, a_full_payment: Payment) -> None:
    await store.payments.add(a_full_payment)
    pending = promised(a_full_payment, 1, key=key("r1"), reason="broken")
    made = promised(a_full_payment, key=key("r2", "service:order"), reason="late")
    pending.attempts = 2
    a_full_payment.refund_made(made, GatewayRefund(f"re_{uuid4()}", made.refund_id), NOW + LEASE)
    await save(store, a_full_payment, pending, made)
    for refund in (pending, made):
        assert await store.refunds.get(refund.refund_id) == refund
    names = {field.name for field in fields(Refund)}
    assert {name for name in names if getattr(pending, name) or getattr(made, name)} == names


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(PaymentNotFound):
        await store.payments.get(uuid4())
    assert await store.payments.of_order(uuid4()) is None
    assert await store.refunds.get(uuid4()) is None
    assert await store.refunds.by_key(uuid4(), key()) is None


async def test_an_order_has_one_payment(store: Store) -> None:
    payment = a_payment()
    assert await store.payments.add(payment)
    assert not await store.payments.add(a_payment(order_id=payment.order_id))
    assert await store.payments.of_order(payment.order_id) == payment


async def test_a_saved_payment_publishes_its_events_once(store: Store) -> None:
    payment = await paid(store)
    assert (await store.payments.get(payment.payment_id)).status is PaymentStatus.SUCCEEDED
    await save(store, payment)
    assert await store.published() == ["payment.successful"]


async def test_a_transaction_that_fails_changes_and_publishes_nothing(store: Store) -> None:
    payment = await paid(store)

    async def fail(tx: ports.Tx) -> None:
        found = await tx.payments.lock(payment.payment_id)
        promised(found)
        await tx.payments.save(found)
        raise LookupError

    with pytest.raises(LookupError):
        await store.uow.run(fail)
    assert await store.payments.get(payment.payment_id) == payment
    assert await store.published() == ["payment.successful"]


async def test_a_refund_is_found_by_its_id_and_by_its_key(store: Store) -> None:
    payment = await paid(store)
    refund = promised(payment, reason="broken")
    await save(store, payment, refund)
    assert await store.refunds.get(refund.refund_id) == refund
    assert await store.refunds.by_key(payment.payment_id, key()) == refund
    assert await store.refunds.by_key(payment.payment_id, key("another")) is None
    assert await store.refunds.by_key(payment.payment_id, key(namespace="service:order")) is None
    assert await store.refunds.by_key(uuid4(), key()) is None


@pytest.mark.stack
async def test_the_keys_that_a_version_before_stored_are_still_those_of_who_chose_them(
    database: Database, in_postgres: Store
) -> None:
    """As that version wrote them: without a namespace, and without what was asked for."""
    cancelled, stuck, late = [await paid(in_postgres) for _ in range(3)]
    for payment, amount, request_id in (
        (cancelled, None, f"cancel-{cancelled.order_id}"),
        (stuck, 5, f"cancel-{stuck.order_id}"),
        (late, None, "late-capture"),
    ):
        await save(in_postgres, payment, promised(payment, amount, key=key(request_id)))
    await database.execute("UPDATE refunds SET of_rest = NULL")
    migration = files("stoa_payment") / "migrations" / "0002_refund_keys.sql"
    for statement in migration.read_text().split(";"):
        if "UPDATE refunds" in statement:
            await database.execute(statement)
    rows = await database.fetch("SELECT payment_id, key_namespace, of_rest FROM refunds")
    assert {payment_id: (namespace, of_rest) for payment_id, namespace, of_rest in rows} == {
        cancelled.payment_id: ("service:order", True),
        stuck.payment_id: ("user", None),  # something is left of it: the order service asks for all
        late.payment_id: ("service:payment", True),
    }


async def test_a_refund_that_was_made_is_stored_so(store: Store) -> None:
    payment = await paid(store)
    refund = promised(payment)
    await save(store, payment, refund)

    async def made(tx: ports.Tx) -> None:
        payment.refund_made(refund, GatewayRefund(f"re_{uuid4()}", refund.refund_id), NOW)
        await tx.refunds.save(refund)
        await tx.payments.save(payment)

    await store.uow.run(made)
    assert await store.refunds.get(refund.refund_id) == refund
    assert (await store.payments.get(payment.payment_id)).status is PaymentStatus.REFUNDED
    assert await store.published() == ["payment.successful", "payment.refunded"]


async def test_a_request_gives_money_back_once(store: Store) -> None:
    payment = await paid(store)
    await save(store, payment, promised(payment, 10))
    with pytest.raises(REFUSED, match="refunds_key"):
        await save(store, payment, promised(payment, 10))


async def test_the_same_request_id_of_two_callers_is_two_keys(store: Store) -> None:
    payment = await paid(store)
    ours, theirs = promised(payment, 10, key=key(namespace="service:order")), promised(payment, 10)
    await save(store, payment, ours, theirs)
    assert await store.refunds.by_key(payment.payment_id, key(namespace="service:order")) == ours
    assert await store.refunds.by_key(payment.payment_id, key()) == theirs


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"refunded": Money(Decimal(21), "USD")}, "payments_check"),
        ({"token": "tok_visa"}, "payments_check"),
        ({"next_check_at": NOW}, "payments_looked_after"),
        ({"status": PaymentStatus.REFUNDED, "held": True, "next_check_at": NOW}, "payments_looked_after"),
        ({"last4": "42"}, "payments_last4_check"),
    ],
)
async def test_what_the_books_forbid_is_not_stored(
    store: Store, change: dict[str, Any], constraint: str
) -> None:
    payment = await paid(store)
    for name, value in change.items():
        setattr(payment, name, value)
    with pytest.raises(REFUSED, match=constraint):
        await save(store, payment)


async def test_what_the_gateway_did_belongs_to_one_payment_or_refund(store: Store) -> None:
    first, second = await paid(store), await paid(store)
    second.charge_id = first.charge_id
    with pytest.raises(REFUSED, match="payments_gateway_charge_id_key"):
        await save(store, second)
    refunds = [promised(first, 10, key=key(f"r{number}")) for number in range(2)]
    for refund in refunds:
        first.refund_made(refund, GatewayRefund("re_of_both", refund.refund_id), NOW)
    with pytest.raises(REFUSED, match="refunds_gateway_refund_id_key"):
        await save(store, first, *refunds)


async def test_a_refund_is_of_a_payment_that_is_there(store: Store) -> None:
    known, other = await paid(store), a_payment()
    refund = promised(known)
    refund.payment_id = other.payment_id
    with pytest.raises(REFUSED, match="refunds_payment_id_fkey"):
        await save(store, known, refund)


async def test_what_is_due_is_taken_once_and_falls_due_again(store: Store) -> None:
    payment = a_payment()
    await store.payments.add(payment)
    assert await store.unsettled.next_due() == NOW + LEASE
    assert not await store.unsettled.claim_due(NOW, 10)
    due = NOW + LEASE
    (claimed,) = await store.unsettled.claim_due(due, 10)
    assert isinstance(claimed, Payment)
    assert (claimed.payment_id, claimed.attempts) == (payment.payment_id, 1)
    assert not await store.unsettled.claim_due(due, 10)
    assert await store.unsettled.next_due() == due + LEASE


async def test_the_pause_grows_beyond_the_lease_up_to_the_longest(store: Store) -> None:
    await store.payments.add(a_payment(attempts=30))
    await store.unsettled.claim_due(NOW + LEASE, 10)
    assert await store.unsettled.next_due() == NOW + LEASE + BACKOFF.longest


async def test_what_is_put_off_falls_due_then_unless_it_was_settled(store: Store) -> None:
    payment, settled = a_payment(), await paid(store)
    await store.payments.add(payment)
    for each in (payment, settled):
        await store.unsettled.put_off(each, NOW + timedelta(seconds=1))
    (claimed,) = await store.unsettled.claim_due(NOW + timedelta(seconds=1), 10)
    assert isinstance(claimed, Payment)
    assert claimed.payment_id == payment.payment_id


async def test_no_more_is_taken_than_asked_for_payments_first(store: Store) -> None:
    payment = await paid(store)
    refund = promised(payment)
    await save(store, payment, refund)
    await store.payments.add(a_payment())
    (first,) = await store.unsettled.claim_due(NOW + LEASE, 1)
    assert isinstance(first, Payment)
    (second,) = await store.unsettled.claim_due(NOW + LEASE, 1)
    assert isinstance(second, Refund)
    assert second.refund_id == refund.refund_id
