"""What must hold of the books, whatever was killed and whenever. Pure functions of what was read.

Rules that are one service's own stand in its `audit.py`; here are those that cross services.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from stoa_chassis.audit import Finding
from stoa_notification import audit as notification
from stoa_ops.audit import event_rules
from stoa_ops.audit.books import Charge, Parcel, ShopBooks
from stoa_ops.audit.event_log import LOOK_BACK
from stoa_ops.services import audits
from stoa_payment.audit import Payment
from stoa_shipping.audit import Shipment

_HOLDING = ("pending", "confirmed")  # an order that may have stock promised to it
_PAID = ("confirmed", "shipped", "delivered", "returned")
# A claim that holds something, and of which orders it may be: an open one lapses when its cart is used next.
_HELD_FOR = {"open": ("pending", "unknown"), "placed": ("pending",)}
# The keys of the refunds that the order service asks for, beside the ids of returns.
_OF_CANCELLED, _OF_REST = "cancel-", "-rest"
# How far the parcel of an order may be that is so far itself; None: nothing was heard of it.
_NOT_SENT = (None, "waiting", "stopped")
_PARCELS = {
    "pending": _NOT_SENT,
    "cancelled": _NOT_SENT,
    "confirmed": ("pending", "created"),
    "shipped": ("in_transit", "out_for_delivery", "exception", "returned"),
    "delivered": ("delivered",),
    "returned": ("delivered", "returned"),
}
_PUBLISHED_WITHIN = timedelta(seconds=30)


def findings(books: ShopBooks) -> Iterator[Finding]:
    """Check everything."""
    for audit in audits():
        if audit.findings is not None and audit.service.name in books.services:
            yield from audit.findings(books.services[audit.service.name])
    yield from _money_moved_as_orders_say(books)
    yield from _the_gateway_agrees(books)
    yield from _promises_match_orders(books)
    yield from _returns_are_refunded_and_restocked(books)
    yield from _parcels_match_orders(books)
    yield from _the_carriers_agree(books)
    yield from _claims_end_with_their_orders(books)
    yield from _ratings_follow_reviews(books)
    yield from _events_are_told_of(books)
    yield from _mails_are_of_notifications(books)
    yield from _what_is_sold_is_found(books)
    yield from _events_are_published(books)
    yield from _nothing_is_parked(books)
    yield from event_rules.findings(books.events)


def _money_moved_as_orders_say(books: ShopBooks) -> Iterator[Finding]:
    """Charged exactly once for an order that goes on; for a cancelled one not at all, or refunded in full.

    An order that is yet to be sent does not go on without the money.
    """
    by_order: dict[UUID, list[Payment]] = defaultdict(list)
    for payment in books.payment.payments:
        by_order[payment.order_id].append(payment)
    look = "GET /api/v1/payments/{payment_id} as staff, and the gateway's ledger"
    for order_id in by_order.keys() - books.order.orders.keys():
        yield Finding("no charge without an order", f"order {order_id}", str(by_order[order_id]), look)
    for order in books.order.orders.values():
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
            elif order.status == "confirmed" and made[0].refunded == order.total:
                detail = f"confirmed, but all of {order.total} was given back"
                yield Finding(
                    "an order that is refunded in full is cancelled",
                    f"order {order.order_id}",
                    detail,
                    "PUT /api/v1/orders/{order_id}/cancel as staff",
                )
        elif order.status == "cancelled":
            kept = sum((payment.amount - payment.refunded for payment in made), Decimal(0))
            if kept:
                detail = f"cancelled, but {kept} of the buyer's money was kept"
                yield Finding(
                    "a cancelled order is refunded in full", f"order {order.order_id}", detail, look
                )


def _the_gateway_agrees(books: ShopBooks) -> Iterator[Finding]:
    if books.charges is None:
        return
    rule = "the gateway's ledger agrees"
    look = "the payments table against GET /v1/ledger of the gateway"
    ours = {payment.charge_id: payment for payment in books.payment.payments if payment.charge_id}
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


def _promises_match_orders(books: ShopBooks) -> Iterator[Finding]:
    rule, look = "orders have the stock that they wait for, and no others", "the table reservations"
    held: dict[UUID, Counter[UUID]] = defaultdict(Counter)
    for reservation in books.inventory.reservations:
        if reservation.status == "held":
            held[reservation.order_id][reservation.variant_id] += reservation.quantity
    for order_id in held:
        order = books.order.orders.get(order_id)
        if order is None or order.status not in _HOLDING:
            state = order.status if order else "unknown"
            yield Finding(rule, f"order {order_id}", f"{state}, but stock is promised to it", look)
    for order in books.order.orders.values():
        if order.status == "confirmed" and held.get(order.order_id) != order.quantities:
            detail = (
                f"confirmed, but promised {dict(held.get(order.order_id, {}))} of {dict(order.quantities)}"
            )
            yield Finding(rule, f"order {order.order_id}", detail, look)


def _returns_are_refunded_and_restocked(books: ShopBooks) -> Iterator[Finding]:
    """What came back is given back once, and is on the shelf again; what did not come is neither."""
    look = "GET /api/v1/orders/{}/returns and the payment's refunds, as staff"
    given: dict[tuple[UUID, str], Decimal] = defaultdict(Decimal)
    for refund in books.payment.for_orders:
        if refund.status == "succeeded" and not refund.request_id.startswith(_OF_CANCELLED):
            given[refund.order_id, refund.request_id.removesuffix(_OF_REST)] += refund.amount
    for order in books.order.orders.values():
        subject = f"order {order.order_id}"
        for each in order.returns:
            back = given.pop((order.order_id, str(each.return_id)), Decimal(0))
            owed = {"refunded": each.refund, "received": back}.get(each.status, Decimal(0))
            if back != owed:
                detail = f"return {each.return_id} is {each.status}, {back} was given back of {owed}"
                yield Finding("what came back is given back", subject, detail, look.format(order.order_id))
        restocked = books.inventory.returned.get(order.order_id, {})
        if dict(order.came_back) != dict(restocked):
            detail = f"{dict(order.came_back)} came back, {dict(restocked)} is on the shelf again"
            yield Finding("what came back is on the shelf", subject, detail, "the table stock_movements")
    for (order_id, return_id), amount in given.items():
        detail = f"{amount} was given back for the return {return_id}, of which nothing is known"
        yield Finding("what came back is given back", f"order {order_id}", detail, look.format(order_id))


def _parcels_match_orders(books: ShopBooks) -> Iterator[Finding]:
    """What is confirmed is sent, what is cancelled is not, and an order is as far as its parcel."""
    look = "GET /api/v1/shipments/{order_id}/tracking as staff"
    shipments = {shipment.order_id: shipment for shipment in books.shipping.shipments}
    for order_id, shipment in shipments.items():
        if order_id not in books.order.orders and shipment.status not in _NOT_SENT:
            yield Finding("no parcel without an order", f"order {order_id}", shipment.status, look)
    for order in books.order.orders.values():
        sent = shipments.get(order.order_id)
        if (status := sent.status if sent else None) not in _PARCELS.get(order.status, (status,)):
            detail = f"{order.status}, but its parcel is {status or 'not heard of'}"
            yield Finding("an order is as far as its parcel", f"order {order.order_id}", detail, look)


def _the_carriers_agree(books: ShopBooks) -> Iterator[Finding]:
    """A carrier has what we say that it has, and nothing else is under way."""
    if books.parcels is None:
        return
    rule, look = "the carriers' ledger agrees", "the table shipments against GET /v1/ledger of the carriers"
    theirs: dict[str, list[Parcel]] = defaultdict(list)
    for parcel in books.parcels:
        if parcel.status != "voided":
            theirs[parcel.shipment_id].append(parcel)
    ours = {str(shipment.shipment_id): shipment for shipment in books.shipping.shipments}
    for shipment_id in ours.keys() | theirs.keys():
        shipment = ours.get(shipment_id)
        there = sorted((each.carrier, each.tracking_id, each.status) for each in theirs[shipment_id])
        here = _sent(shipment)
        if there != here:
            of_order = f" of order {shipment.order_id}" if shipment else ""
            detail = f"{there or 'nothing'} there, {here or 'nothing'} here"
            yield Finding(rule, f"shipment {shipment_id}{of_order}", detail, look)


def _sent(shipment: Shipment | None) -> list[tuple[str, str, str]]:
    if shipment is None or not shipment.carrier or shipment.status == "stopped":
        return []
    return [(shipment.carrier, shipment.tracking_id, shipment.bookings.get(shipment.carrier, ""))]


def _claims_end_with_their_orders(books: ShopBooks) -> Iterator[Finding]:
    """What an order is of is held for it while it is under way: not after its end, nor in the cart again."""
    rule, look = "a cart holds what its order under way is of, and no longer", "stoa logs cart | grep {}"
    for claim in books.cart.claims:
        order = books.order.orders.get(claim.order_id)
        status = order.status if order else "unknown"
        if claim.state == "lapsed" and order is not None:
            detail = f"{status}, but what it is of was put back into the cart of user {claim.user_id}"
        elif claim.state in _HELD_FOR and status not in _HELD_FOR[claim.state]:
            detail = f"{status}, but the cart of user {claim.user_id} still holds what it is of"
        else:
            continue
        yield Finding(rule, f"order {claim.order_id}", detail, look.format(claim.order_id))


def _ratings_follow_reviews(books: ShopBooks) -> Iterator[Finding]:
    """The catalogue shows the rating that the reviews of a product make."""
    rule = "the catalogue shows the rating that reviews make"
    look = "GET /api/v1/products/{product_id}, and stoa dlq list"
    made = {product_id: (each.count, each.total) for product_id, each in books.review.ratings.items()}
    shown = {product_id: (each.count, each.total) for product_id, each in books.catalog.ratings.items()}
    for product_id in made.keys() | shown.keys():
        right, there = made.get(product_id, (0, 0)), shown.get(product_id, (0, 0))
        if right != there:
            detail = f"how many and their sum: {right} by its reviews, {there} in the catalogue"
            yield Finding(rule, f"product {product_id}", detail, look)


def _events_are_told_of(books: ShopBooks) -> Iterator[Finding]:
    """By mail, once, or it is noted why not; and nothing is told of that did not happen."""
    if "notification" not in books.services:
        return
    rule, look = "users are told what happened", "stoa logs notification; the table notifications"
    by_mail = {each.cause_id for each in books.notification.notifications if each.channel == "email"}
    for event_id, written in books.events.written.items():
        if written.published and written.topic in notification.TOLD and event_id not in by_mail:
            yield Finding(rule, f"{written.topic} {event_id}", "nobody was told of it", look)
    since = books.events.began - LOOK_BACK
    for told in books.notification.notifications:
        if told.created_at > since and told.cause_id not in books.events.written:
            detail = f"{told.template} by {told.channel} tells of event {told.cause_id}, which there is not"
            yield Finding(rule, f"notification {told.notification_id}", detail, look)


def _mails_are_of_notifications(books: ShopBooks) -> Iterator[Finding]:
    """What was sent has arrived, and what has arrived was sent.

    A mail may have come again, as the same, if the notification service died before it noted the first time.
    """
    if books.mails is None:
        return
    rule, look = "what was mailed has arrived, and nothing else", "stoa mail list; the table notifications"
    mailed = {
        str(each.notification_id): each
        for each in books.notification.notifications
        if each.channel == "email"
    }
    arrived = {mail.message_id.strip("<>").partition("@")[0] for mail in books.mails}
    for notification_id, told in mailed.items():
        if told.provider == "smtp" and notification_id not in arrived:
            yield Finding(rule, f"notification {notification_id}", "sent, but it did not arrive", look)
    for notification_id in arrived:
        status = mailed[notification_id].status if notification_id in mailed else "unknown"
        if status != "sent":
            detail = f"it arrived, but its notification is {status}"
            yield Finding(rule, f"mail {notification_id}", detail, look)


def _what_is_sold_is_found(books: ShopBooks) -> Iterator[Finding]:
    """The index has what the catalogue sells, as it is now, with its rating, and what can be bought of it."""
    rule, look = "what is sold is found, and nothing else", "stoa logs search; stoa reindex"
    sold, shown = books.catalog.products, books.search.products
    in_stock = frozenset(books.inventory.in_stock)
    for product_id in sold.keys() | shown.keys():
        product, found = sold.get(product_id), shown.get(product_id)
        if product is None:
            detail = "is found, and not sold"
        elif found is None:
            detail = "is sold, and not found"
        elif product.version != found.version:
            detail = f"is found as of version {found.version}, and sold as of {product.version}"
        elif product.rating != found.rating:
            detail = f"is found with a rating of {found.rating}, and has {product.rating}"
        elif found.in_stock != in_stock.intersection(product.variants):
            detail = "is found with other variants in stock than the warehouse has"
        else:
            continue
        yield Finding(rule, f"product {product_id}", detail, look)


def _events_are_published(books: ShopBooks) -> Iterator[Finding]:
    for service, backlog in books.backlogs.items():
        if backlog.events and backlog.oldest > _PUBLISHED_WITHIN:
            detail = f"{backlog.events} not published, the oldest for {backlog.oldest.total_seconds():.0f} s"
            look = f"stoa outbox; stoa logs {service}"
            yield Finding("events are published", f"outbox of {service}", detail, look)


def _nothing_is_parked(books: ShopBooks) -> Iterator[Finding]:
    for topic, count in books.dead_letters.items():
        if count:
            service = topic.removesuffix(".dlq")
            detail = f"{count} messages that {service} could not process"
            yield Finding("no message is given up", topic, detail, f"stoa dlq list --group {service}")
