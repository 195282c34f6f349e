"""Goes through the states of a shop, the nearest first, and checks what must hold in each.

Breadth first, so that the first way to something wrong is a shortest one.
"""

import time
from collections import deque
from dataclasses import dataclass

from tests.model.shop import Shop, State


@dataclass(frozen=True)
class Report:
    """What was seen. `complete` means that there are no other states; `wrong` is empty if all is well."""

    states: int
    transitions: int
    depth: int
    complete: bool
    seconds: float
    resting: int
    wrong: str = ""
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        extent = "all there are" if self.complete else "as many as were asked for"
        seen = (
            f"{self.states:,} states ({extent}), {self.transitions:,} transitions, depth {self.depth}, "
            f"{self.resting:,} states of rest, {self.seconds:.1f} s"
        )
        if not self.wrong:
            return seen
        steps = "\n".join(f"  {number:2}. {step}" for number, step in enumerate(self.trace, 1))
        return f"{self.wrong}\n{steps}\n({seen})"


def explore(shop: Shop, limit: int) -> Report:
    """Explore up to `limit` states: in each nothing is wrong, and from each the shop comes to a good rest."""
    began = time.process_time()
    came: dict[State, tuple[State, str] | None] = {shop.start: None}
    settling: set[State] = set()
    resting: set[State] = set()
    level, depth, transitions = deque([shop.start]), 0, 0

    def report(wrong: str = "", trace: tuple[str, ...] = (), complete: bool = False) -> Report:
        seconds = time.process_time() - began
        return Report(len(came), transitions, depth, complete, seconds, len(resting), wrong, trace)

    def way_to(state: State) -> tuple[str, ...]:
        steps = []
        while (step := came[state]) is not None:
            state, label = step
            steps.append(label)
        return tuple(reversed(steps))

    def come_to_rest(state: State) -> tuple[str, tuple[str, ...]]:
        """Let happen what happens by itself; return what is wrong on the way or at its end, and the way."""
        way: dict[State, str] = {}
        while state not in settling:
            step = shop.onward(state)
            if step is None:
                resting.add(state)
                if wrong := shop.broken_at_rest(state):
                    return f"at rest, {wrong}", tuple(way.values())
                settling.add(state)
                break
            label, after, problem = step
            way[state] = f"(by itself) {label}"
            if problem := problem or shop.broken(after):
                return problem, tuple(way.values())
            if after in way:
                return "it never comes to rest", tuple(way.values())
            state = after
        settling.update(way)
        return "", ()

    while level:
        following: deque[State] = deque()
        for state in level:
            wrong, onward = come_to_rest(state)
            if wrong:
                return report(wrong, way_to(state) + onward)
            for label, after, problem in shop.moves(state):
                transitions += 1
                if problem := problem or shop.broken(after):
                    return report(problem, (*way_to(state), label))
                if after not in came:
                    if len(came) >= limit:
                        return report()
                    came[after] = (state, label)
                    following.append(after)
        level, depth = following, depth + bool(following)
    return report(complete=True)
