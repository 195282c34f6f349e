"""What a run has found out: as a table for people, as JSON for programs."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stoa_chaos.record import Record
from stoa_chaos.schedule import Strike
from stoa_chassis.audit import Finding
from stoa_ops.audit.books import ShopBooks
from stoa_services import SERVICES
from stoa_stack.percentile import percentile

SETTLED_WITHIN = 60.0  # seconds from the last fault and the last order to books that balance
_SHOWN = 30
# Seconds after which an order settles again, in the median of a run: what we aim at after a kill.
_AIMS = {("killed", "a service"): 2.0, ("killed", "kafka"): 5.0}

# What an order that was paid goes through.
_WAY = ("confirmed", "shipped", "delivered", "returned")
_RETURNS = ("asked for", "approved", "rejected", "refunded")


@dataclass(frozen=True)
class Struck:
    """What came of a strike; seconds: `began`, `healed` from the start of the load, the others from then."""

    strike: Strike
    began: float
    healed: float
    skipped: str = ""  # why it could not be done
    answers: float | None = None
    sells: float | None = None

    @property
    def recovered(self) -> bool:
        """Whether the shop was whole again afterwards."""
        return bool(self.skipped) or self.sells is not None

    def meets(self, other: Struck) -> bool:
        """Whether one began before the shop was whole again after the other."""
        return not (self.skipped or other.skipped) and self.began < other._over and other.began < self._over

    @property
    def _over(self) -> float:
        return self.healed + (math.inf if self.sells is None else self.sells)

    @property
    def kind(self) -> tuple[str, str]:
        """What was done, and to what: all services count as one, since they are built alike."""
        target = self.strike.target
        return self.strike.fault.name, "a service" if target in SERVICES else target


@dataclass(frozen=True, slots=True)
class Spread:
    """How long something took, in seconds."""

    times: int
    median: float
    worst: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Of these, of which there must be one."""
        return cls(len(seconds), median(seconds), max(seconds))

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return {"times": self.times, "median": _rounded(self.median), "worst": _rounded(self.worst)}


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long after the end of faults of a kind an order, placed then, took to settle.

    Those that were `alone`, from their beginning until that order had settled, are told from those that met
    another: what is placed while something else is down waits for that as well.
    """

    every: Spread
    alone: Spread | None
    met: Spread | None
    aim: float | None  # in seconds, in the median


@dataclass
class Report:
    """Everything about one run."""

    seed: int
    record: Record
    strikes: list[Struck] = field(default_factory=list)
    peace: float | None = None  # seconds in which an order of a probe settles before anything is broken
    seconds: float = 0.0
    quiet: float | None = None  # seconds until the books balanced; None: they do not
    books: ShopBooks = field(default_factory=ShopBooks)
    findings: Sequence[Finding] = ()

    @property
    def problems(self) -> list[str]:
        """All that should not be; empty if the run passed."""
        return [*self._problems()]

    def _problems(self) -> Iterator[str]:
        yield from dict.fromkeys(self.record.complaints)
        for struck in self.strikes:
            if not struck.recovered:
                yield f"the shop did not sell again after: {struck.strike}"
        for finding in self.findings:
            yield f"{finding.rule}: {finding.subject}: {finding.detail} (look at: {finding.look})"
        if self.quiet is not None and self.quiet > SETTLED_WITHIN:
            yield f"the books balanced only after {self.quiet:.0f} s of quiet"
        for order_id, seen in self.record.orders.items():
            order = self.books.order.orders.get(order_id)
            if order is None:
                yield f"order {order_id} was shown to its buyer as {seen}, and is lost"
            elif not _goes_on(seen, order.status) and order_id not in self.record.to_cancel:
                yield f"order {order_id} was shown to its buyer as {seen}, and is {order.status}"
            elif order_id in self.record.to_cancel and seen == "cancelled" != order.status:
                yield f"order {order_id} was cancelled by its buyer, and is {order.status}"

    @property
    def recoveries(self) -> Mapping[tuple[str, str], Recovery]:
        """From the end of each kind of fault to an order that settles, by what was done and to what."""
        alone: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        met: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for struck in self.strikes:
            if struck.sells is not None:
                (alone if self.was_alone(struck) else met)[struck.kind].append(struck.sells)
        return {
            kind: Recovery(
                every=Spread.of(alone[kind] + met[kind]),
                alone=Spread.of(alone[kind]) if alone[kind] else None,
                met=Spread.of(met[kind]) if met[kind] else None,
                aim=_AIMS.get(kind),
            )
            for kind in sorted({*alone, *met})
        }

    def was_alone(self, struck: Struck) -> bool:
        """Whether nothing else was broken from its beginning until the shop was whole again."""
        return not any(struck.meets(other) for other in self.strikes if other is not struck)

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        requests = self.record.requests
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "quiet_seconds": _rounded(self.quiet),
            "passed": not self.problems,
            "problems": self.problems,
            "faults": [
                {
                    "at": struck.strike.at,
                    "target": struck.strike.target,
                    "fault": struck.strike.fault.name,
                    "lasts": struck.strike.lasts,
                    "began": round(struck.began, 1),
                    "healed": round(struck.healed, 1),
                    "skipped": struck.skipped,
                    "alone": self.was_alone(struck),
                    "answers_after": _rounded(struck.answers),
                    "sells_after": _rounded(struck.sells),
                }
                for struck in self.strikes
            ],
            "peace_seconds": _rounded(self.peace),
            "recovery": [
                {
                    "fault": fault,
                    "target": target,
                    **each.every.as_json(),
                    "alone": each.alone.as_json() if each.alone else None,
                    "met_another": each.met.as_json() if each.met else None,
                    "aim": each.aim,
                }
                for (fault, target), each in self.recoveries.items()
            ],
            "orders": self._orders(),
            "journeys": [
                {"habit": habit, "outcome": outcome, "count": count}
                for (habit, outcome), count in sorted(self.record.journeys.items())
            ],
            "returns": self._returns(),
            "given_back_for_returns": f"{self.record.given_back:.2f}",
            "requests": dict(requests.most_common()),
            "requests_failed_share": round(_failed(requests), 4),
            "settled_seconds": {card: _percentiles(times) for card, times in self._times().items()},
            "money": self._money(),
            "stock": self._stock(),
            "events": self._events(),
            "effects": {group: len(ids) for group, ids in self.books.events.inboxes.items()},
            "dead_letters": sum(self.books.dead_letters.values()),
        }

    def _orders(self) -> dict[str, int]:
        return dict(Counter(order.status for order in self.books.order.orders.values()))

    def _returns(self) -> dict[str, int]:
        """How many were asked for, and what became of them; in this order."""
        return {what: self.record.returns[what] for what in _RETURNS}

    def _times(self) -> dict[str, list[float]]:
        late = {"tok_timeout": self.record.seconds.get("tok_timeout", [])}
        usual = [
            seconds for card, times in self.record.seconds.items() if card not in late for seconds in times
        ]
        return {"cards that answer": usual, "tok_timeout": late["tok_timeout"]}

    def _money(self) -> dict[str, str]:
        taken = [charge for charge in self.books.charges or () if charge.status == "succeeded"]
        payments = self.books.payment.payments
        ours = [payment for payment in payments if payment.status not in ("pending", "failed")]
        return {
            "gateway_took": str(sum((charge.amount for charge in taken), Decimal(0))),
            "we_took": str(sum((payment.amount for payment in ours), Decimal(0))),
            "gateway_gave_back": str(sum((charge.refunded for charge in taken), Decimal(0))),
            "we_gave_back": str(sum((payment.refunded for payment in ours), Decimal(0))),
        }

    def _stock(self) -> dict[str, int]:
        stock = self.books.inventory
        held = [each for each in stock.reservations if each.status == "held"]
        return {
            "in_stock": sum(count.stock for count in stock.counts.values()),
            "moved": sum(count.stock for count in stock.movements.values()),
            "reserved": sum(count.reserved for count in stock.counts.values()),
            "promised": sum(each.quantity for each in held),
        }

    def _events(self) -> dict[str, int]:
        events = self.books.events
        return {
            "in_outboxes": len(events.written),
            "in_topics": len(events.seen),
            "published_again": sum(events.repeated.values()),
        }

    def show(self, console: Console) -> None:
        """Print it."""
        console.print(self._faults())
        console.print(self._recoveries())
        console.print(self._summary())
        problems = self.problems
        for problem in problems[:_SHOWN]:
            console.print(Text(f"- {problem}", style="red"), soft_wrap=True)
        if len(problems) > _SHOWN:
            console.print(f"… and {len(problems) - _SHOWN} more, in the report")
        if problems:
            console.print(
                Text(f"Failed: {len(problems)} problems. The seed is {self.seed}.", style="bold red")
            )
        else:
            console.print(Text(f"Every rule holds. The seed is {self.seed}.", style="bold green"))

    def _faults(self) -> Table:
        table = Table(title="Faults", title_justify="left", box=None, pad_edge=False)
        for heading in ("at s", "target", "fault", "for s", "answers after s", "sells after s"):
            table.add_column(heading, justify="right" if heading.endswith(" s") else "left")
        for struck in self.strikes:
            strike = struck.strike
            table.add_row(
                f"{struck.began:.1f}",
                strike.target,
                strike.fault.name,
                f"{strike.lasts:.0f}" if strike.lasts else "",
                struck.skipped or _seconds(struck.answers),
                "" if struck.skipped else _seconds(struck.sells),
            )
        return table

    def _recoveries(self) -> Table:
        table = Table(
            title=f"An order settles again after the end of a fault (in peace: {_seconds(self.peace)} s)",
            title_justify="left",
            box=None,
            pad_edge=False,
        )
        for heading in ("fault", "target"):
            table.add_column(heading)
        for heading in (
            "times", "median s", "worst s", "alone", "median s", "met another", "median s", "aim s"
        ):  # fmt: skip
            table.add_column(heading, justify="right")
        for (fault, target), each in self.recoveries.items():
            table.add_row(
                fault,
                target,
                str(each.every.times),
                _median(each.every, each.aim),
                f"{each.every.worst:.1f}",
                str(each.alone.times) if each.alone else "",
                _median(each.alone, each.aim),
                str(each.met.times) if each.met else "",
                _median(each.met, each.aim),
                "" if each.aim is None else f"{each.aim:g}",
            )
        return table

    def _summary(self) -> Table:
        table = Table("what", "", title="Summary", title_justify="left", box=None, show_header=False)
        requests, total = self.record.requests, sum(self.record.requests.values())
        journeys: Counter[str] = Counter()
        for (_, outcome), count in self.record.journeys.items():
            journeys[outcome] += count
        table.add_row("journeys", _counts(journeys))
        table.add_row("orders", _counts(self._orders()))
        returns = ", ".join(f"{count} {what}" for what, count in self._returns().items())
        table.add_row("returns", f"{returns}; given back for them {self.record.given_back:.2f}")
        table.add_row(
            "requests",
            f"{total}, of which failed {_failed(requests):.1%}: "
            + (", ".join(f"{kind} {count / total:.2%}" for kind, count in requests.most_common()) or "none"),
        )
        for what, times in self._times().items():
            figures = _percentiles(times)
            text = ", ".join(f"{name} {value}" for name, value in figures.items())
            table.add_row("placed → settled", f"{what}: {text} s" if times else f"{what}: none")
        money, stock = self._money(), self._stock()
        table.add_row("money taken", f"{money['gateway_took']} by the gateway, {money['we_took']} by us")
        table.add_row(
            "given back", f"{money['gateway_gave_back']} by the gateway, {money['we_gave_back']} by us"
        )
        table.add_row("stock", f"{stock['in_stock']}, {stock['moved']} by its movements")
        table.add_row("reserved", f"{stock['reserved']}, {stock['promised']} promised to orders")
        events = self._events()
        table.add_row(
            "events",
            f"{events['in_outboxes']} in outboxes, {events['in_topics']} in their topics, "
            f"{events['published_again']} times one was published again",
        )
        inboxes = self.books.events.inboxes
        table.add_row("effects", _counts({f"at {group}": len(ids) for group, ids in inboxes.items() if ids}))
        table.add_row("dead letters", str(sum(self.books.dead_letters.values())))
        quiet = (
            "the books do not balance"
            if self.quiet is None
            else f"{self.quiet:.0f} s until the books balanced"
        )
        table.add_row("quiet", f"{quiet}; the whole run took {self.seconds / 60:.1f} min")
        return table


def _failed(requests: Counter[str]) -> float:
    """The share of requests that shoppers saw fail, other than for a reason of their own."""
    total = sum(requests.values())
    good = sum(count for kind, count in requests.items() if kind == "answered" or "refused" in kind)
    return (total - good) / total if total else 0.0


def _percentiles(times: Sequence[float]) -> dict[str, float]:
    names = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    return {name: round(percentile(times, percent), 2) for name, percent in names.items()} if times else {}


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "none"


def _median(spread: Spread | None, aim: float | None) -> Text:
    """What is shown of a median: more than is aimed at stands out."""
    if spread is None:
        return Text()
    return Text(f"{spread.median:.1f}", style="yellow" if aim is not None and spread.median > aim else "")


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def _goes_on(seen: str, status: str) -> bool:
    """Whether an order that was shown with a status may have another by now, though its buyer did nothing."""
    if seen in _WAY:
        return status in _WAY[_WAY.index(seen) :]
    return seen in ("pending", status)
