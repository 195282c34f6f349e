"""The real services, each as a function from a state and an input to a state and what it sends.

Nothing of a service is modelled: its use cases, its engine, its entities and its mapping to messages run as
they are, on the stores of `memory`. What stands in for the wiring around them is small: a stub that takes
calls, and in place of the loop of payment's reconciler what one turn of it does.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import patch
from uuid import UUID

from google.protobuf.message import Message

from stoa.payment.v1 import payment_pb2
from stoa_chassis.auth import Principal
from stoa_chassis.avro import Event
from stoa_chassis.context import bound
from stoa_chassis.errors import DomainError
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.validation import RequestCheck
from stoa_contracts.money import Money
from stoa_events import (
    InventoryOutOfStock,
    InventoryReserved,
    OrderCancelled,
    OrderPlaced,
    PaymentFailed,
    PaymentRefunded,
    PaymentSuccessful,
)
from stoa_inventory import events as inventory_events
from stoa_inventory.repository import Tx as InventoryTx
from stoa_inventory.service import Inventory
from stoa_order import events as order_events
from stoa_order import peers
from stoa_order.engine import SagaEngine
from stoa_order.model import Address, CartLine, Offer, Tariff
from stoa_order.repository import DueSaga
from stoa_order.repository import Tx as OrderTx
from stoa_order.service import Orders, PlaceOrder
from stoa_payment.api import PaymentServicer
from stoa_payment.model import Payment, Refund, RetryPolicy
from stoa_payment.repository import Tx as PaymentTx
from stoa_payment.service import Payments, RefundPayment
from tests.model import memory
from tests.model.memory import (
    ANSWERED,
    LINGERS,
    LOST,
    MUCH_LATER,
    NOW,
    UNREACHED,
    Bank,
    Cell,
    Gateway,
    OrderReader,
    OrderRows,
    PaymentRows,
    Run,
    StockRows,
    Suspended,
    UnitOfWork,
)

USER = UUID(int=1)
_PRICE = Money(Decimal(10), "USD")
_TARIFF = Tariff({"standard": Money(Decimal(1), "USD")}, Decimal(0))
_ADDRESS = Address("A. Buyer", "1 Street", "", "Town", "", "12345", "US")
_RETRY = RetryPolicy(timedelta(seconds=1), timedelta(seconds=15), timedelta(seconds=11), timedelta(hours=24))
_STAFF_REFUND = Money(Decimal(4), "USD")

HEARD_BY_ORDER = (
    InventoryReserved,
    InventoryOutOfStock,
    PaymentSuccessful,
    PaymentFailed,
    PaymentRefunded,
)
HEARD_BY_INVENTORY = (OrderPlaced, OrderCancelled)
TOPICS: tuple[type, ...] = (*HEARD_BY_INVENTORY, *HEARD_BY_ORDER)


def variant(number: int) -> UUID:
    """The id of a variant."""
    return UUID(int=100 + number)


@dataclass(frozen=True)
class Question:
    """What the order service asks payment: a message on the wire, which may get lost or come twice."""

    kind: str
    message: bytes


@dataclass(frozen=True)
class Outcome:
    """What an input led to. `problem` is an error that no service should ever see."""

    state: Any
    events: tuple[Any, ...] = ()
    questions: tuple[Question, ...] = ()
    problem: str = ""


@dataclass
class PaymentStub:
    """Takes the calls that order makes to payment. One that breaks the contract would never be answered."""

    asked: list[Question] = field(default_factory=list)
    refused: str = ""

    async def ProcessPayment(self, request: payment_pb2.ProcessPaymentRequest, **_: Any) -> None:
        self._take("charge", request)

    async def RefundPayment(self, request: payment_pb2.RefundPaymentRequest, **_: Any) -> None:
        self._take("refund", request)

    def _take(self, kind: str, request: Message) -> None:
        try:
            _CHECKS[type(request)](request)
        except DomainError as error:
            self.refused = f"payment refuses to {kind}: {error}"
        self.asked.append(Question(kind, request.SerializeToString(deterministic=True)))


_CHECKS: dict[type[Message], RequestCheck] = {
    request: RequestCheck(request)
    for request in (payment_pb2.ProcessPaymentRequest, payment_pb2.RefundPaymentRequest)
}


@contextmanager
def _ids_from(first: int) -> Iterator[None]:
    """Ids that are the same whenever the same happens, so that states can be told equal."""
    ids = map(lambda number: UUID(int=number), itertools.count(first))  # noqa: C417
    with (
        patch("stoa_order.model.new_id", lambda: next(ids)),
        patch("stoa_payment.model.new_id", lambda: next(ids)),
    ):
        yield


def _event(payload: Any, topic_position: int) -> Event[Any]:
    event_id = UUID(int=(payload.order_id.int << 16) + (TOPICS.index(type(payload)) << 8) + topic_position)
    return Event(event_id, payload.TOPIC, 1, NOW, "model", payload)


class OrderService:
    """One order in the order service."""

    def __init__(self, number: int, basket: tuple[tuple[UUID, int], ...], card: str, remembers: bool) -> None:
        self._first_id = (number + 1) << 16
        self._basket = basket
        self._card = card
        self._remembers = remembers
        self._loop = asyncio.new_event_loop()
        self.order_id = UUID(int=0)
        (placed,) = self.place(OrderRows()).events
        self.order_id = placed.order_id

    def close(self) -> None:
        self._loop.close()

    def place(self, rows: OrderRows) -> Outcome:
        """The buyer orders; sent twice it is one order."""
        command = PlaceOrder(USER, "request", _ADDRESS, "standard", self._card)
        with _ids_from(self._first_id):
            return self._do(rows, lambda orders, _: orders.place(command))

    def cancel(self, rows: OrderRows) -> Outcome:
        """The buyer cancels."""
        buyer = Principal(str(USER))
        return self._do(rows, lambda orders, _: orders.cancel(self.order_id, "changed my mind", buyer))

    def hear(self, rows: OrderRows, payload: Any, position: int) -> Outcome:
        """An event comes."""

        def handle(orders: Orders, _: SagaEngine) -> Awaitable[Any]:
            handler = order_events.handlers(orders).get(type(payload))
            return handler(_event(payload, position)) if handler else asyncio.sleep(0)

        return self._do(rows, handle)

    def claim(self, rows: OrderRows, overdue: bool) -> Outcome:
        """An instance finds that the saga is due: to be asked again, or because its deadline has passed."""
        assert rows.saga is not None
        due = DueSaga(self.order_id, rows.saga.step, overdue, rows.saga.token)
        return Outcome(replace(rows, claimed=due))

    def take_up(self, rows: OrderRows) -> Outcome:
        """The engine takes up what was claimed."""
        return self._do(rows, lambda _, engine: engine.look())

    def drop_claim(self, rows: OrderRows) -> Outcome:
        """The instance dies with what it claimed."""
        return Outcome(replace(rows, claimed=None))

    def _do(self, rows: OrderRows, act: Callable[[Orders, SagaEngine], Awaitable[Any]]) -> Outcome:
        cell, stub, clock = Cell(rows), PaymentStub(), memory.Clock()
        uow: Any = UnitOfWork(
            lambda: cell,
            lambda _, outbox: OrderTx(memory.Orders(cell), outbox),  # type: ignore[arg-type]
            self._remembers,
        )
        # What is in memory here has the methods of the real thing, not its type.
        engine = SagaEngine(uow, peers.Payments(stub), clock)  # type: ignore[arg-type]
        reader: Any = OrderReader(cell, self.order_id)
        orders = Orders(uow, reader, engine, clock, _TARIFF, self, self, self)  # type: ignore[arg-type]

        async def go() -> None:
            await act(orders, engine)
            await asyncio.gather(*engine._asking.values())

        problem = ""
        try:
            self._loop.run_until_complete(go())
        except (DomainError, AlreadyProcessed):
            pass
        except Exception as error:
            problem = f"order: {error!r}"
        problem = (
            problem or stub.refused or (cell.refused and f"order's database refuses a row: {cell.refused}")
        )
        return Outcome(cell.rows, tuple(cell.published), tuple(stub.asked), problem)

    # The peers that placing an order asks.

    async def lines(self, user_id: UUID) -> list[CartLine]:
        return [CartLine(key, key, quantity, _PRICE) for key, quantity in self._basket]

    async def offers(self, variant_ids: Any) -> list[Offer]:
        return [Offer(key, key, f"variant {key.int - 100}", _PRICE) for key in variant_ids]


class InventoryService:
    """The inventory service, whose stock all orders share."""

    def __init__(self, service: type[Inventory], remembers: bool) -> None:
        self._service = service
        self._remembers = remembers

    def hear(self, rows: StockRows, payload: Any, position: int) -> Outcome:
        """An event comes."""
        cell = Cell(rows)
        uow: Any = UnitOfWork(
            lambda: cell,
            lambda _, outbox: InventoryTx(memory.Stocks(cell), outbox),  # type: ignore[arg-type]
            self._remembers,
        )
        nothing: Any = None
        inventory = self._service(uow, nothing, nothing, memory.Clock())
        handler = inventory_events.handlers(inventory)[type(payload)]
        problem = ""
        try:
            _drive(handler(_event(payload, position)))
        except AlreadyProcessed:
            pass
        except Exception as error:
            problem = f"inventory can't take {payload.TOPIC}: {error!r}"
        return Outcome(cell.rows, tuple(e for e in cell.published if type(e) in TOPICS), (), problem)


@dataclass(frozen=True)
class Task:
    """A use case of payment that is under way: what for, what it saw so far, what it does next."""

    name: str
    argument: Any
    first_id: int
    past: tuple[Any, ...] = ()
    next_step: str = ""


_NAMES = ("charge", "refund", "refund by staff", "notice", "look after it", "see whether to give up")


@dataclass(frozen=True)
class PaymentState:
    """One order's payment: the service's rows, the gateway's books, and what is under way."""

    rows: PaymentRows = field(default_factory=PaymentRows)
    bank: Bank = field(default_factory=Bank)
    tasks: tuple[Task, ...] = ()


class PaymentService:
    """The payment of one order, and the gateway."""

    def __init__(
        self,
        order_id: UUID,
        service: type[Payments],
        store: type[memory.Payments],
        gateway: type[Gateway],
    ) -> None:
        self._order_id = order_id
        self._service = service
        self._store = store
        self._gateway = gateway

    def start(self, state: PaymentState, name: str, argument: Any) -> Outcome:
        """A use case begins, and comes to its first step."""
        # Two that begin at the same moment make different things, and so must the ids be; but asked twice for
        # the same they may be the same.
        rows = len(state.rows.payments) + len(state.rows.refunds)
        first_id = self._order_id.int + 0x1000 * (1 + _NAMES.index(name)) + 0x10 * rows
        return self._go_on(state, Task(name, argument, first_id), None)

    def step(self, state: PaymentState, number: int, choice: str) -> Outcome:
        """A use case does its next step, and comes to the one after it or to its end."""
        return self._go_on(self.die(state, number), state.tasks[number], choice)

    def die(self, state: PaymentState, number: int) -> PaymentState:
        """The instance dies in the middle of a use case."""
        tasks = state.tasks[:number] + state.tasks[number + 1 :]
        return replace(state, tasks=tasks)

    @staticmethod
    def choices(task: Task) -> tuple[str, ...]:
        """What may become of the next step; the first is what becomes of it if nothing is wrong."""
        return {"store": (ANSWERED,), "find": (ANSWERED, UNREACHED)}.get(
            task.next_step, (ANSWERED, LOST, UNREACHED, LINGERS)
        )

    def _go_on(self, state: PaymentState, task: Task, choice: str | None) -> Outcome:
        cell = Cell(state.rows)
        run = Run(cell, state.bank, task.past, choice)
        tasks, problem = state.tasks, ""
        try:
            with _ids_from(task.first_id), bound("model"):
                _drive(self._use_case(run, task))
        except Suspended as suspended:
            tasks = tuple(
                sorted((*tasks, replace(task, past=tuple(run.past), next_step=suspended.next_step)), key=repr)
            )
        except DomainError:
            pass  # the caller is told, and asks again
        except Exception as error:
            problem = f"payment: {error!r}"
        if cell.refused:
            problem = f"payment's database refuses a row: {cell.refused}"
        return Outcome(PaymentState(cell.rows, run.bank, tasks), tuple(cell.published), (), problem)

    def _use_case(self, run: Run, task: Task) -> Coroutine[Any, Any, Any]:
        def transaction(cell: Cell[PaymentRows], outbox: memory.Outbox) -> PaymentTx:
            payments, refunds = self._store(lambda: cell), memory.Refunds(lambda: cell)
            return PaymentTx(payments, refunds, outbox)  # type: ignore[arg-type]

        uow: Any = UnitOfWork(run.store, transaction)
        store: Any = self._store(run.store)
        refunds: Any = memory.Refunds(run.store)
        clock = memory.Clock(MUCH_LATER if task.name == "see whether to give up" else NOW)
        gateway = self._gateway(run, task.argument if task.name == "notice" else None)
        payments = self._service(uow, store, refunds, gateway, clock, _RETRY)
        match task.name:
            case "charge":
                charge = payment_pb2.ProcessPaymentRequest.FromString(task.argument.message)
                return PaymentServicer(payments).ProcessPayment(charge, None)
            case "refund":
                refund = payment_pb2.RefundPaymentRequest.FromString(task.argument.message)
                return PaymentServicer(payments).RefundPayment(refund, None)
            case "refund by staff":
                return payments.refund(RefundPayment(task.argument, "staff", _STAFF_REFUND, "kindness"))
            case "notice":
                return payments.receive_notice(b"", "")
            case _:
                return payments.look_after(task.argument())


@dataclass(frozen=True)
class PaymentDue:
    """A payment that was claimed to be looked after, as it was then."""

    row: memory.Row

    def __call__(self) -> Payment:
        return memory.payment_of(self.row)


@dataclass(frozen=True)
class RefundDue:
    """A refund that was claimed to be looked after, as it was then."""

    row: memory.Row

    def __call__(self) -> Refund:
        return memory.refund_of(self.row)


def _drive(work: Any) -> None:
    """Run a coroutine that waits for nothing outside of the model."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits for something that the model does not know")
