"""The gRPC servicer: messages to use cases and back."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from stoa.review.v1 import review_pb2, review_pb2_grpc
from stoa_chassis.paging import page
from stoa_chassis.timestamps import to_timestamp
from stoa_review.model import Review
from stoa_review.service import Reviews


class ReviewServicer(review_pb2_grpc.ReviewServiceServicer):
    """stoa.review.v1.ReviewService."""

    def __init__(self, reviews: Reviews) -> None:
        self._reviews = reviews

    async def CreateReview(
        self, request: review_pb2.CreateReviewRequest, context: Any
    ) -> review_pb2.CreateReviewResponse:
        """Create a review."""
        review = await self._reviews.create(UUID(request.user_id), request.review.title)
        return review_pb2.CreateReviewResponse(review=_message(review))

    async def GetReview(
        self, request: review_pb2.GetReviewRequest, context: Any
    ) -> review_pb2.GetReviewResponse:
        """Read a review."""
        review = await self._reviews.get(UUID(request.user_id), UUID(request.review_id))
        return review_pb2.GetReviewResponse(review=_message(review))

    async def ListReviews(
        self, request: review_pb2.ListReviewsRequest, context: Any
    ) -> review_pb2.ListReviewsResponse:
        """List a user's reviews."""

        async def read(after: Mapping[str, Any], limit: int) -> Sequence[Review]:
            before = UUID(after["review_id"]) if after else None
            return await self._reviews.list(UUID(request.user_id), before, limit)

        found = await page(
            request, {"user_id": request.user_id}, read, lambda last: {"review_id": last.review_id}
        )
        return review_pb2.ListReviewsResponse(
            reviews=map(_message, found.items), next_page_token=found.next_page_token
        )


def _message(review: Review) -> review_pb2.Review:
    return review_pb2.Review(
        review_id=str(review.review_id),
        user_id=str(review.user_id),
        title=review.title,
        created_at=to_timestamp(review.created_at),
    )
