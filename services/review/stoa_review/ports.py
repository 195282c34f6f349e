"""What the use cases of reviews need from outside."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from stoa_review.model import Buyer, ListBucket, Review, Status, VoteBucket, VoteCount


class Buyers(Protocol):
    """Who has received what, in a unit of work."""

    async def get(self, user_id: UUID) -> Buyer:
        """Return a buyer, one who has received nothing if there is none."""
        ...

    async def save(self, buyer: Buyer) -> None:
        """Store a buyer, if anything changed."""
        ...


class Reviews(Protocol):
    """The reviews of all products, in a unit of work."""

    async def find(self, review_id: UUID) -> Review | None:
        """Return a review, None if there never was one."""
        ...

    async def get(self, review_id: UUID) -> Review:
        """Return a review. Raises ReviewNotFound if there never was one."""
        ...

    async def save(self, review: Review) -> None:
        """Store a review, and publish its events; nothing is written if nothing changed."""
        ...


class Votes(Protocol):
    """The votes for all reviews, in a unit of work."""

    async def get(self, review: Review, number: int) -> VoteBucket:
        """Return a bucket of the votes for a review as it was last written, an empty one if there is none."""
        ...

    async def save(self, bucket: VoteBucket) -> None:
        """Store a bucket, and publish its events; nothing is written if nothing changed."""
        ...


class Lists(Protocol):
    """The lists of all products' reviews, in a unit of work."""

    async def get(self, product_id: UUID, number: int) -> ListBucket:
        """Return a bucket of a product's list, an empty one if there is none."""
        ...

    async def save(self, bucket: ListBucket) -> None:
        """Store a bucket, and publish its events; nothing is written if nothing changed."""
        ...


@dataclass(frozen=True, slots=True)
class Tx:
    """What a use case sees of a unit of work, which writes one document."""

    buyers: Buyers
    reviews: Reviews
    votes: Votes
    lists: Lists


class ReviewReader(Protocol):
    """Reviews and what belongs to them, outside of a unit of work."""

    async def get(self, review_id: UUID) -> Review:
        """Return a review. Raises ReviewNotFound if there never was one."""
        ...

    async def batch(self, review_ids: Sequence[UUID]) -> Sequence[Review]:
        """Return those reviews that there are, in the order asked for."""
        ...

    async def list(self, product_id: UUID) -> Sequence[ListBucket]:
        """Return all buckets of a product's list."""
        ...

    async def with_status(
        self, status: Status, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[Review]:
        """Return the reviews of all products that have a status, those first that were not changed for
        longest.

        `after`: only those that follow on the one that was changed then and has that id.
        """
        ...

    async def votes(self, review: Review) -> VoteCount:
        """Count the votes for a review as it was last written."""
        ...

    async def with_replies_of(self, user_id: UUID) -> Collection[UUID]:
        """Return the reviews to which a user has replied."""
        ...

    async def erased(self, user_ids: Iterable[UUID]) -> Collection[UUID]:
        """Return those of these users whose accounts were erased."""
        ...
