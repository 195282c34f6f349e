"""Which consumer groups stand still."""

from datetime import UTC, datetime, timedelta

from stoa_ops.groups import STANDSTILL, Progress, standstills, unmoved
from stoa_ops.topics import Position

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(minutes=4)
FIRST, SECOND = Position("order.placed", 0), Position("order.placed", 1)


def progress(first: int, second: int = 5, ends: int = 9, missing: tuple[str, ...] = ()) -> Progress:
    """How far inventory is in two partitions that have as many messages."""
    return Progress(
        next={"inventory": {FIRST: first, SECOND: second}},
        ends={FIRST: ends, SECOND: ends},
        missing={"inventory": missing},
    )


def test_a_group_that_commits_nothing_while_messages_wait_has_not_moved() -> None:
    before, after = progress(first=7, second=5), progress(first=7, second=6, ends=12)
    assert unmoved(before, after) == {"inventory": {FIRST: 7}}


def test_a_group_that_has_handled_everything_does_not_stand_still() -> None:
    done = progress(first=9, second=9)
    assert unmoved(done, done) == {}
    assert done.lag == {"inventory": 0}


def test_what_came_since_the_look_before_is_not_late() -> None:
    assert unmoved(progress(first=9, second=9, ends=9), progress(first=9, second=9, ends=10)) == {}


def test_a_standstill_says_where_since_when_and_how_much_waits() -> None:
    after = progress(first=7, second=5)
    [standstill] = standstills(after, {"inventory": {FIRST: 7}}, {FIRST: LONG_AGO}, {"inventory": 2}, NOW)
    assert standstill.group == "inventory"
    assert standstill.problem == "stands still: order.placed/0/7 waits for 4 min 0 s, 6 messages in all"
    assert "stoa logs inventory" in standstill.cure


def test_a_message_that_may_still_be_tried_again_is_no_standstill() -> None:
    soon = NOW - STANDSTILL + timedelta(seconds=1)
    assert not standstills(progress(7), {"inventory": {FIRST: 7}}, {FIRST: soon}, {"inventory": 2}, NOW)


def test_a_group_without_processes_is_to_be_started() -> None:
    [standstill] = standstills(progress(7), {"inventory": {FIRST: 7}}, {FIRST: LONG_AGO}, {}, NOW)
    assert "stoa restart inventory" in standstill.cure


def test_a_group_without_its_dead_letter_topic_is_shown_before_anything_waits() -> None:
    done = progress(first=9, second=9, missing=("inventory.dlq",))
    [standstill] = standstills(done, {}, {}, {}, NOW)
    assert standstill.problem == "its topic inventory.dlq is missing"
    assert "stoa deploy" in standstill.cure
