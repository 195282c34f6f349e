"""What is noted while the load runs, as the shoppers see it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

from stoa_rest import Order


@dataclass
class Record:
    """Counts of requests, journeys and orders; complaints are what should not have been, whatever is down."""

    requests: Counter[str] = field(default_factory=Counter)
    journeys: Counter[tuple[str, str]] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    orders: dict[UUID, str] = field(default_factory=dict)  # the status that a shopper saw last
    to_cancel: set[UUID] = field(default_factory=set)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    last_asked: float = 0.0
    returns: Counter[str] = field(default_factory=Counter)  # how many were asked for, approved, …
    given_back: Decimal = Decimal(0)  # for returns

    def complain(self, what: str) -> None:
        """Note what no trouble excuses."""
        self.complaints.append(what)

    def saw(self, order: Order) -> None:
        """Note an order as it was shown. A status that is taken back is a complaint."""
        order_id, status = UUID(order["order_id"]), order["status"]
        before = self.orders.get(order_id, "pending")
        if status == "pending" and before != "pending":
            return  # an answer to an earlier request, or one that was cancelled meanwhile
        if before == "cancelled" and status != "cancelled":
            self.complain(f"order {order_id} was shown as cancelled, then as {status}")
        if before == "confirmed" and status == "cancelled" and order_id not in self.to_cancel:
            self.complain(f"order {order_id} was shown as confirmed, then as cancelled")
        self.orders[order_id] = status

    def cancelled(self, order_id: str) -> None:
        """Note that a shopper asks for an order to be cancelled."""
        self.to_cancel.add(UUID(order_id))

    def is_cancelled(self, order_id: str) -> bool:
        """Whether a shopper has asked for an order to be cancelled."""
        return UUID(order_id) in self.to_cancel

    def asked(self) -> None:
        """Note that something was asked just now that has its consequences: an order, a return."""
        self.last_asked = time.monotonic()

    def settled(self, card: str, seconds: float) -> None:
        """Note how long it took from ordering to the end that a shopper sees."""
        self.seconds.setdefault(card, []).append(seconds)

    def journey(self, habit: str, outcome: str) -> None:
        """Note what became of a journey."""
        self.journeys[habit, outcome] += 1
