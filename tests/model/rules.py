"""What must hold: at every moment, and in the books of a shop at rest."""

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from stoa_inventory.model import HoldStatus
from stoa_ops.audit import books as audit
from stoa_ops.audit.invariants import findings
from stoa_order.model import Order, Status
from stoa_payment.model import ChargeStatus, PaymentStatus
from tests.model.memory import OrderRows, StockRows, payment_of
from tests.model.services import PaymentState


def broken_now(order_id: UUID, rows: OrderRows, payment: PaymentState, stock: StockRows) -> str:
    """Say what is wrong about an order, its money and the stock, whatever is under way; "" if nothing is."""
    return _stock(stock) or _money(payment) or _confirmed(order_id, rows, payment, stock)


def _stock(stock: StockRows) -> str:
    promised: Counter[UUID] = Counter()
    for (_, variant_id), (quantity, status) in stock.reservations:
        if status is HoldStatus.HELD:
            promised[variant_id] += quantity
    for variant_id, (count, reserved) in stock.counts:
        if not 0 <= reserved <= count:
            return f"oversold: {reserved} of {count} are reserved"
        if reserved != promised[variant_id]:
            return f"{reserved} are reserved, {promised[variant_id]} promised to orders"
    return ""


def _money(payment: PaymentState) -> str:
    taken = [entry for entry in payment.bank.charges if entry.charge.status is ChargeStatus.SUCCEEDED]
    if len(taken) > 1:
        return f"the gateway charged the order {len(taken)} times"
    for entry in payment.bank.charges:
        if entry.refunded > entry.charge.amount:
            return f"{entry.refunded} of {entry.charge.amount} were given back"
    for made in map(payment_of, payment.rows.payments):
        if made.refunded + made.refunding > made.amount:
            return f"{made.refunded + made.refunding} of {made.amount} are given back"
        if made.status not in (PaymentStatus.PENDING, PaymentStatus.FAILED) and not taken:
            return "a payment is booked that the gateway did not take"
    return ""


def _confirmed(order_id: UUID, rows: OrderRows, payment: PaymentState, stock: StockRows) -> str:
    order = Order.replay(order_id, rows.facts)
    if not rows.facts or order.status is not Status.CONFIRMED:
        return ""
    charges = [entry.charge for entry in payment.bank.charges]
    if [(c.status, c.amount) for c in charges] != [(ChargeStatus.SUCCEEDED, order.amounts.total)]:
        return "a confirmed order was not charged its total"
    held = {
        (variant_id, quantity)
        for (owner, variant_id), (quantity, status) in stock.reservations
        if owner == order_id and status is HoldStatus.HELD
    }
    if held != {(line.variant_id, line.quantity) for line in order.lines}:
        return "a confirmed order does not hold its stock"
    return ""


def broken_at_rest(orders: Iterable[tuple[UUID, OrderRows, PaymentState]], stock: StockRows) -> str:
    """Say what `stoa audit` finds in the books of a shop at rest; "" if they balance."""
    books = audit.Books()
    for order_id, rows, payment in orders:
        _add_order(books, order_id, rows)
        _add_money(books, order_id, payment)
    books.counts = {key: audit.Count(*counts) for key, counts in stock.counts}
    books.movements = {key: audit.Count(*counts) for key, counts in stock.moved}
    books.reservations = [
        audit.Reservation(*key, quantity, status.value) for key, (quantity, status) in stock.reservations
    ]
    books.backlogs = {"order": audit.Backlog(0, timedelta(0))}
    return "; ".join(f"{found.rule}: {found.detail}" for found in findings(books))


def _add_order(books: audit.Books, order_id: UUID, rows: OrderRows) -> None:
    if rows.saga:
        books.sagas[order_id] = rows.saga.step
    if not rows.facts:
        return
    order = Order.replay(order_id, rows.facts)
    books.orders[order_id] = audit.Order(
        order_id,
        order.status.value,
        order.amounts.total.amount,
        Counter({line.variant_id: line.quantity for line in order.lines}),
        order.version,
        len(rows.facts),
    )


def _add_money(books: audit.Books, order_id: UUID, payment: PaymentState) -> None:
    # Each order has a gateway of its own here: its ids are made different for the common books.
    for made in map(payment_of, payment.rows.payments):
        charge_id = f"{order_id}/{made.charge_id}" if made.charge_id else None
        amounts = (made.amount.amount, made.refunded.amount)
        books.payments.append(
            audit.Payment(made.payment_id, order_id, *amounts, made.status.value, charge_id)
        )
    for entry in payment.bank.charges:
        charge = entry.charge
        charge_id = f"{order_id}/{charge.charge_id}"
        amounts = (charge.amount.amount, entry.refunded.amount)
        books.charges.append(audit.Charge(charge_id, str(charge.order_id), *amounts, charge.status.value))
