"""The gRPC servicer: messages to use cases and back."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from stoa.review.v1 import review_pb2, review_pb2_grpc
from stoa_chassis.auth import current_principal
from stoa_chassis.errors import InvalidArgument
from stoa_chassis.paging import page
from stoa_chassis.timestamps import to_timestamp
from stoa_review.model import Opinion, Reply, Review, Sort, Status
from stoa_review.service import Listed, Reading, Reviewing


class ReviewServicer(review_pb2_grpc.ReviewServiceServicer):
    """stoa.review.v1.ReviewService."""

    def __init__(self, reading: Reading, reviewing: Reviewing) -> None:
        self._reading = reading
        self._reviewing = reviewing

    async def ListProductReviews(
        self, request: review_pb2.ListProductReviewsRequest, context: object
    ) -> review_pb2.ListProductReviewsResponse:
        """List a product's published reviews."""
        product_id, sort = UUID(request.product_id), Sort(request.sort or Sort.MOST_HELPFUL)

        async def read(after: Mapping[str, Any], limit: int) -> Sequence[Listed]:
            place = tuple(after["place"]) if after else None
            return await self._reading.of_product(product_id, sort, place, limit)

        filters = {"product_id": product_id, "sort": str(sort)}
        found = await page(request, filters, read, lambda last: {"place": last.place})
        return review_pb2.ListProductReviewsResponse(
            reviews=(_message(listed.review) for listed in found.items),
            next_page_token=found.next_page_token,
        )

    async def ListReviews(
        self, request: review_pb2.ListReviewsRequest, context: object
    ) -> review_pb2.ListReviewsResponse:
        """List the reviews that have a status, for staff."""
        status = Status(request.status or Status.PENDING)

        async def read(after: Mapping[str, Any], limit: int) -> Sequence[Review]:
            last = (datetime.fromisoformat(after["at"]), UUID(after["review_id"])) if after else None
            return await self._reading.with_status(status, last, limit)

        found = await page(
            request,
            {"status": str(status)},
            read,
            lambda last: {"at": last.updated_at, "review_id": last.review_id},
        )
        return review_pb2.ListReviewsResponse(
            reviews=map(_message, found.items), next_page_token=found.next_page_token
        )

    async def GetReview(
        self, request: review_pb2.GetReviewRequest, context: object
    ) -> review_pb2.GetReviewResponse:
        """Read a review."""
        caller = current_principal()
        review = await self._reading.get(
            UUID(request.review_id), caller.known_user, is_staff=caller.acts_as_staff
        )
        return review_pb2.GetReviewResponse(review=_message(review))

    async def CreateReview(
        self, request: review_pb2.CreateReviewRequest, context: object
    ) -> review_pb2.CreateReviewResponse:
        """Review a product."""
        review = await self._reviewing.create(
            _signed_in(), UUID(request.product_id), _order_id(request.review), _opinion(request.review)
        )
        return review_pb2.CreateReviewResponse(review=_message(review))

    async def UpdateReview(
        self, request: review_pb2.UpdateReviewRequest, context: object
    ) -> review_pb2.UpdateReviewResponse:
        """Replace what a review says."""
        asked = request.review
        if not asked.etag:  # which whoever writes the first has none of
            raise InvalidArgument("review.etag", "is missing: it must be that of the version you read")
        review = await self._reviewing.update(
            _signed_in(), UUID(request.review_id), _order_id(asked), _opinion(asked), asked.etag
        )
        return review_pb2.UpdateReviewResponse(review=_message(review))

    async def DeleteReview(self, request: review_pb2.DeleteReviewRequest, context: object) -> Empty:
        """Take a review back."""
        await self._reviewing.delete(_signed_in(), UUID(request.review_id))
        return Empty()

    async def VoteReview(
        self, request: review_pb2.VoteReviewRequest, context: object
    ) -> review_pb2.VoteReviewResponse:
        """Find a review helpful, or no longer."""
        review = await self._reviewing.vote(_signed_in(), UUID(request.review_id), request.helpful)
        return review_pb2.VoteReviewResponse(review=_message(review))

    async def CreateReply(
        self, request: review_pb2.CreateReplyRequest, context: object
    ) -> review_pb2.CreateReplyResponse:
        """Reply to a review."""
        reply = await self._reviewing.reply(
            _signed_in(),
            UUID(request.review_id),
            request.reply.reply,
            UUID(request.reply.parent_id) if request.reply.parent_id else None,
            is_staff=current_principal().acts_as_staff,
        )
        return review_pb2.CreateReplyResponse(reply=_reply_message(reply))

    async def DeleteReply(self, request: review_pb2.DeleteReplyRequest, context: object) -> Empty:
        """Take back what a reply says."""
        await self._reviewing.take_back_reply(
            _signed_in(),
            UUID(request.review_id),
            UUID(request.reply_id),
            is_staff=current_principal().acts_as_staff,
        )
        return Empty()

    async def ModerateReview(
        self, request: review_pb2.ModerateReviewRequest, context: object
    ) -> review_pb2.ModerateReviewResponse:
        """Publish a review or reject it."""
        review = await self._reviewing.moderate(
            UUID(request.review_id), Status(request.status), request.reason
        )
        return review_pb2.ModerateReviewResponse(review=_message(review))


def _signed_in() -> UUID:
    return UUID(current_principal().user_id)


def _order_id(sent: review_pb2.Review) -> UUID | None:
    return UUID(sent.order_id) if sent.order_id else None


def _opinion(sent: review_pb2.Review) -> Opinion:
    return Opinion(sent.rating, sent.title, sent.review, tuple(sent.photos))


def _message(review: Review) -> review_pb2.Review:
    caller = current_principal()
    is_open = caller.acts_as_staff or review.is_by(caller.known_user)
    return review_pb2.Review(
        review_id=str(review.review_id),
        product_id=str(review.product_id),
        user_id=str(review.user_id or ""),
        order_id=str(review.order_id),
        rating=review.opinion.rating,
        title=review.opinion.title,
        review=review.opinion.review,
        photos=review.opinion.photos,
        is_verified_purchase=review.is_verified_purchase,
        helpful_votes=review.helpful_votes,
        replies=map(_reply_message, review.replies),
        status=str(review.status),
        moderation_reason=review.moderation_reason if is_open else "",
        etag=review.etag,
        created_at=to_timestamp(review.created_at),
        updated_at=to_timestamp(review.updated_at),
    )


def _reply_message(reply: Reply) -> review_pb2.Reply:
    return review_pb2.Reply(
        reply_id=str(reply.reply_id),
        parent_id=str(reply.parent_id or ""),
        user_id=str(reply.user_id or ""),
        reply=reply.reply,
        is_staff=reply.is_staff,
        created_at=to_timestamp(reply.created_at),
    )
