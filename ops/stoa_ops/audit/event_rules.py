"""What must hold of events: what was published is in its topic, what was consumed took effect."""

from __future__ import annotations

from collections.abc import Iterator

from stoa_chassis.audit import Finding
from stoa_ops.audit.event_log import LOOK_BACK, EventBooks


def findings(books: EventBooks) -> Iterator[Finding]:
    """Check everything."""
    yield from _published_events_are_in_their_topics(books)
    yield from _events_in_topics_were_written(books)
    yield from _consumed_events_took_effect(books)


def _published_events_are_in_their_topics(books: EventBooks) -> Iterator[Finding]:
    since = books.began - LOOK_BACK
    for event_id, written in books.written.items():
        readable_since = max(since, books.read_from.get(written.topic, since))
        if written.published and written.created_at > readable_since and event_id not in books.seen:
            yield Finding(
                "published events are in their topics",
                f"event {event_id} of {written.topic}",
                f"{written.service} published it, and it is not there",
                f"the table outbox of {written.service}; docs/operations.md, lost events",
            )


def _events_in_topics_were_written(books: EventBooks) -> Iterator[Finding]:
    """Only of topics that are fed from an outbox in PostgreSQL; the other stores keep no published events."""
    kept = {written.topic for written in books.written.values()}
    for event_id, seen in books.seen.items():
        recent = books.began - LOOK_BACK < seen.at < books.began
        if seen.position.topic in kept and recent and event_id not in books.written:
            yield Finding(
                "events in topics come from an outbox",
                f"event {event_id} of {seen.position.topic}",
                f"no service wrote what is at {_place(seen.position, seen.offset)}",
                "who published it: its headers, and the access rights of the topic",
            )


def _consumed_events_took_effect(books: EventBooks) -> Iterator[Finding]:
    rule = "consumed events took effect"
    for group, positions in books.committed.items():
        parked = books.parked.get(group, set())
        inbox = books.inboxes.get(group, ())
        for event_id, seen in books.seen.items():
            done = seen.offset < positions.get(seen.position, 0)
            if done and books.expects(group, seen.position.topic):
                if event_id in inbox or event_id in parked:
                    continue
                yield Finding(
                    rule,
                    f"event {event_id} of {seen.position.topic} at {group}",
                    f"{group} went on past {_place(seen.position, seen.offset)} without noting or parking it",
                    f"stoa logs {group} | grep {event_id}",
                )
        for garbage in books.garbage:
            done = garbage.offset < positions.get(garbage.position, 0)
            if done and garbage.group in ("", group) and (garbage.position, garbage.offset) not in parked:
                yield Finding(
                    rule,
                    f"message {_place(garbage.position, garbage.offset)} at {group}",
                    f"it is no event, and {group} did not park it",
                    f"stoa logs {group}",
                )


def _place(position: tuple[str, int], offset: int) -> str:
    return f"{position[0]}/{position[1]}/{offset}"
