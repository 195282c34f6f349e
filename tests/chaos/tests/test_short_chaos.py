"""Chaos in small: the same that `make chaos` does at length, with a seed of which the schedule is known."""

import pytest

from tests.shell import stoa

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@pytest.mark.timeout(420)
async def test_whatever_is_broken_while_shoppers_buy_every_rule_holds() -> None:
    code, output = await stoa(
        "chaos", "--here", "--seed", "9538", "--checkouts", "150", "--faults", "10", "--minutes", "2"
    )
    assert code == 0, output
