"""Long random runs, where the explorer's breadth does not reach: three orders, two variants, every fault.

Hypothesis shortens a run that goes wrong. At its end each comes to rest, and then its books balance.
"""

import atexit
import os
from functools import cache

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.model.services import StaffRefund
from tests.model.shop import Buyer, Scenario, Shop

_SCENARIO = Scenario(
    (2, 1), (Buyer((1, 1)), Buyer((1, 0), "tok_timeout"), Buyer((1, 1))), tasks=2, staff=tuple(StaffRefund)
)


@cache
def _shop() -> Shop:
    """One for all runs, since it remembers what the services do."""
    shop = Shop(_SCENARIO)
    atexit.register(shop.close)
    return shop


class Run(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.shop = _shop()
        self.state = self.shop.start
        self.problem = ""

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        moves = {label: (after, problem) for label, after, problem in self.shop.moves(self.state)}
        label = data.draw(st.sampled_from(sorted(moves)), label="what")
        self.state, self.problem = moves[label]

    @invariant()
    def nothing_is_broken(self) -> None:
        assert not self.problem
        assert not self.shop.broken(self.state)

    def teardown(self) -> None:
        for _ in range(1_000):
            step = self.shop.onward(self.state)
            if step is None:
                break
            label, self.state, problem = step
            assert not problem, label
            assert not self.shop.broken(self.state), label
        else:
            raise AssertionError("it never comes to rest")
        assert not self.shop.broken_at_rest(self.state)


TestRandomRuns = pytest.mark.timeout(1_000)(Run.TestCase)
TestRandomRuns.settings = settings(
    max_examples=max(100, int(os.environ.get("STOA_MODEL_STATES", "0")) // 500),
    stateful_step_count=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
