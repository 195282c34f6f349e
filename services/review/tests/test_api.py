"""What callers get over gRPC, with the policies and constraints of the contract, on a store in memory."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from stoa.review.v1 import review_pb2, review_pb2_grpc
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.testing import InProcessServer, serve_in_process
from stoa_review.api import ReviewServicer
from stoa_review.service import Reviews


@pytest.fixture
async def server(reviews: Reviews) -> AsyncIterator[InProcessServer]:
    """The review service as it is served."""
    add = review_pb2_grpc.add_ReviewServiceServicer_to_server
    async with serve_in_process(add, ReviewServicer(reviews), name="review") as running:
        yield running


async def create(server: InProcessServer, user_id: UUID, title: str = "A title") -> review_pb2.Review:
    request = review_pb2.CreateReviewRequest(user_id=str(user_id), review=review_pb2.Review(title=title))
    created: review_pb2.CreateReviewResponse = await stub(server, user_id).CreateReview(request)
    return created.review


def stub(server: InProcessServer, user_id: UUID) -> Any:
    return server.stub(review_pb2_grpc.ReviewServiceStub, as_user=str(user_id))


async def test_an_answer_has_every_field(server: InProcessServer) -> None:
    review = await create(server, uuid4())
    assert {field.name for field, _ in review.ListFields()} == set(review.DESCRIPTOR.fields_by_name)


async def test_what_was_created_is_read_and_listed_page_by_page(server: InProcessServer) -> None:
    user_id = uuid4()
    created = [await create(server, user_id, title) for title in ("one", "two", "three")]
    caller = stub(server, user_id)
    request = review_pb2.GetReviewRequest(user_id=str(user_id), review_id=created[0].review_id)
    assert (await caller.GetReview(request)).review == created[0]
    page = await caller.ListReviews(review_pb2.ListReviewsRequest(user_id=str(user_id), page_size=2))
    assert list(page.reviews) == [created[2], created[1]]
    page = await caller.ListReviews(
        review_pb2.ListReviewsRequest(user_id=str(user_id), page_token=page.next_page_token)
    )
    assert list(page.reviews) == [created[0]]
    assert page.next_page_token == ""


async def test_one_that_is_not_there_is_not_found(server: InProcessServer) -> None:
    user_id = uuid4()
    request = review_pb2.GetReviewRequest(user_id=str(user_id), review_id=str(uuid4()))
    with pytest.raises(RemoteError) as refused:
        await stub(server, user_id).GetReview(request)
    assert (refused.value.code, refused.value.reason) == (Code.NOT_FOUND, "REVIEW_NOT_FOUND")


async def test_a_title_is_required(server: InProcessServer) -> None:
    with pytest.raises(RemoteError) as refused:
        await create(server, uuid4(), title="")
    assert [violation.field for violation in refused.value.violations] == ["title"]


async def test_others_may_neither_create_nor_read(server: InProcessServer) -> None:
    owner, other = uuid4(), stub(server, uuid4())
    review = await create(server, owner)
    for call, request in (
        (other.CreateReview, review_pb2.CreateReviewRequest(user_id=str(owner), review=review)),
        (
            other.GetReview,
            review_pb2.GetReviewRequest(user_id=str(owner), review_id=review.review_id),
        ),
        (other.ListReviews, review_pb2.ListReviewsRequest(user_id=str(owner))),
    ):
        with pytest.raises(RemoteError) as refused:
            await call(request)
        assert refused.value.reason == "NOT_OWNER"
