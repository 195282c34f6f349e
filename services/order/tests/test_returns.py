"""What may be sent back of an order, and what is given back for it."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_chassis.errors import InvalidArgument, RequestIdReused
from stoa_chassis.ids import new_id
from stoa_contracts.money import Money
from stoa_events import OrderItem, OrderReturnDecided, OrderReturned, OrderReturnRequested
from stoa_order.model import Order, ReturnRefundMade, Status
from stoa_order.returns import (
    NotReturnable,
    Purchase,
    Return,
    ReturnDecided,
    ReturnItem,
    ReturnNotFound,
    ReturnRequest,
    ReturnStatus,
    ReturnWindowClosed,
    TooManyReturns,
    quantities,
)
from stoa_order.testing import NOW, WINDOW, a_confirmed_order, a_delivered_order, a_line

LAMP, CHAIR = a_line("10.00", 3), a_line("7.77", 2)


def usd(text: str) -> Money:
    return Money(Decimal(text), "USD")


def delivered() -> Order:
    """Three lamps at 10.00 and two chairs at 7.77, 3.64 of tax and 14.90 of shipping."""
    return a_delivered_order(LAMP, CHAIR)


def wanted(lamps: int = 0, chairs: int = 0, reason: str = "too dark") -> ReturnRequest:
    items = ((LAMP, lamps), (CHAIR, chairs))
    return ReturnRequest(tuple(ReturnItem(line.variant_id, many) for line, many in items if many), reason)


def items_of(lamps: int = 0, chairs: int = 0) -> tuple[OrderItem, ...]:
    """So many of these, as events have them."""
    return tuple(
        OrderItem(
            product_id=line.product_id,
            variant_id=line.variant_id,
            quantity=many,
            price=line.price,
            name=line.name,
        )
        for line, many in ((LAMP, lamps), (CHAIR, chairs))
        if many
    )


def ask(order: Order, request: ReturnRequest, request_id: str = "") -> Return:
    return order.request_return(request_id or str(new_id()), request, WINDOW, NOW)


def bring(order: Order, request: ReturnRequest) -> Return:
    """Send something back until the warehouse has it."""
    made = ask(order, request)
    order.approve_return(made.return_id, "", NOW)
    return order.receive_return(made.return_id, "", NOW)


class TestAsking:
    def test_what_is_asked_for_is_noted_and_told(self) -> None:
        order = delivered()
        made = ask(order, wanted(lamps=1, chairs=2))
        assert (made.status, made.reason, made.refund) == (ReturnStatus.REQUESTED, "too dark", usd("27.58"))
        assert (made.decision, made.created_at) == ("", NOW)
        assert order.events[-1] == OrderReturnRequested(
            order_id=order.order_id,
            user_id=order.user_id,
            return_id=made.return_id,
            status="requested",
            items=items_of(lamps=1, chairs=2),
            refund_amount=usd("27.58"),
            reason="too dark",
        )
        assert order.status is Status.DELIVERED

    def test_the_same_request_asks_once_and_stands_for_one_thing(self) -> None:
        order = delivered()
        made = ask(order, wanted(lamps=1), "r")
        before = order.version
        assert ask(order, wanted(lamps=1), "r") == made
        assert order.version == before
        with pytest.raises(RequestIdReused) as refused:
            ask(order, wanted(lamps=2, reason="too bright"), "r")
        assert [violation.field for violation in refused.value.violations] == ["items", "reason"]

    def test_no_more_can_be_sent_back_than_was_bought_and_is_not_on_its_way_back(self) -> None:
        order = delivered()
        first = ask(order, wanted(lamps=2))
        with pytest.raises(InvalidArgument, match="only 1 of it can still be sent back"):
            ask(order, wanted(lamps=2))
        ask(order, wanted(lamps=1))
        with pytest.raises(InvalidArgument, match="nothing of it can still be sent back"):
            ask(order, wanted(lamps=1))
        order.reject_return(first.return_id, "", NOW)
        assert ask(order, wanted(lamps=2)).status is ReturnStatus.REQUESTED

    @pytest.mark.parametrize(
        ("items", "field"),
        [
            ([ReturnItem(LAMP.variant_id, 1), ReturnItem(UUID(int=7), 1)], "items[1].variant_id"),
            ([ReturnItem(LAMP.variant_id, 1), ReturnItem(LAMP.variant_id, 1)], "items[1].variant_id"),
            ([ReturnItem(CHAIR.variant_id, 3)], "items[0].quantity"),
        ],
    )
    def test_what_is_wrong_is_named(self, items: Sequence[ReturnItem], field: str) -> None:
        order = delivered()
        before = order.version
        with pytest.raises(InvalidArgument) as refused:
            ask(order, ReturnRequest(tuple(items), ""))
        assert [violation.field for violation in refused.value.violations] == [field]
        assert order.version == before

    def test_only_what_was_delivered_can_be_sent_back(self) -> None:
        with pytest.raises(NotReturnable, match="a confirmed order"):
            ask(a_confirmed_order(LAMP), wanted(lamps=1))

    def test_the_window_closes(self) -> None:
        order = delivered()
        assert order.delivered_at
        closes = order.delivered_at + WINDOW
        order.request_return("in time", wanted(lamps=1), WINDOW, closes)
        with pytest.raises(ReturnWindowClosed) as refused:
            order.request_return("late", wanted(lamps=1), WINDOW, closes + timedelta(seconds=1))
        assert refused.value.metadata == {"until": closes.isoformat()}
        again = order.request_return("in time", wanted(lamps=1), WINDOW, closes + timedelta(days=1))
        assert again == order.returns[0]

    def test_an_order_has_so_many_returns_however_many_were_rejected(self) -> None:
        order = delivered()
        for _ in range(100):
            order.reject_return(ask(order, wanted(lamps=1)).return_id, "", NOW)
        with pytest.raises(TooManyReturns):
            ask(order, wanted(lamps=1))


class TestDeciding:
    def test_an_approved_return_that_is_received_is_restocked_and_owed(self) -> None:
        order = delivered()
        made = ask(order, wanted(lamps=1))
        order.approve_return(made.return_id, "sorry", NOW)
        assert order.events[-1] == OrderReturnDecided(
            order_id=order.order_id,
            user_id=order.user_id,
            return_id=made.return_id,
            status="approved",
            items=items_of(lamps=1),
            refund_amount=usd("10.80"),
            reason="sorry",
        )
        assert not order.unpaid_returns
        received = order.receive_return(made.return_id, "", NOW)
        assert (received.status, received.decision) == (ReturnStatus.RECEIVED, "sorry")
        assert order.unpaid_returns == (received,)
        (back,) = order.events[-1:]
        assert back == OrderReturned(
            order_id=order.order_id,
            user_id=order.user_id,
            items=items_of(lamps=1),
            return_id=made.return_id,
            refund_amount=usd("10.80"),
        )
        order.on_return_refunded(ReturnRefundMade(made.return_id, received.refund), NOW)
        assert order.return_(made.return_id).status is ReturnStatus.REFUNDED
        assert not order.unpaid_returns

    def test_each_decision_twice_is_the_same_as_once(self) -> None:
        order = delivered()
        made, other = ask(order, wanted(lamps=1)), ask(order, wanted(lamps=1))
        for decide in (order.approve_return, order.receive_return):
            decide(made.return_id, "", NOW)
            before = order.version
            decide(made.return_id, "again", NOW)
            assert order.version == before
        order.approve_return(made.return_id, "", NOW)  # as it was before
        order.on_return_refunded(ReturnRefundMade(made.return_id, made.refund), NOW)
        order.on_return_refunded(ReturnRefundMade(made.return_id, made.refund), NOW)
        order.receive_return(made.return_id, "", NOW)
        assert order.return_(made.return_id).status is ReturnStatus.REFUNDED
        order.reject_return(other.return_id, "", NOW)
        before = order.version
        order.reject_return(other.return_id, "", NOW)
        assert order.version == before

    def test_a_decision_that_does_not_fit_is_refused(self) -> None:
        order = delivered()
        waiting, rejected = ask(order, wanted(lamps=1)), ask(order, wanted(lamps=1))
        received = bring(order, wanted(lamps=1))
        order.reject_return(rejected.return_id, "", NOW)
        before = order.version
        for decide, made in (
            (order.receive_return, waiting),
            (order.approve_return, rejected),
            (order.receive_return, rejected),
            (order.reject_return, received),
        ):
            with pytest.raises(ReturnDecided) as refused:
                decide(made.return_id, "", NOW)
            assert refused.value.metadata == {"status": order.return_(made.return_id).status.value}
        with pytest.raises(ReturnNotFound):
            order.approve_return(new_id(), "", NOW)
        assert order.version == before

    def test_an_approved_return_can_still_be_rejected(self) -> None:
        order = delivered()
        made = ask(order, wanted(lamps=1))
        order.approve_return(made.return_id, "", NOW)
        assert order.reject_return(made.return_id, "never came", NOW).status is ReturnStatus.REJECTED

    def test_an_order_is_returned_when_all_of_it_came_back(self) -> None:
        order = delivered()
        stood = []
        for part in (wanted(lamps=3, chairs=1), wanted(chairs=1)):
            bring(order, part)
            stood.append(order.status)
        assert stood == [Status.DELIVERED, Status.RETURNED]
        with pytest.raises(InvalidArgument):
            ask(order, wanted(lamps=1))


class TestRefunds:
    def test_a_part_is_worth_its_price_and_its_share_of_the_tax(self) -> None:
        order = delivered()
        assert bring(order, wanted(lamps=1)).refund == usd("10.80")

    def test_half_a_cent_of_tax_is_given_back_as_a_whole_one(self) -> None:
        lamp = LAMP.variant_id
        two_lamps = Purchase({lamp: 2}, {lamp: usd("1.00")}, shipping=usd("5.00"), tax=usd("0.01"))
        assert two_lamps.owed({}) == usd("0.00")
        assert two_lamps.owed({lamp: 1}) == usd("1.01")
        assert two_lamps.owed({lamp: 2}) == usd("7.01")

    def test_the_last_of_an_order_is_worth_what_shipping_cost_as_well(self) -> None:
        order = delivered()
        bring(order, wanted(lamps=3))
        last = bring(order, wanted(chairs=2))
        assert last.refund == order.amounts.total - usd("32.40")

    def test_what_is_foreseen_is_settled_when_it_comes(self) -> None:
        order = delivered()
        part, rest = ask(order, wanted(lamps=3)), ask(order, wanted(chairs=2))
        assert rest.refund == order.amounts.total - part.refund
        order.reject_return(part.return_id, "", NOW)
        order.approve_return(rest.return_id, "", NOW)
        assert order.receive_return(rest.return_id, "", NOW).refund == usd("16.78")

    @given(
        st.lists(
            st.tuples(st.decimals("0.01", "999.99", places=2), st.integers(1, 5)), min_size=1, max_size=5
        ),
        st.decimals("0", "30", places=2),
        st.decimals("0", "0.3", places=2),
        st.randoms(use_true_random=False),
    )
    def test_the_refunds_of_any_parts_add_up_to_what_was_paid_to_the_cent(
        self, lines: list[tuple[Decimal, int]], shipping: Decimal, rate: Decimal, random: object
    ) -> None:
        bought = {UUID(int=number): (Money(price, "USD"), many) for number, (price, many) in enumerate(lines)}
        subtotal = sum((price * many for price, many in bought.values()), usd("0.00"))
        tax = Money((subtotal.amount * rate).quantize(Decimal("0.01")), "USD")
        purchase = Purchase(
            {key: many for key, (_, many) in bought.items()},
            {key: price for key, (price, _) in bought.items()},
            Money(shipping, "USD"),
            tax,
        )
        pieces = [ReturnItem(key, 1) for key, (_, many) in bought.items() for _ in range(many)]
        random.shuffle(pieces)  # type: ignore[attr-defined]
        total, before = usd("0.00"), quantities(())
        for piece in pieces:
            refund = purchase.refund(before, [piece])
            assert refund >= purchase.prices[piece.variant_id]
            total += refund
            before = quantities([piece], before)
        assert total == subtotal + tax + Money(shipping, "USD")
