"""When which fault strikes. The same seed, table and numbers give the same schedule."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stoa_chaos.faults import Fault, targets

_PAUSE = 2.0  # seconds that a target is left alone between two faults
_SLOTS_ALONE = 1.5  # how much more time than others a fault has that is to be over when the next one comes


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

    Every fault strikes each of its targets before one comes again. Those that are to be `alone` come before
    the others, one after the other, with more time for each; the others may overlap, as troubles do, but
    never at the same target.
    """
    dice = random.Random(f"{seed} faults")
    rounds = [*_rounds(table, count, dice)]
    slot = seconds / max(sum(_slots(fault) for turns in rounds for fault, _ in turns), 1)
    free_at: dict[str, float] = {}
    strikes: list[Strike] = []
    passed = 0.0
    for turns in rounds:
        while turns:
            fault, target = turns[0]
            at = round(slot * (passed + dice.uniform(0.1, 0.3 if fault.alone else 0.7)), 1)
            if not fault.alone:
                # The next whose target is left alone; if there is none, the next one waits.
                fault, target = next((turn for turn in turns if free_at.get(turn[1], 0) <= at), turns[0])
            turns.remove((fault, target))
            passed += _slots(fault)
            at = max(at, free_at.get(target, 0))
            lasts = round(dice.uniform(*fault.seconds), 1)
            free_at[target] = at + lasts + _PAUSE
            strikes.append(Strike(at, fault, target, lasts))
    return sorted(strikes, key=lambda strike: strike.at)


def _rounds(table: Sequence[Fault], count: int, dice: random.Random) -> Iterator[list[tuple[Fault, str]]]:
    """Deal out the whole table, in another order each time, until there are as many as are wanted."""
    while count > 0:
        turns = targets(table)
        dice.shuffle(turns)
        yield sorted(turns[:count], key=lambda turn: not turn[0].alone)
        count -= len(turns)


def _slots(fault: Fault) -> float:
    return _SLOTS_ALONE if fault.alone else 1.0
