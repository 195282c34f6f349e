"""What must hold: at every moment, and in the books of a shop at rest."""

from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from uuid import UUID

from stoa_inventory import audit as inventory_audit
from stoa_inventory.model import HoldStatus
from stoa_ops.audit.books import Charge, ShopBooks
from stoa_ops.audit.invariants import findings
from stoa_order import audit as order_audit
from stoa_order.model import Order, Status
from stoa_payment import audit as payment_audit
from stoa_payment.model import ChargeStatus, PaymentStatus, RefundStatus
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
    told = list(orders)
    books = ShopBooks(
        services={
            "order": order_audit.Books({order.order_id: order for order in _orders(told)}),
            "payment": payment_audit.Books([made for *_, payment in told for made in _payments(payment)]),
            "inventory": _inventory_books(stock),
        },
        charges=[charge for *_, payment in told for charge in _charges(payment)],
    )
    return "; ".join(f"{found.rule}: {found.detail}" for found in findings(books))


def _order(order_id: UUID, state: OrderState) -> Order | None:
    facts = [recorded for _, recorded in state.rows.facts]
    return Order.replay(order_id, facts) if facts else None


def _orders(told: Iterable[tuple[UUID, OrderState, PaymentState]]) -> Iterator[order_audit.Order]:
    for order_id, state, _ in told:
        if (order := _order(order_id, state)) is not None:
            yield order_audit.Order(
                order_id,
                order.status.value,
                order.amounts.total.amount,
                order.version,
                len(state.rows.facts),
                "".join(saga.step for saga in state.rows.sagas),
                {line.variant_id: line.quantity for line in order.lines},
            )


def _payments(payment: PaymentState) -> Iterator[payment_audit.Payment]:
    refunds = [refund_of(row) for row in payment.rows.refunds]
    for made in map(payment_of, payment.rows.payments):
        sums = dict.fromkeys(RefundStatus, Decimal(0))
        for refund in refunds:
            if refund.payment_id == made.payment_id:
                sums[refund.status] += refund.amount.amount
        yield payment_audit.Payment(
            made.payment_id,
            made.order_id,
            made.amount.amount,
            made.refunded.amount,
            made.refunding.amount,
            made.status.value,
            made.charge_id,
            made=sums[RefundStatus.SUCCEEDED],
            promised=sums[RefundStatus.PENDING],
        )


def _charges(payment: PaymentState) -> Iterator[Charge]:
    for entry in payment.bank.charges:
        charge = entry.charge
        amounts = (charge.amount.amount, entry.refunded.amount)
        yield Charge(charge.charge_id, str(charge.order_id), *amounts, charge.status.value)


def _inventory_books(stock: StockState) -> inventory_audit.Books:
    return inventory_audit.Books(
        counts={key: inventory_audit.Count(*stock.rows.counts(key)) for key, _ in stock.rows.stocks},
        movements={key: inventory_audit.Count(*counts) for key, counts in stock.rows.moved},
        reservations=[
            inventory_audit.Reservation(*key, quantity, status.value)
            for key, (quantity, status) in stock.rows.reservations
        ],
    )
