"""Reviews, and the rules they keep."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self
from uuid import UUID

from stoa_chassis.errors import NotFound
from stoa_chassis.ids import new_id
from stoa_events import ReviewCreated


class ReviewNotFound(NotFound):
    """The user has no such review."""

    reason = "REVIEW_NOT_FOUND"


@dataclass(slots=True, kw_only=True)
class Review:
    """A review."""

    review_id: UUID
    user_id: UUID
    title: str
    created_at: datetime
    events: list[ReviewCreated] = field(default_factory=list, compare=False)

    @classmethod
    def create(cls, user_id: UUID, title: str, now: datetime) -> Self:
        """Create a review for a user."""
        # The store keeps times to the millisecond: an answer now and one later are the same.
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        review = cls(review_id=new_id(), user_id=user_id, title=title.strip(), created_at=now)
        review.events.append(ReviewCreated(review_id=review.review_id, user_id=user_id, title=review.title))
        return review
