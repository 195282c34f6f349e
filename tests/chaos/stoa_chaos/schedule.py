"""When which fault strikes. The same seed, table and numbers give the same schedule."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from stoa_chaos.faults import Fault, targets

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

    Every fault strikes each of its targets before one comes again. Strikes may overlap, as troubles do, but
    never at the same target.
    """
    dice = random.Random(f"{seed} faults")
    slot = seconds / max(count, 1)
    free_at: dict[str, float] = {}
    strikes: list[Strike] = []
    turns: list[tuple[Fault, str]] = []
    for number in range(count):
        at = round(slot * (number + dice.uniform(0.1, 0.7)), 1)
        if not turns:
            turns = targets(table)
            dice.shuffle(turns)
        # The next whose target is left alone; if there is none, the next one waits.
        turn = next((turn for turn in turns if free_at.get(turn[1], 0) <= at), turns[0])
        turns.remove(turn)
        fault, target = turn
        at = max(at, free_at.get(target, 0))
        lasts = round(dice.uniform(*fault.seconds), 1)
        free_at[target] = at + lasts + _PAUSE
        strikes.append(Strike(at, fault, target, lasts))
    return sorted(strikes, key=lambda strike: strike.at)
