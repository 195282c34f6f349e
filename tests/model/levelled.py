"""What of a service's rows makes a state of the shop.

When something is taken up again is for the model to say, so that times and numbers of attempts decide
nothing. Levelled, rows that differ in nothing else are the same. What is put off for longer than anything may
wait stays apart: nobody will take it up.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from stoa_order import testing as order
from stoa_order.model import Saga
from stoa_payment import testing as payment
from stoa_payment.model import Payment, Refund

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONGEST_WAIT = timedelta(seconds=30)
_NEVER = datetime.max.replace(tzinfo=UTC)


def orders(rows: order.Rows) -> order.Rows:
    """Let facts be recorded now, and sagas have come to their steps now."""
    facts = tuple(fact if fact[1].at == NOW else (fact[0], replace(fact[1], at=NOW)) for fact in rows.facts)
    return order.Rows(facts, tuple(map(saga, rows.sagas)))


def saga(saga: Saga) -> Saga:
    """Let a saga have come to its step now, and not have been taken up yet."""
    ago = saga.since - NOW
    deadline = saga.deadline and saga.deadline - ago
    return replace(saga, since=NOW, due=saga.due - ago, deadline=deadline, attempts=0)


def payments(rows: payment.Rows, now: datetime) -> payment.Rows:
    """Let what waits at `now` be due."""
    return payment.Rows(
        tuple(payment_row(payment.payment_of(row), now) for row in rows.payments),
        tuple(refund_row(payment.refund_of(row), now) for row in rows.refunds),
    )


def payment_row(work: Payment, now: datetime) -> payment.Row:
    """Turn a payment into a row that says no more than that it is due."""
    _level(work, now)
    return payment.payment_row(work)


def refund_row(work: Refund, now: datetime) -> payment.Row:
    """Turn a refund into a row that says no more than that it is due."""
    _level(work, now)
    return payment.refund_row(work)


def _level(work: Payment | Refund, now: datetime) -> None:
    work.attempts = 0
    work.updated_at = NOW
    if work.next_check_at is not None:
        work.next_check_at = NOW if work.next_check_at <= now + LONGEST_WAIT else _NEVER
