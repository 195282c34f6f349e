"""When calls to a target that does not answer fail at once, and when one may try again."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from stoa_chassis import breaker
from stoa_chassis.breaker import Breaker, State
from stoa_chassis.errors import Code, RemoteError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The breaker's clock, whose hands a test moves."""
    hands = SimpleNamespace(at=1000.0)
    monkeypatch.setattr(breaker, "time", SimpleNamespace(monotonic=lambda: hands.at))
    return hands


def passes(tried: Breaker, *, probes: bool = True) -> bool:
    try:
        tried.enter("/m", probes=probes)
    except RemoteError:
        return False
    return True


def opened(threshold: int = 2, ttl: float = 3.0) -> Breaker:
    tried = Breaker("far", threshold=threshold, ttl=ttl)
    for _ in range(threshold):
        tried.failed()
    return tried


def shown(target: str) -> float | None:
    """The state that the metric says."""
    return REGISTRY.get_sample_value("stoa_breaker_state", {"target": target})


def test_it_opens_after_five_failures_in_a_row_for_a_second(clock: SimpleNamespace) -> None:
    tried = Breaker("far")
    for _ in range(4):
        tried.failed()
        assert passes(tried)
    tried.succeeded()
    for _ in range(4):
        tried.failed()
        assert passes(tried)
    tried.failed()
    assert not passes(tried)
    clock.at += 0.99
    assert not passes(tried)
    clock.at += 0.01
    assert passes(tried)


def test_what_it_refuses_says_which_target_is_away_and_when_to_come_again(clock: SimpleNamespace) -> None:
    tried = opened()
    with pytest.raises(RemoteError) as refused:
        tried.enter("/stoa.far/Get")
    error = refused.value
    assert (error.target, error.method, error.code, error.reason, error.retry_after) == (
        "far",
        "/stoa.far/Get",
        Code.UNAVAILABLE,
        "CIRCUIT_OPEN",
        timedelta(seconds=3),
    )


def test_one_call_probes_while_the_others_fail_at_once(clock: SimpleNamespace) -> None:
    tried = opened()
    clock.at += 3
    assert passes(tried)
    assert not passes(tried)
    tried.succeeded()
    assert passes(tried)
    assert passes(tried)


def test_a_probe_that_fails_opens_it_for_as_long_again(clock: SimpleNamespace) -> None:
    tried = opened()
    clock.at += 3
    assert passes(tried)
    tried.failed()
    clock.at += 2.9
    assert not passes(tried)
    clock.at += 0.1
    assert passes(tried)


def test_a_probe_that_was_given_up_leaves_the_try_to_the_next(clock: SimpleNamespace) -> None:
    tried = opened()
    clock.at += 3
    assert passes(tried)
    tried.abandoned()
    assert passes(tried)


def test_a_call_that_may_take_long_is_no_probe(clock: SimpleNamespace) -> None:
    tried = opened()
    clock.at += 3
    assert not passes(tried, probes=False)
    assert passes(tried)
    tried.succeeded()
    assert passes(tried, probes=False)


def test_after_a_success_failures_are_counted_anew(clock: SimpleNamespace) -> None:
    tried = opened()
    clock.at += 3
    assert passes(tried)
    tried.succeeded()
    tried.failed()
    assert passes(tried)
    tried.failed()
    assert not passes(tried)


def test_the_metric_has_its_state(clock: SimpleNamespace) -> None:
    assert [*State] == [0, 1, 2]
    tried = Breaker("watched", threshold=1, ttl=3.0)
    assert shown("watched") == State.CLOSED
    tried.failed()
    assert shown("watched") == State.OPEN
    clock.at += 3
    tried.enter("/m")
    assert shown("watched") == State.HALF_OPEN
    tried.succeeded()
    assert shown("watched") == State.CLOSED
    tried.failed()
    Breaker("watched")
    assert shown("watched") == State.CLOSED, "who takes its place begins closed"
