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
from stoa_payment.testing import payment_of
from tests.model.services import OrderState, PaymentState, StockState


def broken_now(order_id: UUID, state: OrderState, payment: PaymentState, stock: StockState) -> str:
    """Say what is wrong about an order, its money and the stock, whatever is under way; "" if nothing is."""
    return _stock(stock) or _money(payment) or _confirmed(order_id, state, payment, stock)


def _stock(stock: StockState) -> str:
    promised: Counter[UUID] = Counter()
    for (_, variant_id), (quantity, status) in stock.rows.reservations:
        if status is HoldStatus.HELD:
            promised[variant_id] += quantity
    for variant_id, (_, count, reserved, _, _) in stock.rows.stocks:
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


def _confirmed(order_id: UUID, state: OrderState, payment: PaymentState, stock: StockState) -> str:
    order = _order(order_id, state)
    if order is None or order.status is not Status.CONFIRMED:
        return ""
    charges = [entry.charge for entry in payment.bank.charges]
    if [(c.status, c.amount) for c in charges] != [(ChargeStatus.SUCCEEDED, order.amounts.total)]:
        return "a confirmed order was not charged its total"
    held = {
        (variant_id, quantity)
        for (owner, variant_id), (quantity, status) in stock.rows.reservations
        if owner == order_id and status is HoldStatus.HELD
    }
    if held != {(line.variant_id, line.quantity) for line in order.lines}:
        return "a confirmed order does not hold its stock"
    return ""


def broken_at_rest(orders: Iterable[tuple[UUID, OrderState, PaymentState]], stock: StockState) -> str:
    """Say what `stoa audit` finds in the books of a shop at rest; "" if they balance."""
    books = audit.Books()
    for order_id, state, payment in orders:
        _add_order(books, order_id, state)
        _add_money(books, order_id, payment)
    books.counts = {key: audit.Count(*stock.rows.counts(key)) for key, _ in stock.rows.stocks}
    books.movements = {key: audit.Count(*counts) for key, counts in stock.rows.moved}
    books.reservations = [
        audit.Reservation(*key, quantity, status.value) for key, (quantity, status) in stock.rows.reservations
    ]
    books.backlogs = {"order": audit.Backlog(0, timedelta(0))}
    return "; ".join(f"{found.rule}: {found.detail}" for found in findings(books))


def _order(order_id: UUID, state: OrderState) -> Order | None:
    facts = [recorded for _, recorded in state.rows.facts]
    return Order.replay(order_id, facts) if facts else None


def _add_order(books: audit.Books, order_id: UUID, state: OrderState) -> None:
    for saga in state.rows.sagas:
        books.sagas[order_id] = saga.step
    order = _order(order_id, state)
    if order is None:
        return
    books.orders[order_id] = audit.Order(
        order_id,
        order.status.value,
        order.amounts.total.amount,
        Counter({line.variant_id: line.quantity for line in order.lines}),
        order.version,
        len(state.rows.facts),
    )


def _add_money(books: audit.Books, order_id: UUID, payment: PaymentState) -> None:
    for made in map(payment_of, payment.rows.payments):
        amounts = (made.amount.amount, made.refunded.amount)
        books.payments.append(
            audit.Payment(made.payment_id, order_id, *amounts, made.status.value, made.charge_id)
        )
    for entry in payment.bank.charges:
        charge = entry.charge
        amounts = (charge.amount.amount, entry.refunded.amount)
        books.charges.append(
            audit.Charge(charge.charge_id, str(charge.order_id), *amounts, charge.status.value)
        )
