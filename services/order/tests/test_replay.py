"""What a replay of orders prints."""

import json
from uuid import UUID

import pytest
from asyncpg.pgproto import pgproto

from stoa_chassis.ids import new_id
from stoa_order.replay import Report


@pytest.mark.parametrize("kind", [UUID, pgproto.UUID], ids=["of Python", "of asyncpg"])
def test_the_report_names_the_orders_that_were_mended(kind: type[UUID]) -> None:
    order_id = kind(str(new_id()))
    assert json.loads(Report(2, [order_id]).text) == {"replayed": 2, "differed": [str(order_id)]}


def test_the_report_of_a_replay_that_mended_nothing_is_whole() -> None:
    assert json.loads(Report(2).text) == {"replayed": 2, "differed": []}
