"""Whatever is done late is done under the correlation id of what caused it.

Somebody asks for an order; what follows from it may take until tomorrow, and another process may do it. Each
kind of late work is here, on stores in memory. What needs servers is shown where the servers are: a consumer
that tries again and a dead letter that is replayed (libs/chassis/tests/data/test_consumer.py), the relays of
all outboxes and the replay of projections (tests/e2e/test_correlation.py).
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from decimal import Decimal

import pytest

from stoa_chassis.auth import Principal
from stoa_chassis.avro import Event
from stoa_chassis.context import bound, correlation_id
from stoa_chassis.due import Backoff
from stoa_chassis.ids import new_id
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.testing import SettableClock
from stoa_contracts.money import Money
from stoa_order import testing as orders_in_memory
from stoa_order.engine import SagaEngine
from stoa_order.model import CartLine, OrderView
from stoa_order.ports import Peers
from stoa_order.saga import Answer, Timeouts
from stoa_order.service import Orders, PlaceOrder
from stoa_order.testing import ADDRESS, LINKS, TARIFF, WINDOW, FakePeers, paid, reserved
from stoa_payment import testing as payments_in_memory
from stoa_payment.model import Payment, RequestKey, RetryPolicy
from stoa_payment.service import Payments, ProcessPayment, RefundPayment
from stoa_payment.testing import FakeGateway, Fate

REQUEST = "what the buyer asked for"
MINUTE = timedelta(minutes=1)
BACKOFF = Backoff(timedelta(seconds=1), timedelta(seconds=15))


class Ordering:
    """The order service, with one order that is waited for."""

    def __init__(self) -> None:
        cart = [CartLine(new_id(), new_id(), 2, Money(Decimal(20), "USD"))]
        self.peers, self.clock = FakePeers(cart), SettableClock()
        self.store = MemoryStore(orders_in_memory.Rows())
        uow = memory_unit_of_work(lambda: self.store, orders_in_memory.open_tx, self.clock)
        sagas = orders_in_memory.DueSagas(lambda: self.store, BACKOFF)
        timeouts = Timeouts(stock=MINUTE, payment=MINUTE, retry=BACKOFF)
        views = orders_in_memory.OrderViews(lambda: self.store)
        peers = self.peers
        self.engine = SagaEngine(uow, sagas, Peers(peers, peers), self.clock, timeouts)
        self.orders = Orders(
            uow,
            views,
            self.engine,
            self.clock,
            TARIFF,
            timeouts,
            LINKS,
            WINDOW,
            peers,
            peers,
            peers,
            peers,
        )

    async def place(self) -> OrderView:
        command = PlaceOrder(
            user_id=new_id(),
            request_id="r",
            destination=ADDRESS,
            shipping_method="standard",
            payment_token="tok_visa",
        )
        with bound(REQUEST):
            return await self.orders.place(command)

    async def receive(self, payload: Answer, correlation: str = REQUEST) -> None:
        event = Event(new_id(), payload.TOPIC, 1, self.clock.now(), correlation, payload)
        with bound(correlation):
            await self.orders.on_answer(event)
        await self.engine.asked()

    async def later(self, **time: float) -> None:
        """Let time pass, and whoever looks take up what is due."""
        self.clock.advance(**time)
        await self.engine.due.work_off()
        await self.engine.asked()

    def published(self, topic: str) -> list[str]:
        return [event.correlation_id for event in self.store.published if event.topic == topic]


class Paying:
    """The payment service, with one payment that is not settled at once."""

    def __init__(self) -> None:
        self.gateway, self.clock = FakeGateway(), SettableClock()
        self.store = MemoryStore(payments_in_memory.Rows())
        retry = RetryPolicy(lease=timedelta(seconds=11), give_up_after=timedelta(hours=24))
        self.payments = Payments(
            memory_unit_of_work(lambda: self.store, payments_in_memory.open_tx, self.clock),
            payments_in_memory.Payments(lambda: self.store),
            payments_in_memory.Refunds(lambda: self.store),
            payments_in_memory.Unsettled(lambda: self.store, BACKOFF, retry.lease),
            self.gateway,
            self.clock,
            retry,
            BACKOFF,
        )

    async def charge(self, token: str = "tok_visa", fate: Fate = Fate.ANSWERED) -> Payment:
        self.gateway.fate = fate
        with bound(REQUEST):
            command = ProcessPayment(
                order_id=new_id(), user_id=new_id(), amount=Money(Decimal(20), "USD"), token=token
            )
            payment = await self.payments.process(command)
        self.gateway.fate = Fate.ANSWERED
        return payment

    async def notify(self) -> None:
        """The gateway tells what became of everything, under ids of its own."""
        for subject in self.gateway.bank.notices():
            with bound("a notice"):
                await self.payments.receive_notice(*self.gateway.notice(subject))

    async def later(self, **time: float) -> None:
        """Let time pass, and whoever looks take up what is due, until nothing is."""
        self.clock.advance(**time)
        while await self.payments.unsettled.work_off():
            self.clock.advance(minutes=1)

    def published(self, topic: str) -> list[str]:
        return [event.correlation_id for event in self.store.published if event.topic == topic]


async def an_order_whose_stock_times_out() -> Sequence[str]:
    ordering = Ordering()
    await ordering.place()
    await ordering.later(minutes=1)
    return ordering.published("order.cancelled")


async def an_order_whose_payment_times_out() -> Sequence[str]:
    ordering = Ordering()
    await ordering.receive(reserved(await ordering.place()))
    await ordering.later(minutes=1)
    return ordering.published("order.cancelled")


async def a_charge_that_is_asked_for_again() -> Sequence[str]:
    ordering = Ordering()
    ordering.peers.down = True
    await ordering.receive(reserved(await ordering.place()))
    ordering.peers.asked_for.clear()
    await ordering.later(seconds=2)
    return [correlation for correlation, _ in ordering.peers.asked_for]


async def a_refund_that_is_asked_for_again_after_a_timeout() -> Sequence[str]:
    ordering = Ordering()
    order = await ordering.place()
    await ordering.receive(reserved(order))
    await ordering.later(minutes=1)
    await ordering.receive(paid(order))
    ordering.peers.asked_for.clear()
    await ordering.later(minutes=1)
    return [correlation for correlation, _ in ordering.peers.asked_for]


async def a_refund_of_an_order_that_its_buyer_cancelled() -> Sequence[str]:
    ordering = Ordering()
    order = await ordering.place()
    await ordering.receive(reserved(order))
    ordering.peers.asked_for.clear()
    with bound("the cancellation"):
        await ordering.orders.cancel(order.order_id, "no", Principal(str(order.user_id)))
    await ordering.receive(paid(order))
    await ordering.later(minutes=1)
    return [correlation for correlation, _ in ordering.peers.asked_for]


async def a_charge_whose_answer_was_lost() -> Sequence[str]:
    paying = Paying()
    await paying.charge(fate=Fate.LOST)
    await paying.later(minutes=1)
    return paying.published("payment.successful")


async def a_charge_that_never_reached_the_gateway() -> Sequence[str]:
    paying = Paying()
    await paying.charge("tok_declined", Fate.UNREACHED)
    await paying.later(minutes=1)
    return paying.published("payment.failed")


async def a_charge_that_is_given_up() -> Sequence[str]:
    paying = Paying()
    await paying.charge(fate=Fate.UNREACHED)
    await paying.later(days=2)
    return paying.published("payment.failed")


async def a_charge_of_which_a_notice_tells() -> Sequence[str]:
    paying = Paying()
    await paying.charge("tok_timeout")
    paying.gateway.bank = paying.gateway.bank.capture()
    await paying.notify()
    return paying.published("payment.successful")


async def a_charge_that_is_captured_after_it_was_given_up() -> Sequence[str]:
    paying = Paying()
    await paying.charge(fate=Fate.LINGERS)
    await paying.later(days=2)
    paying.gateway.arrive()
    await paying.notify()
    await paying.later(minutes=1)
    return paying.published("payment.refunded")


def a_refund(payment: Payment) -> RefundPayment:
    return RefundPayment(
        payment_id=payment.payment_id, key=RequestKey("user", "r"), amount=None, reason="cancelled"
    )


async def a_refund_that_is_made_later() -> Sequence[str]:
    paying = Paying()
    payment = await paying.charge()
    paying.gateway.fate = Fate.UNREACHED
    with bound(REQUEST):
        await paying.payments.refund(a_refund(payment))
    paying.gateway.fate = Fate.ANSWERED
    await paying.later(minutes=1)
    return paying.published("payment.refunded")


async def a_refund_of_which_a_notice_tells() -> Sequence[str]:
    paying = Paying()
    payment = await paying.charge()
    paying.gateway.fate = Fate.LOST
    with bound(REQUEST):
        await paying.payments.refund(a_refund(payment))
    await paying.notify()
    return paying.published("payment.refunded")


LATE: Sequence[Callable[[], Awaitable[Sequence[str]]]] = (
    an_order_whose_stock_times_out,
    an_order_whose_payment_times_out,
    a_charge_that_is_asked_for_again,
    a_refund_that_is_asked_for_again_after_a_timeout,
    a_refund_of_an_order_that_its_buyer_cancelled,
    a_charge_whose_answer_was_lost,
    a_charge_that_never_reached_the_gateway,
    a_charge_that_is_given_up,
    a_charge_of_which_a_notice_tells,
    a_charge_that_is_captured_after_it_was_given_up,
    a_refund_that_is_made_later,
    a_refund_of_which_a_notice_tells,
)


@pytest.mark.parametrize("late", LATE, ids=lambda late: late.__name__)
async def test_late_work_is_done_under_the_correlation_id_of_what_caused_it(
    late: Callable[[], Awaitable[Sequence[str]]],
) -> None:
    ids = await late()
    assert ids, "it was not done at all"
    assert set(ids) == {REQUEST}
    assert correlation_id() == ""
