"""What must hold of the books, whatever was killed and whenever. Pure functions of what was read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from stoa_ops.audit import event_rules
from stoa_ops.audit.books import Books, Charge, Payment
from stoa_ops.audit.findings import Finding

__all__ = ["Finding", "findings"]

_HOLDING = ("pending", "confirmed")  # an order that may have stock promised to it
_PAID = ("confirmed", "shipped", "delivered", "returned")
_PUBLISHED_WITHIN = timedelta(seconds=30)


def findings(books: Books) -> Iterator[Finding]:
    """Check everything."""
    yield from _every_order_is_settled(books)
    yield from _projections_match_their_events(books)
    yield from _money_moved_as_orders_say(books)
    yield from _the_gateway_agrees(books)
    yield from _stock_adds_up(books)
    yield from _promises_match_orders(books)
    yield from _events_are_published(books)
    yield from _nothing_is_parked(books)
    yield from event_rules.findings(books.events)


def _every_order_is_settled(books: Books) -> Iterator[Finding]:
    rule = "every order is settled"
    for order in books.orders.values():
        step = books.sagas.get(order.order_id)
        if order.status == "pending" or step:
            detail = f"{order.status}, waiting for: {step or 'nothing, its saga is lost'}"
            yield Finding(rule, f"order {order.order_id}", detail, f"stoa logs order | grep {order.order_id}")
    for payment in books.payments:
        if payment.status == "pending":
            detail = f"pending, {payment.amount}"
            look = f"stoa logs payment | grep {payment.payment_id}"
            yield Finding(rule, f"payment {payment.payment_id} of order {payment.order_id}", detail, look)


def _projections_match_their_events(books: Books) -> Iterator[Finding]:
    for order in books.orders.values():
        if order.version != order.facts:
            yield Finding(
                "projections match their events",
                f"order {order.order_id}",
                f"projected up to version {order.version}, its events go to {order.facts}",
                "stoa replay order",
            )


def _money_moved_as_orders_say(books: Books) -> Iterator[Finding]:
    """Charged exactly once for an order that goes on; for a cancelled one not at all, or refunded in full."""
    by_order: dict[UUID, list[Payment]] = defaultdict(list)
    for payment in books.payments:
        by_order[payment.order_id].append(payment)
    look = "GET /api/v1/payments/{payment_id} as staff, and the gateway's ledger"
    for order_id in by_order.keys() - books.orders.keys():
        yield Finding("no charge without an order", f"order {order_id}", str(by_order[order_id]), look)
    for order in books.orders.values():
        made = [
            payment for payment in by_order[order.order_id] if payment.status not in ("failed", "pending")
        ]
        if order.status in _PAID:
            amounts = [payment.amount for payment in made]
            if amounts != [order.total]:
                detail = (
                    f"{order.status}, to be charged {order.total} once, was charged {amounts or 'nothing'}"
                )
                yield Finding("a confirmed order is charged once", f"order {order.order_id}", detail, look)
        elif order.status == "cancelled":
            kept = sum((payment.amount - payment.refunded for payment in made), Decimal(0))
            if kept:
                detail = f"cancelled, but {kept} of the buyer's money was kept"
                yield Finding(
                    "a cancelled order is refunded in full", f"order {order.order_id}", detail, look
                )


def _the_gateway_agrees(books: Books) -> Iterator[Finding]:
    rule = "the gateway's ledger agrees"
    look = "the payments table against GET /v1/ledger of the gateway"
    ours = {payment.charge_id: payment for payment in books.payments if payment.charge_id}
    theirs = {charge.charge_id: charge for charge in books.charges}
    for charge_id in ours.keys() | theirs.keys():
        charge, payment = theirs.get(charge_id), ours.get(charge_id)
        if payment is None and _undone(charge):
            continue  # never ours, and given back at the gateway by hand
        if _taken(charge) != _booked(payment):
            detail = f"taken and given back: {_taken(charge)} there, {_booked(payment)} here"
            subject = (
                f"charge {charge_id} of order {charge.order_id if charge else payment and payment.order_id}"
            )
            yield Finding(rule, subject, detail, look)
    captured = Counter(charge.order_id for charge in books.charges if charge.status == "succeeded")
    for order_id, count in captured.items():
        if count > 1:
            yield Finding(rule, f"order {order_id}", f"captured {count} times", look)


def _taken(charge: Charge | None) -> tuple[Decimal, Decimal]:
    taken = charge is not None and charge.status == "succeeded"
    return (charge.amount, charge.refunded) if charge and taken else (Decimal(0), Decimal(0))


def _undone(charge: Charge | None) -> bool:
    return charge is not None and charge.amount == charge.refunded


def _booked(payment: Payment | None) -> tuple[Decimal, Decimal]:
    booked = payment is not None and payment.status not in ("pending", "failed")
    return (payment.amount, payment.refunded) if payment and booked else (Decimal(0), Decimal(0))


def _stock_adds_up(books: Books) -> Iterator[Finding]:
    held: Counter[UUID] = Counter()
    for reservation in books.reservations:
        if reservation.status == "held":
            held[reservation.variant_id] += reservation.quantity
    for variant_id, count in books.counts.items():
        subject, look = f"variant {variant_id}", "the tables inventory, stock_movements and reservations"
        moved = books.movements.get(variant_id)
        if (count.stock, count.reserved) != ((moved.stock, moved.reserved) if moved else (0, 0)):
            yield Finding("stock is the sum of its movements", subject, f"{count}, but moved {moved}", look)
        if not 0 <= count.reserved <= count.stock:
            yield Finding("nothing is oversold", subject, str(count), look)
        if count.reserved != held[variant_id]:
            detail = f"{count.reserved} reserved, {held[variant_id]} promised to orders"
            yield Finding("what is reserved is promised to orders", subject, detail, look)


def _promises_match_orders(books: Books) -> Iterator[Finding]:
    rule, look = "orders have the stock that they wait for, and no others", "the table reservations"
    held: dict[UUID, Counter[UUID]] = defaultdict(Counter)
    for reservation in books.reservations:
        if reservation.status == "held":
            held[reservation.order_id][reservation.variant_id] += reservation.quantity
    for order_id in held:
        order = books.orders.get(order_id)
        if order is None or order.status not in _HOLDING:
            state = order.status if order else "unknown"
            yield Finding(rule, f"order {order_id}", f"{state}, but stock is promised to it", look)
    for order in books.orders.values():
        if order.status == "confirmed" and held.get(order.order_id) != order.quantities:
            detail = (
                f"confirmed, but promised {dict(held.get(order.order_id, {}))} of {dict(order.quantities)}"
            )
            yield Finding(rule, f"order {order.order_id}", detail, look)


def _events_are_published(books: Books) -> Iterator[Finding]:
    for service, backlog in books.backlogs.items():
        if backlog.events and backlog.oldest > _PUBLISHED_WITHIN:
            detail = f"{backlog.events} not published, the oldest for {backlog.oldest.total_seconds():.0f} s"
            look = f"stoa outbox; stoa logs {service}"
            yield Finding("events are published", f"outbox of {service}", detail, look)


def _nothing_is_parked(books: Books) -> Iterator[Finding]:
    for topic, count in books.dead_letters.items():
        if count:
            service = topic.removesuffix(".dlq")
            detail = f"{count} messages that {service} could not process"
            yield Finding("no message is given up", topic, detail, f"stoa dlq list --group {service}")
