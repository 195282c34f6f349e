"""What must hold: at every moment, and in the books of a shop at rest."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from stoa_cart import audit as cart_audit
from stoa_inventory import audit as inventory_audit
from stoa_inventory.model import HoldStatus
from stoa_ops.audit.books import Backlog, Charge, ShopBooks
from stoa_ops.audit.invariants import findings
from stoa_order import audit as order_audit
from stoa_order.model import Order, ShipmentStatus, Status
from stoa_order.returns import CAME_BACK, ReturnStatus, quantities
from stoa_payment import audit as payment_audit
from stoa_payment.model import ChargeStatus, PaymentStatus
from stoa_payment.testing import payment_of, refund_of
from stoa_shipping import audit as shipping_audit
from tests.model.services import USER, CartState, OrderState, PaymentState, StockState


def broken_now(order_id: UUID, state: OrderState, payment: PaymentState, stock: StockState) -> str:
    """Say what is wrong about an order, its money and the stock, whatever is under way; "" if nothing is."""
    return (
        _stock(stock)
        or _money(payment)
        or _confirmed(order_id, state, payment, stock)
        or _parcel(state)
        or _returns(state)
    )


def _parcel(state: OrderState) -> str:
    if (order := state.order) is None or not state.parcel.exists:
        return ""
    was_confirmed = any(change.status is Status.CONFIRMED for change in order.history)
    if order.status is Status.CANCELLED and was_confirmed and not state.parcel.stopped:
        return "an order was cancelled though its parcel may still leave"
    if state.parcel.has_left and state.parcel.stopped:
        return "a parcel left that was stopped"
    return ""


def _returns(state: OrderState) -> str:
    if (order := state.order) is None:
        return ""
    bought = order.purchase.quantities
    coming = quantities(
        item for each in order.returns if each.status is not ReturnStatus.REJECTED for item in each.items
    )
    if any(quantity > bought[key] for key, quantity in coming.items()):
        return f"{coming} are sent back of {bought}"
    owed = [each.refund for each in order.returns if each.status in CAME_BACK]
    if sum((amount.amount for amount in owed), Decimal(0)) > order.amounts.total.amount:
        return "more is given back for returns than was paid"
    return ""


def _stock(stock: StockState) -> str:
    promised: Counter[UUID] = Counter()
    for (_, variant_id), (quantity, status) in stock.rows.reservations:
        if status is HoldStatus.HELD:
            promised[variant_id] += quantity
    for variant_id, _ in stock.rows.stocks:
        count, reserved = stock.rows.counts(variant_id)
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
    order = state.order
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


def ordered_twice(orders: Iterable[OrderState], cart: CartState) -> str:
    """Say whether more is ordered than was put into the one cart; "" if not."""
    ordered: Counter[UUID] = Counter()
    for state in orders:
        order = state.order
        if order is not None and order.status in (Status.PENDING, Status.CONFIRMED):
            ordered.update({line.variant_id: line.quantity for line in order.lines})
    for variant_id, quantity in cart.put_in:
        if ordered[variant_id] > quantity:
            return f"{ordered[variant_id]} are ordered, {quantity} were put into the cart"
    return ""


def _cart_at_rest(orders: Iterable[OrderState], cart: CartState) -> str:
    """Nothing that was put into the cart is lost, or bought and still there."""
    left = Counter({item.variant_id: item.quantity for item in cart.at_last().items})
    bought: Counter[UUID] = Counter()
    was_confirmed = False
    for state in orders:
        order = state.order
        if order is None:
            continue
        was_confirmed |= any(change.status is Status.CONFIRMED for change in order.history)
        if order.status is Status.CONFIRMED:
            bought.update({line.variant_id: line.quantity for line in order.lines})
    for variant_id, put_in in cart.put_in:
        if left[variant_id] + bought[variant_id] > put_in:
            return f"{left[variant_id]} are in the cart and {bought[variant_id]} bought of {put_in}"
        # What was added while the rest was claimed does not add up: of the two, the larger stays.
        if not was_confirmed and left[variant_id] < put_in - cart.added:
            return f"{left[variant_id]} are in the cart of {put_in}, and nothing was bought"
    return ""


def broken_at_rest(
    orders: Iterable[tuple[UUID, OrderState, PaymentState]], stock: StockState, cart: CartState | None = None
) -> str:
    """Say what `stoa audit` finds in the books of a shop at rest; "" if they balance.

    The one cart that all orders are made of, if there is one, must be what is left of it.
    """
    orders = list(orders)
    if cart is not None and (lost := _cart_at_rest((state for _, state, _ in orders), cart)):
        return lost
    for _, state, payment in orders:
        if lost := _parcel_at_rest(state) or _refunds_at_rest(state, payment):
            return lost
    in_order: dict[UUID, order_audit.Order] = {}
    payments: list[payment_audit.Payment] = []
    refunds: list[payment_audit.OrderRefund] = []
    charges: list[Charge] = []
    for order_id, state, payment in orders:
        if (order := state.order) is not None:
            in_order[order_id] = _audited(order, state)
        payments += _payments(order_id, payment)
        refunds += _refunds(order_id, payment)
        charges += _charges(payment)
    books = ShopBooks(
        services={
            "order": order_audit.Books(in_order),
            "payment": payment_audit.Books(payments, refunds),
            "shipping": shipping_audit.Books(
                [shipment for order_id, state, _ in orders for shipment in _shipments(order_id, state)]
            ),
            "inventory": inventory_audit.Books(
                {key: inventory_audit.Count(*stock.rows.counts(key)) for key, _ in stock.rows.stocks},
                {key: inventory_audit.Count(*counts) for key, counts in stock.rows.moved},
                [
                    inventory_audit.Reservation(*key, quantity, status.value)
                    for key, (quantity, status) in stock.rows.reservations
                ],
                _restocked(stock),
            ),
            "cart": cart_audit.Books(
                [
                    cart_audit.Claim(USER, claim.order_id, claim.state)
                    for claim in (cart.claims if cart is not None else ())
                ]
            ),
        },
        charges=charges,
        parcels=(),
        backlogs={"order": Backlog(0, timedelta(0))},
    )
    return "; ".join(f"{found.rule}: {found.detail}" for found in findings(books))


def _parcel_at_rest(state: OrderState) -> str:
    """Where the parcel is, the order must know it to be."""
    order, parcel = state.order, state.parcel
    if order is None:
        return ""
    if order.cancellation is not None:
        return "nobody finds out whether an order is cancelled"
    if not parcel.exists:
        return ""
    knows = {
        ShipmentStatus.IN_TRANSIT: (Status.SHIPPED,),
        ShipmentStatus.DELIVERED: (Status.DELIVERED, Status.RETURNED),
        ShipmentStatus.CREATED: (Status.CONFIRMED,),
        ShipmentStatus.STOPPED: (Status.CANCELLED,),
    }
    if parcel.status and order.status not in knows[ShipmentStatus(parcel.status)]:
        return f"the parcel is {parcel.status}, and its order {order.status}"
    if order.status is Status.CONFIRMED and not parcel.status:
        return "nothing is sent for a confirmed order"
    return ""


def _refunds_at_rest(state: OrderState, payment: PaymentState) -> str:
    """Less than is owed for what came back is given back only where no more is left."""
    if (order := state.order) is None:
        return ""
    back = [each for each in order.returns if each.status is ReturnStatus.REFUNDED]
    owed = order.purchase.owed(quantities(item for each in back for item in each.items)).amount
    given = sum((each.refund.amount for each in back), Decimal(0))
    left = [made.amount - made.refunded - made.refunding for made in map(payment_of, payment.rows.payments)]
    return f"{given} is given back of {owed}, and {left} is left" if given < owed and any(left) else ""


def _shipments(order_id: UUID, state: OrderState) -> Iterator[shipping_audit.Shipment]:
    """The parcel as shipping has it; where it is none of the scenario's concern, it is where it should be."""
    order, parcel = state.order, state.parcel
    if order is not None and order.status is Status.CONFIRMED and not parcel.exists:
        yield shipping_audit.Shipment(order_id, order_id, ShipmentStatus.CREATED.value)
    elif parcel.status:
        yield shipping_audit.Shipment(order_id, order_id, parcel.status)


def _restocked(stock: StockState) -> Mapping[UUID, Mapping[UUID, int]]:
    returned: dict[UUID, dict[UUID, int]] = {}
    for (order_id, variant_id), quantity in stock.rows.returned:
        returned.setdefault(order_id, {})[variant_id] = quantity
    return returned


def _refunds(order_id: UUID, payment: PaymentState) -> Iterator[payment_audit.OrderRefund]:
    for refund in map(refund_of, payment.rows.refunds):
        if refund.key.namespace == "service:order":
            yield payment_audit.OrderRefund(
                order_id, refund.key.request_id, refund.amount.amount, refund.status.value
            )


def outcome(state: OrderState) -> str:
    """Say where an order stands; "" if it was not placed."""
    return state.order.status.value if state.order else ""


def cancelled_for_nothing(state: OrderState, hindrances: tuple[str, ...]) -> str:
    """Say why an order was cancelled though nothing stood in its way; "" if something did.

    `hindrances` are how the reasons begin that there may be. A shop that refuses every order keeps all other
    promises: books without money and stock always balance.
    """
    order = state.order
    if order is None or order.status is not Status.CANCELLED:
        return ""
    reason = order.history[-1].reason
    return "" if reason.startswith(hindrances) else f"an order was cancelled for nothing: {reason}"


def _audited(order: Order, state: OrderState) -> order_audit.Order:
    return order_audit.Order(
        order.order_id,
        order.status.value,
        order.amounts.total.amount,
        order.version,
        len(state.rows.facts),
        next((saga.step for saga in state.rows.sagas), ""),
        Counter({line.variant_id: line.quantity for line in order.lines}),
        [
            order_audit.Return(each.return_id, each.status.value, quantities(each.items), each.refund.amount)
            for each in order.returns
        ],
    )


def _payments(order_id: UUID, payment: PaymentState) -> Iterator[payment_audit.Payment]:
    refunds = [refund_of(row) for row in payment.rows.refunds]
    for made in map(payment_of, payment.rows.payments):
        own = [refund for refund in refunds if refund.payment_id == made.payment_id]
        yield payment_audit.Payment(
            made.payment_id,
            order_id,
            made.amount.amount,
            made.refunded.amount,
            made.refunding.amount,
            made.status.value,
            made.charge_id,
            sum((refund.amount.amount for refund in own if not refund.is_pending), Decimal(0)),
            sum((refund.amount.amount for refund in own if refund.is_pending), Decimal(0)),
        )


def _charges(payment: PaymentState) -> Iterator[Charge]:
    for entry in payment.bank.charges:
        charge = entry.charge
        yield Charge(
            charge.charge_id,
            str(charge.order_id),
            charge.amount.amount,
            entry.refunded.amount,
            charge.status.value,
        )
