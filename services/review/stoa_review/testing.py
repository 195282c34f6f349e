"""The store of reviews in memory, for tests of use cases; see `stoa_chassis.memory`.

It refuses what the real store refuses: one suite, tests/test_repository.py, runs on both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from stoa_chassis.memory import MemoryStore
from stoa_chassis.outbox import Outbox
from stoa_review.model import Review, ReviewNotFound
from stoa_review.ports import Tx


@dataclass(frozen=True)
class Rows:
    """What the review service keeps. Nobody changes what is in here: each change makes new rows."""

    reviews: Mapping[UUID, Review] = field(default_factory=dict)


class ReviewStore:
    """The reviews of all users, in a transaction."""

    def __init__(self, store: MemoryStore[Rows], outbox: Outbox) -> None:
        self._store = store
        self._outbox = outbox

    async def add(self, review: Review) -> None:
        """Store a new review, and publish its events."""
        rows = self._store.rows.reviews
        self._store.check(review.review_id not in rows, "reviews_pkey")
        self._store.rows = Rows({**rows, review.review_id: replace(review, events=[])})
        self._outbox.collect(review)


class ReviewReader:
    """The reviews of all users, outside of a transaction."""

    def __init__(self, store: Callable[[], MemoryStore[Rows]]) -> None:
        self._store = store

    async def get(self, user_id: UUID, review_id: UUID) -> Review:
        """Read a user's review. Raises ReviewNotFound."""
        found = self._store().rows.reviews.get(review_id)
        if found is None or found.user_id != user_id:
            raise ReviewNotFound("the user has no such review")
        return replace(found, events=[])

    async def list(self, user_id: UUID, before: UUID | None, limit: int) -> Sequence[Review]:
        """Read a user's reviews, the newest first; `before`: only older than this one."""
        rows = self._store().rows.reviews
        ids = sorted((key for key, review in rows.items() if review.user_id == user_id), reverse=True)
        return [replace(rows[key], events=[]) for key in ids if before is None or key < before][:limit]


def open_tx(store: MemoryStore[Rows], outbox: Outbox) -> Tx:
    """Put the repository on the view of a transaction."""
    return Tx(ReviewStore(store, outbox))
