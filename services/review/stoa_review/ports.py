"""What the use cases of reviews need from outside."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from stoa_review.model import Review


class ReviewStore(Protocol):
    """The reviews of all users, in a transaction."""

    async def add(self, review: Review) -> None:
        """Store a new review, and publish its events."""
        ...


class ReviewReader(Protocol):
    """The reviews of all users, outside of a transaction."""

    async def get(self, user_id: UUID, review_id: UUID) -> Review:
        """Read a user's review. Raises ReviewNotFound."""
        ...

    async def list(self, user_id: UUID, before: UUID | None, limit: int) -> Sequence[Review]:
        """Read a user's reviews, the newest first; `before`: only older than this one."""
        ...


@dataclass(frozen=True, slots=True)
class Tx:
    """What a use case sees of a transaction."""

    reviews: ReviewStore
