"""The whole shop as a state, and all that may happen next in it.

A state is a tuple of numbers: for each order what the order service has of it, its payment and its messages;
and the stock, which the orders share. What a number stands for is kept once, and what an input does to a part
is remembered, so that the real code runs once for each case and a further state costs microseconds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, NamedTuple

from stoa_cart.model import ClaimState
from stoa_cart.service import Carts
from stoa_contracts.events import Payload
from stoa_inventory.service import Inventory
from stoa_order import testing as order_memory
from stoa_order.model import ShipmentStatus, Status
from stoa_order.returns import ReturnStatus
from stoa_payment import testing as payment_memory
from stoa_payment.model import ChargeStatus, PaymentStatus
from stoa_payment.service import Payments
from stoa_payment.testing import Bank, Fate
from tests.model.parcel import NO_PARCEL, Parcel
from tests.model.rules import broken_at_rest, broken_now, cancelled_for_nothing, ordered_twice, outcome
from tests.model.services import (
    BRING_ON,
    CHANGED_MY_MIND,
    CLAIM,
    GIVE_UP,
    TO_CART,
    TO_INVENTORY,
    TO_ORDER,
    TO_SHIPPING,
    CartService,
    CartState,
    Claim,
    InventoryService,
    OrderService,
    OrderState,
    Outcome,
    PaymentDue,
    PaymentService,
    PaymentState,
    StaffRefund,
    StockState,
    Task,
    filled,
    stocked,
    variant,
)
from tests.model.stepwise import STORE, Gateway

State = tuple[int, ...]
_SHARES = 3  # numbers that each order has in a state: itself, its payment, its messages
_STOCK, _CART = -1, -2  # where in a state what all orders share is
# Who reads which topic. A topic that two read is two logs.
_READERS: tuple[tuple[type[Payload], ...], ...] = (TO_INVENTORY, TO_ORDER, TO_CART, TO_SHIPPING)
_TOPICS = tuple(topic for topics in _READERS for topic in topics)
_TO_INVENTORY, _TO_ORDER, _TO_CART, _TO_SHIPPING = (
    tuple(range(first, first + len(topics)))
    for first, topics in zip(accumulate(map(len, _READERS), initial=0), _READERS, strict=False)
)


@dataclass(frozen=True)
class Buyer:
    """Who orders: how many of each variant, and with which card (a token of the gateway)."""

    basket: tuple[int, ...]
    card: str = "tok_visa"


@dataclass(frozen=True)
class Scenario:
    """Who buys what, of how much, and what may go wrong.

    `tasks` is how many use cases of payment may be under way at once for an order; `faults` whether messages
    come twice or get lost, processes die and the gateway fails to answer; `remembers` whether consumers have
    an inbox; `staff` what staff may give back on their own; `payment_answers` whether there is a payment
    service at all: without it each question gets lost.

    With `one_cart` all orders are of one shopper, who orders what is in one cart in as many tabs, and puts in
    one more of the first variant up to `adds` times: the basket of the first buyer is what is in it. Claims
    lapse up to `lapses` times, since a cart is another whenever one has.

    With `ships` a carrier takes and delivers parcels, unless they are stopped, and the buyer wants to send
    one of the first variant back up to `returns` times. What is before the order comes to `begins` is left
    out.
    """

    stock: tuple[int, ...]
    buyers: tuple[Buyer, ...]
    tasks: int = 1
    faults: bool = True
    remembers: bool = True
    staff: tuple[StaffRefund, ...] = ()
    one_cart: bool = False
    adds: int = 0
    lapses: int = 2
    payment_answers: bool = True
    ships: bool = False
    returns: int = 0
    begins: Status | None = None

    def hindrances(self, buyer: Buyer) -> tuple[str, ...]:
        """How the reasons begin for which a buyer's order may be cancelled.

        Deadlines may pass, and payment may give up on the gateway, at any time.
        """
        bought = [sum(quantities) for quantities in zip(*(each.basket for each in self.buyers), strict=True)]
        bought[0] += self.adds
        scarce = any(wanted > there for wanted, there in zip(bought, self.stock, strict=True))
        refused = payment_memory.CARDS[buyer.card].status is ChargeStatus.FAILED
        return (
            CHANGED_MY_MIND,
            "stock could not be reserved in time",
            "payment timed out",
            "payment failed: gateway unavailable",
            "payment refunded",  # what was captured after that, or by staff
            *(["out of stock: "] if scarce else ()),
            *(["payment failed: "] if refused else ()),
        )


class Effect(NamedTuple):
    """What an input did to a part: its state then, and what it sent, all as numbers."""

    state: int
    events: tuple[tuple[int, int], ...]
    questions: tuple[int, ...]
    problem: str


class Messages(NamedTuple):
    """Messages of an order: what was published on each topic, how far it was handled, and open questions.

    Whether an event waits in the outbox, in the broker or at its consumer makes no difference to anybody:
    it comes late. Nor does it which of them died before it noted what it had done: the event comes again.
    """

    logs: tuple[tuple[int, ...], ...] = ((),) * len(_TOPICS)
    handled: tuple[int, ...] = (0,) * len(_TOPICS)
    questions: frozenset[int] = frozenset()

    def after(self, effect: Effect) -> "Messages":
        if not effect.events and not effect.questions:
            return self
        logs = list(self.logs)
        for topic, payload in effect.events:
            logs[topic] = (*logs[topic], payload)
        return Messages(tuple(logs), self.handled, self.questions.union(effect.questions))

    def waiting(self, topics: Iterable[int]) -> Iterator[tuple[int, int, int]]:
        """The next event of each topic: topic, position, payload."""
        for topic in topics:
            if self.handled[topic] < len(self.logs[topic]):
                yield topic, self.handled[topic], self.logs[topic][self.handled[topic]]

    def over(self, topics: Iterable[int]) -> Iterator[tuple[int, int, int]]:
        """The events that were handled."""
        for topic in topics:
            for position in range(self.handled[topic]):
                yield topic, position, self.logs[topic][position]

    def next_handled(self, topic: int) -> "Messages":
        handled = tuple(count + (at == topic) for at, count in enumerate(self.handled))
        return Messages(self.logs, handled, self.questions)

    def without(self, question: int) -> "Messages":
        return Messages(self.logs, self.handled, self.questions - {question})


class Move(NamedTuple):
    """Something that may happen to a part of a state. What is `due` happens unless something fails."""

    label: str
    after: tuple[int, ...]
    problem: str
    due: bool


Step = tuple[str, State, str]
CartMove = tuple[str, Mapping[int, int], str, bool]
"""What may happen to the one cart: what, what it changes of a state, what is wrong, and whether it is due."""


@dataclass
class Shop:
    """A shop in which a scenario is played; the classes are the real ones, or broken ones in their place."""

    scenario: Scenario
    inventory: type[Inventory] = Inventory
    payments: type[Payments] = Payments
    payment_store: type[payment_memory.Payments] = payment_memory.Payments
    gateway: type[Gateway] = Gateway
    carts: type[Carts] = Carts
    _things: list[Any] = field(default_factory=list)
    _numbers: dict[Any, int] = field(default_factory=dict)
    _effects: dict[tuple[Any, ...], Effect] = field(default_factory=dict)
    _claims: dict[int, Sequence[Claim]] = field(default_factory=dict)
    _late: dict[int, Sequence[tuple[str, Any]]] = field(default_factory=dict)
    _shared: dict[State, list[Move]] = field(default_factory=dict)
    _of_cart: dict[State, list[CartMove]] = field(default_factory=dict)
    _carts_after: dict[tuple[Any, ...], int] = field(default_factory=dict)
    _broken: dict[State, str] = field(default_factory=dict)
    _broken_at_rest: dict[State, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scenario = self.scenario
        self._orders = [
            OrderService(
                number,
                tuple((variant(i), quantity) for i, quantity in enumerate(buyer.basket) if quantity),
                buyer.card,
                scenario.remembers,
            )
            for number, buyer in enumerate(scenario.buyers)
        ]
        self._payments = [
            PaymentService(order.order_id, self.payments, self.payment_store, self.gateway)
            for order in self._orders
        ]
        # Of each order, what may happen to it and what is looked after, by its part of a state.
        self._own: list[dict[State, list[Move]]] = [{} for _ in self._orders]
        self._looks: list[dict[State, Move | None]] = [{} for _ in self._orders]
        self._inventory = InventoryService(self.inventory, scenario.remembers)
        self._cart = CartService(self.carts, scenario.remembers)
        # Of each topic, the logs that its events go to.
        unread = {*(() if scenario.one_cart else _TO_CART), *(() if scenario.ships else _TO_SHIPPING)}
        read = [log for log in range(len(_TOPICS)) if log not in unread]
        self._logs: dict[type[Payload], list[int]] = {
            topic: [log for log in read if _TOPICS[log] is topic] for topic in _TOPICS
        }
        basket = [(variant(i), quantity) for i, quantity in enumerate(scenario.buyers[0].basket) if quantity]
        cart = self._number(filled(basket))
        new = OrderState(parcel=Parcel() if scenario.ships else NO_PARCEL)
        each = (self._number(new), self._number(PaymentState()), self._number(Messages()))
        start: State = (*each * len(scenario.buyers), cart, self._number(stocked(scenario.stock)))
        self.start = self._begun(start) if scenario.begins else start

    def _begun(self, state: State) -> State:
        """Let the one buyer order, and her parcel be carried, until the order stands where it begins."""
        step: Step | None = next(move for move in self.moves(state) if move[0] == _ORDERS)
        while step is not None:
            state = step[1]
            while (step := self.onward(state)) is not None:
                state = step[1]
            if self.outcome(state) != (self.scenario.begins,):
                step = next(move for move in self.moves(state) if move[0].startswith(_SCAN))
        return state

    def close(self) -> None:
        """Let go of what the services hold."""
        for order in self._orders:
            order.close()
        for payment in self._payments:
            payment.close()
        self._cart.close()

    def _number(self, thing: Any) -> int:
        number = self._numbers.setdefault(thing, len(self._things))
        if number == len(self._things):
            self._things.append(thing)
        return number

    def _effect(self, act: Callable[..., Outcome[Any]], *key: Any) -> Effect:
        """What an input does; `key` are the numbers and words that it depends on."""
        found = self._effects.get(key)
        if found is None:
            outcome = act()
            found = self._effects[key] = Effect(
                self._number(outcome.state),
                tuple((log, self._number(e)) for e in outcome.events for log in self._logs.get(type(e), ())),
                tuple(map(self._number, outcome.questions)),
                outcome.problem,
            )
        return found

    # ----------------------------------------------------------------------------------- what may happen

    def moves(self, state: State) -> Iterator[Step]:
        """All that may happen next: what, the state after it, and what no service should ever see."""
        for number in range(len(self._orders)):
            for move in self._own_moves(number, self._of(state, number)):
                yield self._own_step(state, number, move)
            for move in self._shared_moves(number, state):
                yield self._shared_step(state, number, move)
        for label, after, problem, _ in self._moves_of_cart(state):
            yield label, after, problem

    @staticmethod
    def _of(state: State, number: int) -> State:
        return state[number * _SHARES : (number + 1) * _SHARES]

    def _own_step(self, state: State, number: int, move: Move) -> Step:
        at = number * _SHARES
        return move.label, state[:at] + move.after + state[at + _SHARES :], move.problem

    def _shared_step(self, state: State, number: int, move: Move) -> Step:
        messages, (_, stock) = (number + 1) * _SHARES - 1, move.after
        after = (*state[:messages], move.after[0], *state[messages + 1 : _STOCK], stock)
        return move.label, after, move.problem

    def _whose(self, number: int) -> str:
        return f"order {'ABC'[number]}: " if len(self._orders) > 1 else ""

    def _shared_moves(self, number: int, state: State) -> list[Move]:
        """An order's events come to inventory."""
        key = (state[(number + 1) * _SHARES - 1], state[_STOCK])
        if key not in self._shared:
            self._shared[key] = list(self._handled_by_inventory(number, *key))
        return self._shared[key]

    def _handled_by_inventory(self, number: int, messages_number: int, stock_number: int) -> Iterator[Move]:
        messages: Messages = self._things[messages_number]
        stock: StockState = self._things[stock_number]
        whose = self._whose(number)

        def handle(position: int, payload_number: int, messages: Messages, again: str) -> Move:
            payload = self._things[payload_number]
            effect = self._effect(
                lambda: self._inventory.handle(stock, payload, position),
                stock_number,
                payload_number,
                position,
            )
            label = f"{whose}inventory handles {payload.TOPIC}{again}"
            return Move(
                label, (self._number(messages.after(effect)), effect.state), effect.problem, not again
            )

        for topic, position, payload in messages.waiting(_TO_INVENTORY):
            yield handle(position, payload, messages.next_handled(topic), "")
        if self.scenario.faults:
            for _, position, payload in messages.over(_TO_INVENTORY):
                yield handle(position, payload, messages, " again")

    def _moves_of_cart(self, state: State) -> list[tuple[str, State, str, bool]]:
        """What happens to the one cart, each with the state after it."""
        if not self.scenario.one_cart:
            return []
        # Neither payments nor stock make a difference.
        key = (*(part for i, part in enumerate(state[:_CART]) if i % _SHARES != 1), state[_CART])
        if key not in self._of_cart:
            self._of_cart[key] = [
                *(move for number in range(len(self._orders)) for move in self._placing(number, state)),
                *(move for number in range(len(self._orders)) for move in self._told_to_cart(number, state)),
                *self._uses_of_cart(state),
            ]
        return [
            (label, self._with_changes(state, changes), problem, due)
            for label, changes, problem, due in self._of_cart[key]
        ]

    @staticmethod
    def _with_changes(state: State, changes: Mapping[int, int]) -> State:
        return tuple(changes.get(place, part) for place, part in enumerate(state))

    def _placing(self, number: int, state: State) -> Iterator[CartMove]:
        """A tab orders what is in the cart, step by step."""
        whose, at, of_cart = self._whose(number), number * _SHARES, len(state) + _CART
        order: OrderState = self._things[state[at]]
        messages: Messages = self._things[state[at + 2]]
        step = order.placing.next_step if order.placing else ""
        lost = step == CLAIM and self.scenario.faults
        for fate in (Fate.ANSWERED, Fate.LOST) if lost else (Fate.ANSWERED,):
            effect, cart = self._placed(number, state, fate)
            changes = {at: effect.state, at + 2: self._number(messages.after(effect)), of_cart: cart}
            what = f"the order goes on to {step}" if step else "the shopper orders"
            label = f"{whose}{what}{': answer lost' if fate is Fate.LOST else ''}"
            yield label, changes, effect.problem, bool(step) and fate is Fate.ANSWERED
        if step and self.scenario.faults:
            dead = self._number(replace(order, placing=None))
            yield f"{whose}the instance that places it dies", {at: dead}, "", False

    def _placed(self, number: int, state: State, fate: Fate) -> tuple[Effect, int]:
        """What the next step of placing an order does, and the cart after it."""
        places = [each * _SHARES for each in range(len(self._orders)) if each != number]
        others = tuple(state[place] for place in places)
        mine, cart = state[number * _SHARES], state[_CART]
        key = ("placing", number, mine, cart, others, fate)
        if key not in self._effects:
            facts = tuple(fact for other in others for fact in self._things[other].rows.facts)
            outcome, after = self._orders[number].place_on(
                self._things[mine], self._cart, self._things[cart], order_memory.Rows(facts), fate
            )
            self._effect(lambda: outcome, *key)
            self._carts_after[key] = self._number(after)
        return self._effects[key], self._carts_after[key]

    def _told_to_cart(self, number: int, state: State) -> Iterator[CartMove]:
        """An order's events come to the cart."""
        messages_at, of_cart = number * _SHARES + 2, len(state) + _CART
        messages: Messages = self._things[state[messages_at]]
        cart: CartState = self._things[state[of_cart]]

        def handle(position: int, payload_number: int, messages: Messages, again: str) -> CartMove:
            payload = self._things[payload_number]
            act = lambda: self._cart.handle(cart, payload, position)  # noqa: E731
            effect = self._effect(act, "cart", state[of_cart], payload_number, position)
            label = f"{self._whose(number)}cart handles {payload.TOPIC}{again}"
            changes = {messages_at: self._number(messages), of_cart: effect.state}
            return label, changes, effect.problem, not again

        for topic, position, payload in messages.waiting(_TO_CART):
            yield handle(position, payload, messages.next_handled(topic), "")
        if self.scenario.faults:
            for _, position, payload in messages.over(_TO_CART):
                yield handle(position, payload, messages, " again")

    def _uses_of_cart(self, state: State) -> Iterator[CartMove]:
        """Its owner uses the cart."""
        of_cart = len(state) + _CART
        cart: CartState = self._things[state[of_cart]]
        is_claimed = any(claim.state is ClaimState.OPEN for claim in cart.claims)
        if is_claimed and cart.lapses < self.scenario.lapses:
            effect = self._effect(lambda: self._cart.look(cart), "look", state[of_cart])
            changes = {of_cart: effect.state}
            for number, order in enumerate(self._orders):
                kept: OrderState = self._things[state[number * _SHARES]]
                changes[number * _SHARES] = self._number(order.be_late(kept))
            yield "what was claimed lapses, and the shopper looks", changes, effect.problem, False
        if cart.added < self.scenario.adds:
            effect = self._effect(lambda: self._cart.add(cart), "add", state[of_cart])
            yield "the shopper puts one more in", {of_cart: effect.state}, effect.problem, False

    def _own_moves(self, number: int, key: State) -> list[Move]:
        """What happens to an order, its payment and its messages."""
        known = self._own[number]
        if key not in known:
            messages: Messages = self._things[key[2]]
            known[key] = [
                *self._moves_of_order(number, key[0], key[1], messages),
                *self._moves_of_payment(number, key[0], key[1], messages),
            ]
        return known[key]

    def _moves_of_order(
        self, number: int, order_number: int, payment: int, messages: Messages
    ) -> Iterator[Move]:
        order, faults, whose = self._orders[number], self.scenario.faults, self._whose(number)
        state: OrderState = self._things[order_number]
        paid: PaymentState = self._things[payment]
        # What payment has of an order makes a difference only to the refunds of returns.
        with_payment = (payment,) if self.scenario.returns else ()
        fates = (Fate.ANSWERED, Fate.LOST, Fate.UNREACHED) if self.scenario.ships and faults else ()

        def move(
            label: str,
            act: Callable[[], Outcome[Any]],
            *key: Any,
            messages: Messages = messages,
            due: bool = False,
        ) -> Move:
            effect = self._effect(act, label, order_number, number, *key)
            after = (effect.state, payment, self._number(messages.after(effect)))
            return Move(whose + label, after, effect.problem, due)

        def handle(position: int, payload_number: int, messages: Messages, again: str) -> Move:
            payload = self._things[payload_number]
            label = f"order handles {payload.TOPIC}{again}"
            act = lambda: order.handle(state, payload, position, paid)  # noqa: E731
            key = (payload_number, position, *with_payment)
            return move(label, act, *key, messages=messages, due=not again)

        for topic, position, payload in messages.waiting(_TO_ORDER):
            yield handle(position, payload, messages.next_handled(topic), "")
        if state.claimed:
            label = f"the engine takes up the saga, {_what_for(state.claimed)}"
            stops = state.claimed.saga.step == _STOP
            for fate in (fates if stops else ()) or (Fate.ANSWERED,):
                act = lambda fate=fate: order.take_up(state, paid, fate)  # noqa: E731
                answered = fate is Fate.ANSWERED
                told = label if answered else f"{label}: {fate}"
                yield move(told, act, *with_payment, due=answered)
            if faults:
                yield move("the instance that claimed the saga dies", lambda: order.drop_claim(state))
        if not self.scenario.one_cart:
            yield move(_ORDERS, lambda: order.place(state))
        if state.rows.facts:
            yield move("the buyer cancels", lambda: order.cancel(state))
            for fate in fates[1:]:
                label = f"the buyer cancels, and asks shipping: {fate}"
                act = lambda fate=fate: order.cancel(state, fate)  # noqa: E731
                yield move(label, act)
        if self.scenario.returns:
            yield from self._moves_of_returns(order, state, paid, move, *with_payment)
        if not state.claimed:
            if order_number not in self._claims:
                self._claims[order_number] = order.claims(state)
            for claim in self._claims[order_number]:
                act = lambda claim=claim: order.claim(state, claim)  # noqa: E731
                yield move(f"{_CLAIM}{_what_for(claim)}", act)
        if faults:
            for _, position, payload in messages.over(_TO_ORDER):
                yield handle(position, payload, messages, " again")
        if self.scenario.ships:
            yield from self._moves_of_parcel(order, state, messages, move)

    def _moves_of_parcel(
        self, order: OrderService, state: OrderState, messages: Messages, move: Callable[..., Move]
    ) -> Iterator[Move]:
        """Shipping hears of the order, and the carrier scans its parcel."""

        def handle(payload_number: int, messages: Messages, again: str) -> Move:
            payload = self._things[payload_number]
            label = f"shipping handles {payload.TOPIC}{again}"
            act = lambda: order.ship(state, payload)  # noqa: E731
            return move(label, act, payload_number, messages=messages, due=not again)

        for topic, _, payload in messages.waiting(_TO_SHIPPING):
            yield handle(payload, messages.next_handled(topic), "")
        if self.scenario.faults:
            for _, _, payload in messages.over(_TO_SHIPPING):
                yield handle(payload, messages, " again")
        if state.parcel.status in (ShipmentStatus.CREATED, ShipmentStatus.IN_TRANSIT):
            yield move(f"{_SCAN} that is {state.parcel.status}", lambda: order.scan(state))

    def _moves_of_returns(
        self,
        order: OrderService,
        state: OrderState,
        paid: PaymentState,
        move: Callable[..., Move],
        *with_payment: int,
    ) -> Iterator[Move]:
        """The buyer sends back, and staff decide."""
        known = state.order
        if known is None or known.delivered_at is None:
            return
        if len(known.returns) < self.scenario.returns:
            yield move("the buyer wants to send one back", lambda: order.send_back(state))
        for number, made in enumerate(known.returns):
            for decision in _DECISIONS.get(made.status, ()):
                act = lambda made=made, decision=decision: order.decide(  # noqa: E731
                    state, made.return_id, decision, paid
                )
                yield move(f"staff {decision} return {number + 1}", act, *with_payment)

    def _moves_of_payment(
        self, number: int, order: int, payment_number: int, messages: Messages
    ) -> Iterator[Move]:
        payments, faults, whose = self._payments[number], self.scenario.faults, self._whose(number)
        payment: PaymentState = self._things[payment_number]
        bank: Bank = payment.bank
        room = len(payment.tasks) < self.scenario.tasks

        def move(
            label: str,
            act: Callable[[], Outcome[Any]],
            *key: Any,
            messages: Messages = messages,
            due: bool = False,
        ) -> Move:
            effect = self._effect(act, label, payment_number, number, *key)
            after = (order, effect.state, self._number(messages.after(effect)))
            return Move(whose + label, after, effect.problem, due)

        def begin(
            label: str, name: str, argument: Any, messages: Messages = messages, due: bool = False
        ) -> Move:
            act = lambda: payments.start(payment, name, argument)  # noqa: E731
            return move(label, act, self._number(argument), messages=messages, due=due)

        def moved(label: str, bank: Bank) -> Move:
            return move(label, lambda: Outcome(replace(payment, bank=bank)), due=True)

        for question_number in sorted(messages.questions):
            question = self._things[question_number]
            rest = messages.without(question_number)
            if not self.scenario.payment_answers:
                after = (order, payment_number, self._number(rest))
                yield Move(f"{whose}the question to payment gets lost: {question.kind}", after, "", True)
                continue
            if room:
                yield begin(f"payment is asked: {question.kind}", question.kind, question, rest, due=True)
            if room and faults:
                label = f"payment is asked, and will be once more: {question.kind}"
                yield begin(label, question.kind, question)
            if faults:
                after = (order, payment_number, self._number(rest))
                yield Move(f"{whose}the question to payment gets lost: {question.kind}", after, "", False)
        for at, task in enumerate(payment.tasks):
            yield from self._steps(move, payments, payment, at, task)
        for request in sorted(bank.lingering, key=repr):
            made = replace(bank.carry_out(request), lingering=bank.lingering - {request})
            yield moved(f"the gateway carries out a late {type(request).__name__}", made)
        if (captured := bank.capture()) != bank:
            yield moved("the gateway captures the slow card", captured)
        if room:
            if payment_number not in self._late:
                self._late[payment_number] = list(self._late_work(payments, payment))
            for name, argument in self._late[payment_number]:
                yield begin(f"payment begins to {name}", name, argument)
            for notice in bank.notices():
                yield begin(f"{_NOTICE}{type(notice).__name__}", "notice", notice)

    def _steps(
        self, move: Callable[..., Move], payments: PaymentService, payment: PaymentState, at: int, task: Task
    ) -> Iterator[Move]:
        """What the next step of a use case of payment may come to."""
        where = f"{task.name}, step {len(task.past) + 1}"
        for fate in payments.fates(task):
            what = "writes" if task.next_step == STORE else f"asks for {task.next_step}: {fate}"
            act = lambda fate=fate: payments.step(payment, at, fate)  # noqa: E731
            if fate is Fate.ANSWERED or self.scenario.faults:
                yield move(f"payment {what} ({where})", act, at, due=fate is Fate.ANSWERED)
        if self.scenario.faults:
            yield move(f"payment dies ({where})", lambda: Outcome(payments.die(payment, at)), at)

    def _late_work(self, payments: PaymentService, payment: PaymentState) -> Iterator[tuple[str, Any]]:
        for due in payments.due(payment):
            yield BRING_ON, due
            if isinstance(due, PaymentDue):
                yield GIVE_UP, due
        for made in map(payment_memory.payment_of, payment.rows.payments):
            if made.status is not PaymentStatus.PENDING:
                yield from ((what, payments.by_staff(what, made.payment_id)) for what in self.scenario.staff)

    # ------------------------------------------------------------------------------------------- to rest

    def onward(self, state: State) -> Step | None:
        """What happens next if nothing fails any more and nobody wants anything; None at rest.

        What is under way arrives first; then what is due is looked after; deadlines pass last.
        """
        for number in range(len(self._orders)):
            for move in self._own_moves(number, self._of(state, number)):
                if move.due:
                    return self._own_step(state, number, move)
            for move in self._shared_moves(number, state):
                if move.due:
                    return self._shared_step(state, number, move)
        for label, after, problem, due in self._moves_of_cart(state):
            if due:
                return label, after, problem
        for number in range(len(self._orders)):
            if look := self._look(number, self._of(state, number)):
                return self._own_step(state, number, look)
        return None

    def _look(self, number: int, key: State) -> Move | None:
        """The first look after what waits that leads anywhere, with all that it leads to, as one move."""
        known = self._looks[number]
        if key not in known:
            moves = self._own_moves(number, key)
            looks = (
                self._until_done(number, key, move)
                for beginning in _LOOKS
                for move in moves
                if move.label.startswith(self._whose(number) + beginning)
            )
            known[key] = next((look for look in looks if look.after != key or look.problem), None)
        return known[key]

    def _until_done(self, number: int, move_from: State, move: Move) -> Move:
        labels, after, problem = [move.label], move.after, move.problem
        while not problem:
            due = (m for m in self._own_moves(number, after) if m.due and " handles " not in m.label)
            if (step := next(due, None)) is None:
                break
            labels.append(step.label)
            after, problem = step.after, step.problem
        answered = self.scenario.payment_answers
        if not problem and answered and after != move_from and _OVERDUE in move.label:
            problem = "an order waits for its deadline though everybody has answered"
        return Move("; ".join(labels), after, problem, True)

    # ------------------------------------------------------------------------------------- what must hold

    def broken(self, state: State) -> str:
        """Say what may never be, not even for a moment; "" if all is well."""
        for number in range(len(self._orders)):
            order, payment, _ = self._of(state, number)
            key = (number, order, payment, state[_STOCK])
            if key not in self._broken:
                order_id = self._orders[number].order_id
                self._broken[key] = broken_now(order_id, *(self._things[part] for part in key[1:]))
            if self._broken[key]:
                return self._broken[key]
        return self._ordered_twice(state)

    def _ordered_twice(self, state: State) -> str:
        if not self.scenario.one_cart:
            return ""
        key = (*state[:_CART:_SHARES], state[_CART])
        if key not in self._broken:
            orders = (self._things[part] for part in key[:-1])
            self._broken[key] = ordered_twice(orders, self._things[state[_CART]])
        return self._broken[key]

    def broken_at_rest(self, state: State) -> str:
        """Say what does not balance in the books of a shop at rest; "" if all does."""
        if state not in self._broken_at_rest:
            orders = [
                (order.order_id, *(self._things[part] for part in self._of(state, number)[:2]))
                for number, order in enumerate(self._orders)
            ]
            cart = self._things[state[_CART]] if self.scenario.one_cart else None
            refused = (self._cancelled_for_nothing(number, state) for number in range(len(orders)))
            wrong = broken_at_rest(orders, self._things[state[_STOCK]], cart)
            self._broken_at_rest[state] = wrong or next(filter(None, refused), "")
        return self._broken_at_rest[state]

    def outcome(self, state: State) -> tuple[str, ...]:
        """Where each order stands; "" for one that was not placed."""
        numbers = range(len(self._orders))
        return tuple(outcome(self._things[self._of(state, number)[0]]) for number in numbers)

    def _cancelled_for_nothing(self, number: int, state: State) -> str:
        order: OrderState = self._things[self._of(state, number)[0]]
        hindrances = self.scenario.hindrances(self.scenario.buyers[number])
        return cancelled_for_nothing(order, hindrances)


_ORDERS = "the buyer orders"
_SCAN = "the carrier scans the parcel"
_STOP = "stop shipment"
# What staff may decide about a return.
_DECISIONS = {
    ReturnStatus.REQUESTED: ("approve", "reject"),
    ReturnStatus.APPROVED: ("receive", "reject"),
}
_CLAIM = "an instance claims the saga "
_OVERDUE = f"{_CLAIM}to give up: "
_NOTICE = "the gateway sends payment a notice: "
# What is looked after when all is quiet, in the order in which it comes.
_LOOKS = (f"payment begins to {BRING_ON}", _NOTICE, f"{_CLAIM}to ask again", _OVERDUE)


def _what_for(claim: Claim) -> str:
    return f"{'to give up' if claim.overdue else 'to ask again'}: {claim.saga.step}"
