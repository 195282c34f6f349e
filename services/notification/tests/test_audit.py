"""What the audit finds in the books of the notification service."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stoa_chassis.ids import new_id
from stoa_notification.audit import NOTED, Books, Notification, findings
from stoa_services import SERVICES

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SENT = Notification(
    new_id(), new_id(), new_id(), "order_confirmed", "email", "sent", "smtp", "", NOW - timedelta(minutes=1)
)


def rules(*notifications: Notification) -> list[str]:
    return [finding.rule for finding in findings(Books(notifications, NOW))]


def test_what_was_sent_refused_suppressed_or_begun_a_moment_ago_is_in_order() -> None:
    begun = replace(SENT, order_id=new_id(), status="pending", created_at=NOW - timedelta(seconds=5))
    unwanted = replace(SENT, order_id=new_id(), status="suppressed", failure="unwanted")
    refused = replace(SENT, order_id=new_id(), status="failed", failure="refused: 550")
    by_phone = replace(SENT, channel="sms")
    assert rules(SENT, begun, unwanted, refused, by_phone) == []


@pytest.mark.parametrize(
    "wrong", [replace(SENT, status="pending"), replace(SENT, status="failed", failure="outcome_unknown")]
)
def test_what_was_not_delivered_is_found(wrong: Notification) -> None:
    assert rules(wrong) == ["every notification is delivered"]


def test_an_order_that_is_told_of_twice_is_found() -> None:
    assert rules(SENT, replace(SENT, cause_id=new_id())) == ["an order is told of once"]
    refund = replace(SENT, template="refund_made")
    assert rules(refund, replace(refund, cause_id=new_id())) == []


def test_what_is_noted_is_consumed() -> None:
    left_out = {*SERVICES["notification"].consumes} - {*NOTED}
    assert left_out == {"order.placed", "shipment.status_updated"}
