import pytest

from stoa_chassis.kafka import RetryPolicy


@pytest.mark.parametrize("outages", [1, 2, 5, 1000])
def test_what_waits_for_something_that_is_down_is_tried_within_a_second_however_long_that_lasts(
    outages: int,
) -> None:
    policy = RetryPolicy()
    assert 0.5 < policy.pause(outages, policy.longest_outage_pause) <= 1


def test_what_fails_by_itself_is_tried_for_about_half_a_minute() -> None:
    policy = RetryPolicy()
    waited = sum(policy.pause(failures, policy.longest_pause) for failures in range(1, policy.tries))
    assert 20 < waited < 40
