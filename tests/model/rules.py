"""What must hold: at every moment, and in the books of a shop at rest."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from uuid import UUID

from stoa_inventory import audit as inventory_audit
from stoa_inventory.audit import Count, Reservation
from stoa_inventory.model import HoldStatus
from stoa_ops.audit.books import Charge, ShopBooks
from stoa_ops.audit.invariants import findings
from stoa_order import audit as order_audit
from stoa_order.model import Order, Status
from stoa_payment import audit as payment_audit
from stoa_payment.model import ChargeStatus, PaymentStatus
from stoa_payment.testing import payment_of, refund_of
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
    orders = list(orders)
    states = {order_id: state for order_id, state, _ in orders}
    payments = [payment for _, _, payment in orders]
    books = ShopBooks(
        services={
            "order": order_audit.Books(dict(_orders(states))),
            "payment": payment_audit.Books([made for payment in payments for made in _payments(payment)]),
            "inventory": inventory_audit.Books(
                counts={key: Count(*stock.rows.counts(key)) for key, _ in stock.rows.stocks},
                movements={key: Count(*counts) for key, counts in stock.rows.moved},
                reservations=[
                    Reservation(*key, quantity, status.value)
                    for key, (quantity, status) in stock.rows.reservations
                ],
            ),
        },
        charges=[charge for payment in payments for charge in _charges(payment)],
    )
    return "; ".join(f"{found.rule}: {found.detail}" for found in findings(books))


def _order(order_id: UUID, state: OrderState) -> Order | None:
    facts = [recorded for _, recorded in state.rows.facts]
    return Order.replay(order_id, facts) if facts else None


def _orders(states: Mapping[UUID, OrderState]) -> Iterator[tuple[UUID, order_audit.Order]]:
    for order_id, state in states.items():
        order = _order(order_id, state)
        if order is not None:
            yield (
                order_id,
                order_audit.Order(
                    order_id=order_id,
                    status=order.status.value,
                    total=order.amounts.total.amount,
                    version=order.version,
                    facts=len(state.rows.facts),
                    step=next((saga.step for saga in state.rows.sagas), ""),
                    quantities=Counter({line.variant_id: line.quantity for line in order.lines}),
                ),
            )


def _payments(payment: PaymentState) -> Iterator[payment_audit.Payment]:
    refunds = [refund_of(row) for row in payment.rows.refunds]
    for made in map(payment_of, payment.rows.payments):
        of_it = [refund for refund in refunds if refund.payment_id == made.payment_id]
        yield payment_audit.Payment(
            payment_id=made.payment_id,
            order_id=made.order_id,
            amount=made.amount.amount,
            refunded=made.refunded.amount,
            refunding=made.refunding.amount,
            status=made.status.value,
            charge_id=made.charge_id,
            made=sum((refund.amount.amount for refund in of_it if not refund.is_pending), Decimal(0)),
            promised=sum((refund.amount.amount for refund in of_it if refund.is_pending), Decimal(0)),
        )


def _charges(payment: PaymentState) -> Iterator[Charge]:
    for entry in payment.bank.charges:
        charge = entry.charge
        amounts = (charge.amount.amount, entry.refunded.amount)
        yield Charge(charge.charge_id, str(charge.order_id), *amounts, charge.status.value)
