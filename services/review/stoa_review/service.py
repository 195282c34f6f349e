"""The use cases of reviews."""

from collections.abc import Sequence
from uuid import UUID

from stoa_chassis.clock import Clock
from stoa_chassis.uow import UnitOfWork, transactional
from stoa_review.model import Review
from stoa_review.ports import ReviewReader, Tx


class Reviews:
    """Creating and reading reviews."""

    def __init__(self, uow: UnitOfWork[Tx], reader: ReviewReader, clock: Clock) -> None:
        self._uow = uow
        self._reader = reader
        self._clock = clock

    @transactional
    async def create(self, tx: Tx, user_id: UUID, title: str) -> Review:
        """Create a review for a user."""
        review = Review.create(user_id, title, self._clock.now())
        await tx.reviews.add(review)
        return review

    async def get(self, user_id: UUID, review_id: UUID) -> Review:
        """Read a user's review. Raises ReviewNotFound."""
        return await self._reader.get(user_id, review_id)

    async def list(self, user_id: UUID, before: UUID | None, limit: int) -> Sequence[Review]:
        """Read a user's reviews, the newest first; `before`: only older than this one."""
        return await self._reader.list(user_id, before, limit)
