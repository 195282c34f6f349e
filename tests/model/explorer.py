"""Goes through the states of a shop, the nearest first, and checks what must hold in each.

Breadth first, so that the first way to something wrong is a shortest one.
"""

import time
from dataclasses import dataclass

from tests.model.shop import Shop, State


@dataclass(frozen=True)
class Report:
    """What was seen. `complete` means that there are no other states; `wrong` is empty if all is well.

    `outcomes` are where the orders of the scenario may stand at rest, one status for each.
    """

    states: int
    transitions: int
    depth: int
    complete: bool
    seconds: float
    resting: int
    wrong: str = ""
    trace: tuple[str, ...] = ()
    outcomes: frozenset[tuple[str, ...]] = frozenset()

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
    """Explore up to `limit` states: in each nothing is broken, and each comes to rest with good books."""
    return _Exploration(shop, limit).run()


class _Exploration:
    def __init__(self, shop: Shop, limit: int) -> None:
        self._shop = shop
        self._limit = limit
        self._began = time.process_time()
        # How each state was first reached: from which, and by what.
        self._came: dict[State, tuple[State, str] | None] = {shop.start: None}
        self._settling: set[State] = set()
        self._resting: set[State] = set()
        self._depth = self._transitions = 0
        # Something broken on the way to rest, in case that no shorter way to it is found.
        self._farther: tuple[str, tuple[str, ...]] = ("", ())

    def run(self) -> Report:
        level = [self._shop.start]
        while level:
            following: list[State] = []
            for state in level:
                wrong, onward = self._come_to_rest(state)
                if wrong:
                    return self._report(wrong, self._way_to(state) + onward)
                for label, after, problem in self._shop.moves(state):
                    self._transitions += 1
                    if problem := problem or self._shop.broken(after):
                        return self._report(problem, (*self._way_to(state), label))
                    if after not in self._came:
                        if len(self._came) == self._limit:
                            return self._report(*self._farther)
                        self._came[after] = (state, label)
                        following.append(after)
            self._depth += bool(following)
            level = following
        return self._report(*self._farther, complete=True)

    def _come_to_rest(self, state: State) -> tuple[str, tuple[str, ...]]:
        """Let happen what happens by itself; return what is wrong with its end, and the way there.

        What breaks on the way is left to be found as a state of its own, by a shorter way, if there is one.
        """
        way: dict[State, str] = {}
        while state not in self._settling:
            step = self._shop.onward(state)
            if step is None:
                self._resting.add(state)
                if wrong := self._shop.broken_at_rest(state):
                    return f"at rest, {wrong}", tuple(way.values())
                self._settling.add(state)
                break
            label, after, problem = step
            way[state] = f"(by itself) {label}"
            if problem := problem or self._shop.broken(after):
                if not self._farther[0]:
                    self._farther = (problem, self._way_to(next(iter(way))) + tuple(way.values()))
                return "", ()
            if after in way:
                return "it never comes to rest", tuple(way.values())
            state = after
        self._settling.update(way)
        return "", ()

    def _way_to(self, state: State) -> tuple[str, ...]:
        steps = []
        while (step := self._came[state]) is not None:
            state, label = step
            steps.append(label)
        return tuple(reversed(steps))

    def _report(self, wrong: str = "", trace: tuple[str, ...] = (), complete: bool = False) -> Report:
        seconds = time.process_time() - self._began
        return Report(
            len(self._came),
            self._transitions,
            self._depth,
            complete,
            seconds,
            len(self._resting),
            wrong,
            trace,
            frozenset(map(self._shop.outcome, self._resting)),
        )
