"""The store of reviews in memory, for tests of use cases; see `stoa_chassis.memory`.

It writes one document in a unit of work, as the real store does: one suite, tests/test_repository.py, runs on
both.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from stoa_chassis.memory import MemoryStore
from stoa_chassis.outbox import Outbox, RecordsEvents
from stoa_review import ports
from stoa_review.model import Buyer, ListBucket, Review, ReviewNotFound, Status, VoteBucket, VoteCount


@dataclass(frozen=True)
class Rows:
    """What the review service keeps. Nobody changes what is in here: each change makes new rows."""

    buyers: Mapping[UUID, Buyer] = field(default_factory=dict)
    reviews: Mapping[UUID, Review] = field(default_factory=dict)
    votes: Mapping[tuple[UUID, int, int], VoteBucket] = field(default_factory=dict)
    lists: Mapping[tuple[UUID, int], ListBucket] = field(default_factory=dict)


class _Documents:
    """The documents of a unit of work, which writes one of them."""

    def __init__(self, store: MemoryStore[Rows], outbox: Outbox) -> None:
        self._store = store
        self._outbox = outbox
        self._has_written = False

    @property
    def rows(self) -> Rows:
        """What is stored, with what this unit of work has written."""
        return self._store.rows

    def write(self, rows: Rows, entity: RecordsEvents | None = None) -> None:
        """Store rows in which one document has changed, and publish its events."""
        if self._has_written:
            raise RuntimeError("a unit of work writes one document, once")
        self._has_written = True
        self._store.rows = rows
        if entity is not None:
            self._outbox.collect(entity)


class Buyers:
    """Who has received what, in a unit of work."""

    def __init__(self, documents: _Documents) -> None:
        self._documents = documents

    async def get(self, user_id: UUID) -> Buyer:
        """Return a buyer, one who has received nothing if there is none."""
        return replace(self._documents.rows.buyers.get(user_id) or Buyer(user_id))

    async def save(self, buyer: Buyer) -> None:
        """Store a buyer, if anything changed."""
        buyers = self._documents.rows.buyers
        if buyer.version != buyers.get(buyer.user_id, Buyer(buyer.user_id)).version:
            rows = self._documents.rows
            self._documents.write(replace(rows, buyers={**buyers, buyer.user_id: replace(buyer)}))


class Reviews:
    """The reviews of all products, in a unit of work."""

    def __init__(self, documents: _Documents) -> None:
        self._documents = documents

    async def find(self, review_id: UUID) -> Review | None:
        """Return a review, None if there never was one."""
        found = self._documents.rows.reviews.get(review_id)
        return replace(found, events=[]) if found is not None else None

    async def get(self, review_id: UUID) -> Review:
        """Return a review. Raises ReviewNotFound if there never was one."""
        review = await self.find(review_id)
        if review is None:
            raise ReviewNotFound(f"review {review_id} not found")
        return review

    async def save(self, review: Review) -> None:
        """Store a review, and publish its events; nothing is written if nothing changed."""
        reviews = self._documents.rows.reviews
        stored = reviews.get(review.review_id)
        if stored is None or stored.version != review.version:
            kept = replace(review, events=[])
            rows = replace(self._documents.rows, reviews={**reviews, review.review_id: kept})
            self._documents.write(rows, review)


class Votes:
    """The votes for all reviews, in a unit of work."""

    def __init__(self, documents: _Documents) -> None:
        self._documents = documents

    async def get(self, review: Review, number: int) -> VoteBucket:
        """Return a bucket of the votes for a review as it was last written, an empty one if there is none."""
        empty = VoteBucket(review.product_id, review.review_id, review.edition, number)
        found = self._documents.rows.votes.get((review.review_id, review.edition, number), empty)
        return replace(found, events=[])

    async def save(self, bucket: VoteBucket) -> None:
        """Store a bucket, and publish its events; nothing is written if nothing changed."""
        key, votes = (bucket.review_id, bucket.edition, bucket.number), self._documents.rows.votes
        if bucket.version != (votes[key].version if key in votes else 0):
            rows = replace(self._documents.rows, votes={**votes, key: replace(bucket, events=[])})
            self._documents.write(rows, bucket)


class Lists:
    """The lists of all products' reviews, in a unit of work."""

    def __init__(self, documents: _Documents) -> None:
        self._documents = documents

    async def get(self, product_id: UUID, number: int) -> ListBucket:
        """Return a bucket of a product's list, an empty one if there is none."""
        found = self._documents.rows.lists.get((product_id, number), ListBucket(product_id, number))
        return replace(found, events=[])

    async def save(self, bucket: ListBucket) -> None:
        """Store a bucket, and publish its events; nothing is written if nothing changed."""
        key, lists = (bucket.product_id, bucket.number), self._documents.rows.lists
        if bucket.version != (lists[key].version if key in lists else 0):
            rows = replace(self._documents.rows, lists={**lists, key: replace(bucket, events=[])})
            self._documents.write(rows, bucket)


def open_tx(store: MemoryStore[Rows], outbox: Outbox) -> ports.Tx:
    """Put the repositories on the view of a transaction."""
    documents = _Documents(store, outbox)
    return ports.Tx(Buyers(documents), Reviews(documents), Votes(documents), Lists(documents))


class ReviewReader:
    """Reviews and what belongs to them, outside of a unit of work."""

    def __init__(self, store: Callable[[], MemoryStore[Rows]]) -> None:
        self._store = store

    @property
    def _rows(self) -> Rows:
        return self._store().rows

    async def get(self, review_id: UUID) -> Review:
        """Return a review. Raises ReviewNotFound if there never was one."""
        if review_id not in self._rows.reviews:
            raise ReviewNotFound(f"review {review_id} not found")
        return replace(self._rows.reviews[review_id], events=[])

    async def batch(self, review_ids: Sequence[UUID]) -> Sequence[Review]:
        """Return those reviews that there are, in the order asked for."""
        return [await self.get(review_id) for review_id in review_ids if review_id in self._rows.reviews]

    async def list(self, product_id: UUID) -> Sequence[ListBucket]:
        """Return all buckets of a product's list."""
        first = self._rows.lists.get((product_id, 0))
        numbers = (0, *first.others) if first is not None else ()
        return [replace(self._rows.lists[product_id, number], events=[]) for number in numbers]

    async def with_status(
        self, status: Status, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[Review]:
        """Return the reviews of all products that have a status, those first that were not changed for
        longest.

        `after`: only those that follow on the one that was changed then and has that id.
        """
        reviews = (each for each in self._rows.reviews.values() if each.status is status)
        found = sorted((each.updated_at, each.review_id) for each in reviews)
        ids = [review_id for at, review_id in found if after is None or (at, review_id) > after]
        return await self.batch(ids[:limit])

    async def votes(self, review: Review) -> VoteCount:
        """Count the votes for a review as it was last written."""
        edition = (review.review_id, review.edition)
        return VoteCount.of(
            (len(bucket.voters), bucket.version)
            for key, bucket in self._rows.votes.items()
            if key[:2] == edition
        )

    async def with_replies_of(self, user_id: UUID) -> Collection[UUID]:
        """Return the reviews to which a user has replied."""
        return [
            review.review_id
            for review in self._rows.reviews.values()
            if any(reply.user_id == user_id for reply in review.replies)
        ]

    async def erased(self, user_ids: Iterable[UUID]) -> Collection[UUID]:
        """Return those of these users whose accounts were erased."""
        buyers = self._rows.buyers
        return [user_id for user_id in user_ids if user_id in buyers and buyers[user_id].is_erased]
