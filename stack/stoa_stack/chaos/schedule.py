"""When which fault strikes. The same seed, table and numbers give the same schedule."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stoa_stack.chaos.faults import Fault

_T = TypeVar("_T")
_PAUSE = 2.0  # seconds that a target is left alone between two faults


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault at a target; `at` and `lasts` in seconds, `at` counted from the start of the load."""

    at: float
    fault: Fault
    target: str
    lasts: float

    def __str__(self) -> str:
        lasts = f" for {self.lasts:.0f} s" if self.lasts else ""
        return f"{self.at:6.1f} s  {self.target} {self.fault.name}{lasts}"


def schedule(table: Sequence[Fault], count: int, seconds: float, seed: int) -> list[Strike]:
    """Spread `count` strikes over so many seconds.

    Every fault of the table has its turn before one comes again, and so has every target of a fault. Strikes
    may overlap, as troubles do, but never at the same target.
    """
    dice = random.Random(f"{seed} faults")
    turns = _turns(table, dice)
    slot = seconds / max(count, 1)
    free_at: dict[str, float] = {}
    strikes: list[Strike] = []
    waiting: list[tuple[Fault, str]] = []
    for number in range(count):
        at = round(slot * (number + dice.uniform(0.1, 0.7)), 1)
        chosen = next((turn for turn in waiting if free_at.get(turn[1], 0) <= at), None)
        if chosen is not None:
            waiting.remove(chosen)
        while chosen is None:
            turn = next(turns)
            if free_at.get(turn[1], 0) <= at or len(waiting) > len(table):
                chosen = turn
            else:
                waiting.append(turn)
        fault, target = chosen
        at = max(at, free_at.get(target, 0))
        lasts = round(dice.uniform(*fault.seconds), 1)
        free_at[target] = at + lasts + _PAUSE
        strikes.append(Strike(at, fault, target, lasts))
    return sorted(strikes, key=lambda strike: strike.at)


def _turns(table: Sequence[Fault], dice: random.Random) -> Iterator[tuple[Fault, str]]:
    """Faults in turn, each with its targets in turn, both in an order that is drawn anew every round."""
    targets = {fault.name: _rounds(fault.targets, dice) for fault in table}
    for fault in _rounds(table, dice):
        yield fault, next(targets[fault.name])


def _rounds(things: Sequence[_T], dice: random.Random) -> Iterator[_T]:
    while True:
        yield from dice.sample(things, len(things))
