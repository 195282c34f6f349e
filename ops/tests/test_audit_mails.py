"""The audit of mails against events: what happened is told of, and what is told happened."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from stoa_chassis.ids import new_id
from stoa_notification import audit as notification
from stoa_notification.audit import Notification
from stoa_ops.audit.books import Mail, ShopBooks
from stoa_ops.audit.event_log import EventBooks, Written
from stoa_ops.audit.invariants import findings

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
THEN = NOW - timedelta(minutes=1)
CONFIRMED = new_id()
WRITTEN = {CONFIRMED: Written("order", "order.confirmed", THEN, published=True)}
SENT = Notification(new_id(), CONFIRMED, new_id(), "order_confirmed", "email", "sent", "smtp", "", THEN)
ARRIVED = Mail(f"<{SENT.notification_id}@stoa.example>", 1)

TOLD, MAILED = "users are told what happened", "what was mailed has arrived, and nothing else"


def broken(
    told: Sequence[Notification],
    mails: Sequence[Mail] | None,
    written: Mapping[UUID, Written] = WRITTEN,
) -> set[str]:
    books = ShopBooks(
        services={"notification": notification.Books(told, NOW)},
        mails=mails,
        events=EventBooks(written=written, began=NOW),
    )
    return {finding.rule for finding in findings(books)} & {TOLD, MAILED}


def test_an_event_with_its_mail_is_in_order_also_if_the_mail_came_again_as_the_same() -> None:
    assert not broken([SENT], [ARRIVED])
    assert not broken([SENT], [replace(ARRIVED, deliveries=2)])


def test_an_event_of_which_nobody_was_told_is_found_unless_it_is_none_to_tell() -> None:
    assert broken([], []) == {TOLD}
    profile = Written("user", "user.profile_updated", THEN, published=True)
    assert not broken([], [], {CONFIRMED: profile})


def test_that_it_is_not_wanted_is_an_answer_too() -> None:
    assert not broken([replace(SENT, status="suppressed", provider="", failure="unwanted")], [])


def test_what_is_told_of_nothing_is_found() -> None:
    assert broken([SENT], [ARRIVED], {}) == {TOLD}
    older = replace(SENT, created_at=NOW - timedelta(days=30))
    assert not broken([older], [ARRIVED], {})


def test_a_mail_that_got_lost_and_one_that_nobody_sent_are_found() -> None:
    assert broken([SENT], []) == {MAILED}
    stray = Mail(f"<{new_id()}@stoa.example>", 1)
    assert broken([SENT], [ARRIVED, stray]) == {MAILED}
    assert broken([replace(SENT, status="failed", provider="")], [ARRIVED]) == {MAILED}


def test_a_mail_server_that_does_not_show_what_it_got_is_not_compared_with() -> None:
    assert not broken([SENT], None)
