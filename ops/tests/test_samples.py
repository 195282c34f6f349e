"""What `stoa top` makes of two looks at a shop."""

import pytest

from stoa_ops.samples import Sample, between
from stoa_ops.texts import duration

GET = ("catalog", "/stoa.catalog.v1.CatalogService/GetProduct")


def test_rates_are_of_the_time_between_two_looks_and_tell_faults_from_refusals() -> None:
    before, after = Sample(at=100.0), Sample(at=102.0)
    before.handled[*GET, "OK"] = 10
    after.handled |= {(*GET, "OK"): 14, (*GET, "NOT_FOUND"): 3, (*GET, "UNAVAILABLE"): 1}
    after.seconds[GET] = 0.04
    [rpc] = between(before, after).rpcs
    assert (rpc.service, rpc.method) == GET
    assert (rpc.per_second, rpc.errors_per_second, rpc.refused_per_second) == (4, 0.5, 1.5)
    assert rpc.mean_ms == 5


def test_a_service_that_was_restarted_counts_from_its_start() -> None:
    before, after = Sample(at=0.0), Sample(at=1.0)
    before.processed["order", "inventory.reserved"] = 1000
    after.processed["order", "inventory.reserved"] = 7
    [consumption] = between(before, after).consumers
    assert consumption.per_second == 7


def test_cpu_is_in_percent_of_a_core_and_a_part_that_just_began_has_used_none() -> None:
    before = Sample(at=0.0, cpu={"order": 5.0, "kafka": 50.0}, memory={"order": 80.0, "kafka": 300.0})
    after = Sample(
        at=2.0,
        cpu={"order": 6.0, "kafka": 0.5, "edge": 1.0},
        memory={"order": 81.0} | dict.fromkeys(("kafka", "edge"), 40.0),
    )
    used = {part.part: part.cpu_percent for part in between(before, after).parts}
    assert used == {"order": 50, "kafka": 0, "edge": 0}


def test_what_did_nothing_is_not_shown() -> None:
    before, after = Sample(at=0.0), Sample(at=1.0)
    before.handled[*GET, "OK"] = after.handled[*GET, "OK"] = 10
    assert not between(before, after).rpcs


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (59.9, "59 s"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (273600, "3 d 4 h")],
)
def test_durations_are_told_in_one_or_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
