"""Reviews over gRPC: contract, policies, errors with details, on a store in memory."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from stoa.review.v1 import review_pb2, review_pb2_grpc
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.ids import new_id
from stoa_chassis.testing import InProcessServer, serve_in_process
from stoa_review.api import ReviewServicer

from .conftest import ReviewService

PHOTO = "https://photos.example/lamp.jpg"


@pytest.fixture
async def server(service: ReviewService) -> AsyncIterator[InProcessServer]:
    """The review service as it is served."""
    async with serving(service) as running:
        yield running


def serving(service: ReviewService) -> Any:
    add = review_pb2_grpc.add_ReviewServiceServicer_to_server
    return serve_in_process(add, ReviewServicer(service.reading, service.reviewing), name="review")


def stub(server: InProcessServer, user_id: UUID | None = None, **who: Any) -> Any:
    return server.stub(review_pb2_grpc.ReviewServiceStub, as_user=user_id, **who)


def staff_of(server: InProcessServer) -> Any:
    return stub(server, new_id(), staff_roles=("support",))


def asked(product_id: UUID, **fields: Any) -> review_pb2.CreateReviewRequest:
    review = {"rating": 4, "title": "Bright", "review": "Very\nbright.", "photos": [PHOTO], **fields}
    return review_pb2.CreateReviewRequest(product_id=str(product_id), review=review_pb2.Review(**review))


async def create(
    server: InProcessServer, service: ReviewService, product_id: UUID, **fields: Any
) -> tuple[UUID, review_pb2.Review]:
    """A review, and who has written it."""
    author = await service.a_buyer_of(product_id)
    return author, (await stub(server, author).CreateReview(asked(product_id, **fields))).review


async def test_an_answer_has_every_field_with_what_was_sent(
    server: InProcessServer, service: ReviewService
) -> None:
    product, order = new_id(), new_id()
    author = new_id()
    await service.deliver(author, product, order_id=order)
    created = (await stub(server, author).CreateReview(asked(product, order_id=str(order)))).review
    request = {"review_id": created.review_id}
    question = review_pb2.Reply(reply="Does it dim?")
    asked_for = review_pb2.CreateReplyRequest(**request, reply=question)
    reply = (await stub(server, new_id()).CreateReply(asked_for)).reply
    answer = review_pb2.Reply(reply="It does.", parent_id=reply.reply_id)
    answered = (
        await staff_of(server).CreateReply(review_pb2.CreateReplyRequest(**request, reply=answer))
    ).reply
    await stub(server, new_id()).VoteReview(review_pb2.VoteReviewRequest(**request, helpful=True))
    await staff_of(server).ModerateReview(
        review_pb2.ModerateReviewRequest(**request, status="published", reason="fine")
    )
    await service.settle(product)
    review = (await stub(server, author).GetReview(review_pb2.GetReviewRequest(**request))).review
    assert {field.name for field, _ in review.ListFields()} == set(
        review_pb2.Review.DESCRIPTOR.fields_by_name
    )
    assert {field.name for field, _ in answered.ListFields()} == set(
        review_pb2.Reply.DESCRIPTOR.fields_by_name
    )
    assert (review.product_id, review.user_id, review.order_id) == (str(product), str(author), str(order))
    assert (review.rating, review.title, review.review, list(review.photos)) == (
        4,
        "Bright",
        "Very\nbright.",
        [PHOTO],
    )
    assert list(review.replies) == [reply, answered]
    assert (review.helpful_votes, review.is_verified_purchase, review.status) == (1, True, "published")


async def test_why_staff_decided_so_is_between_it_and_the_author(
    server: InProcessServer, service: ReviewService
) -> None:
    author, review = await create(server, service, new_id())
    staff = staff_of(server)
    await staff.ModerateReview(
        review_pb2.ModerateReviewRequest(review_id=review.review_id, status="published", reason="fine")
    )
    request = review_pb2.GetReviewRequest(review_id=review.review_id)
    for caller, reason in (
        (stub(server, author), "fine"),
        (staff, "fine"),
        (stub(server, new_id()), ""),
        (stub(server), ""),
        (stub(server, new_id(), staff_roles=("warehouse",)), ""),
    ):
        assert (await caller.GetReview(request)).review.moderation_reason == reason


async def test_anyone_reads_a_products_reviews_page_by_page(
    server: InProcessServer, service: ReviewService
) -> None:
    product = new_id()
    reviews = [(await create(server, service, product, rating=rating))[1] for rating in (2, 5, 3)]
    nobody, product_id = stub(server), str(product)
    page = await nobody.ListProductReviews(
        review_pb2.ListProductReviewsRequest(product_id=product_id, sort="rating", page_size=2)
    )
    assert [each.rating for each in page.reviews] == [5, 3]
    rest = await nobody.ListProductReviews(
        review_pb2.ListProductReviewsRequest(
            product_id=product_id.upper(), sort="rating", page_token=page.next_page_token
        )
    )
    assert [each.rating for each in rest.reviews] == [2]
    assert rest.next_page_token == ""
    with pytest.raises(RemoteError) as refused:
        await nobody.ListProductReviews(
            review_pb2.ListProductReviewsRequest(
                product_id=product_id, sort="newest", page_token=page.next_page_token
            )
        )
    assert [each.field for each in refused.value.violations] == ["page_token"]
    default = await nobody.ListProductReviews(review_pb2.ListProductReviewsRequest(product_id=product_id))
    assert {each.review_id for each in default.reviews} == {each.review_id for each in reviews}


async def test_staff_lists_what_waits_the_longest_waiting_first(in_memory: Any) -> None:
    service = ReviewService(in_memory, moderated=True)
    async with serving(service) as server:
        waiting = []
        for _ in range(3):
            service.clock.advance(seconds=1)
            waiting.append((await create(server, service, new_id()))[1].review_id)
        staff = staff_of(server)
        page = await staff.ListReviews(review_pb2.ListReviewsRequest(page_size=2))
        rest = await staff.ListReviews(review_pb2.ListReviewsRequest(page_token=page.next_page_token))
        assert [each.review_id for each in (*page.reviews, *rest.reviews)] == waiting
        assert not (await staff.ListReviews(review_pb2.ListReviewsRequest(status="rejected"))).reviews


async def test_an_author_changes_her_review_and_takes_it_back(
    server: InProcessServer, service: ReviewService
) -> None:
    product = new_id()
    author, review = await create(server, service, product)
    caller = stub(server, author)
    review.rating, review.title = 2, "Dim"
    update = review_pb2.UpdateReviewRequest(review_id=review.review_id, review=review)
    updated = (await caller.UpdateReview(update)).review
    assert (updated.rating, updated.title) == (2, "Dim")
    assert updated.etag != review.etag
    review.title = "Too dim"
    for etag, expected in ((review.etag, (Code.ABORTED, [])), ("", (Code.INVALID_ARGUMENT, ["etag"]))):
        review.etag = etag
        with pytest.raises(RemoteError) as refused:
            await caller.UpdateReview(
                review_pb2.UpdateReviewRequest(review_id=review.review_id, review=review)
            )
        assert (refused.value.code, [each.field for each in refused.value.violations]) == expected
    await caller.DeleteReview(review_pb2.DeleteReviewRequest(review_id=review.review_id))
    with pytest.raises(RemoteError) as refused:
        await caller.GetReview(review_pb2.GetReviewRequest(review_id=review.review_id))
    assert (refused.value.code, refused.value.reason) == (Code.NOT_FOUND, "REVIEW_NOT_FOUND")


async def test_a_vote_is_answered_with_the_count_and_can_be_taken_back(
    server: InProcessServer, service: ReviewService
) -> None:
    author, review = await create(server, service, new_id())
    voter = stub(server, new_id())
    for helpful, votes in ((True, 1), (True, 1), (False, 0)):
        request = review_pb2.VoteReviewRequest(review_id=review.review_id, helpful=helpful)
        assert (await voter.VoteReview(request)).review.helpful_votes == votes
    with pytest.raises(RemoteError) as refused:
        await stub(server, author).VoteReview(
            review_pb2.VoteReviewRequest(review_id=review.review_id, helpful=True)
        )
    assert (refused.value.code, refused.value.reason) == (Code.PERMISSION_DENIED, "OWN_REVIEW")


async def test_a_reply_is_taken_back_by_staff_and_not_by_others(
    server: InProcessServer, service: ReviewService
) -> None:
    _, review = await create(server, service, new_id())
    request = review_pb2.CreateReplyRequest(
        review_id=review.review_id, reply=review_pb2.Reply(reply="Rubbish!")
    )
    reply = (await stub(server, new_id()).CreateReply(request)).reply
    assert not reply.is_staff
    delete = review_pb2.DeleteReplyRequest(review_id=review.review_id, reply_id=reply.reply_id)
    with pytest.raises(RemoteError) as refused:
        await stub(server, new_id()).DeleteReply(delete)
    assert refused.value.reason == "NOT_THE_AUTHOR"
    await staff_of(server).DeleteReply(delete)
    left = (await stub(server).GetReview(review_pb2.GetReviewRequest(review_id=review.review_id))).review
    assert [(each.reply_id, each.reply) for each in left.replies] == [(reply.reply_id, "")]


async def test_ids_are_the_same_in_capitals(server: InProcessServer, service: ReviewService) -> None:
    product, order, author = new_id(), new_id(), new_id()
    await service.deliver(author, product, order_id=order)
    asked_for = asked(product, order_id=str(order).upper())
    asked_for.product_id = asked_for.product_id.upper()
    caller, staff = stub(server, author), staff_of(server)
    review = (await caller.CreateReview(asked_for)).review
    assert (review.product_id, review.order_id) == (str(product), str(order))
    assert (await caller.CreateReview(asked(product, order_id=str(order)))).review == review
    shouted = {"review_id": review.review_id.upper()}
    assert (await caller.GetReview(review_pb2.GetReviewRequest(**shouted))).review == review
    review.title, review.order_id = "Dim", review.order_id.upper()
    update = review_pb2.UpdateReviewRequest(**shouted, review=review)
    assert (await caller.UpdateReview(update)).review.order_id == str(order)
    vote = review_pb2.VoteReviewRequest(**shouted, helpful=True)
    assert (await stub(server, new_id()).VoteReview(vote)).review.review_id == review.review_id
    question = review_pb2.CreateReplyRequest(**shouted, reply=review_pb2.Reply(reply="Does it dim?"))
    first = (await staff.CreateReply(question)).reply
    answer = review_pb2.Reply(reply="It does.", parent_id=first.reply_id.upper())
    reply = (await caller.CreateReply(review_pb2.CreateReplyRequest(**shouted, reply=answer))).reply
    assert reply.parent_id == first.reply_id
    await caller.DeleteReply(review_pb2.DeleteReplyRequest(**shouted, reply_id=reply.reply_id.upper()))
    decision = review_pb2.ModerateReviewRequest(**shouted, status="published")
    moderated = (await staff.ModerateReview(decision)).review
    assert [each.reply for each in moderated.replies] == ["Does it dim?", ""]
    await caller.DeleteReview(review_pb2.DeleteReviewRequest(**shouted))
    assert await service.listed(product) == []


async def test_who_has_not_received_the_product_is_told_so(server: InProcessServer) -> None:
    with pytest.raises(RemoteError) as refused:
        await stub(server, new_id()).CreateReview(asked(new_id()))
    assert (refused.value.code, refused.value.reason) == (Code.PERMISSION_DENIED, "NOT_A_BUYER")
    assert "received" in str(refused.value)


async def test_a_second_review_names_the_first(server: InProcessServer, service: ReviewService) -> None:
    product = new_id()
    author, review = await create(server, service, product)
    with pytest.raises(RemoteError) as refused:
        await stub(server, author).CreateReview(asked(product, rating=1))
    assert (refused.value.code, refused.value.reason) == (Code.ALREADY_EXISTS, "ALREADY_REVIEWED")
    assert refused.value.metadata["review_id"] == review.review_id
    assert [violation.field for violation in refused.value.violations] == ["rating"]


@pytest.mark.parametrize(
    ("fields", "violated"),
    [
        ({"rating": None}, "rating"),
        ({"rating": 0}, "rating"),
        ({"rating": 6}, "rating"),
        ({"title": ""}, "title"),
        ({"title": " \u200b "}, "title"),
        ({"title": "x" * 151}, "title"),
        ({"review": "x" * 5001}, "review"),
        ({"order_id": "mine"}, "order_id"),
        ({"photos": ["http://photos.example/lamp.jpg"]}, "photos[0]"),
        ({"photos": ["https://user@photos.example/"]}, "photos[0]"),
        ({"photos": ["javascript:alert(1)"]}, "photos[0]"),
        ({"photos": [PHOTO, PHOTO]}, "photos"),
        ({"photos": [f"{PHOTO}?{n}" for n in range(11)]}, "photos"),
        ({"photos": [f"{PHOTO}?{'x' * 500}"]}, "photos[0]"),
    ],
)
async def test_what_is_wrong_is_named(
    server: InProcessServer, service: ReviewService, fields: dict[str, Any], violated: str
) -> None:
    product = new_id()
    author = await service.a_buyer_of(product)
    with pytest.raises(RemoteError) as refused:
        await stub(server, author).CreateReview(asked(product, **fields))
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert [each.field for each in refused.value.violations] == [violated]
    assert await service.listed(product) == []


async def test_guests_and_strangers_may_read_and_nothing_else(
    server: InProcessServer, service: ReviewService
) -> None:
    product = new_id()
    _, review = await create(server, service, product)
    review_id = review.review_id
    calls = {
        "CreateReview": asked(product),
        "UpdateReview": review_pb2.UpdateReviewRequest(review_id=review_id, review=review),
        "DeleteReview": review_pb2.DeleteReviewRequest(review_id=review_id),
        "VoteReview": review_pb2.VoteReviewRequest(review_id=review_id, helpful=True),
        "CreateReply": review_pb2.CreateReplyRequest(
            review_id=review_id, reply=review_pb2.Reply(reply="I agree.")
        ),
        "DeleteReply": review_pb2.DeleteReplyRequest(review_id=review_id, reply_id=str(new_id())),
    }
    guest, nobody = stub(server, new_id(), guest=True), stub(server)
    for name, request in calls.items():
        for caller, code in ((guest, Code.PERMISSION_DENIED), (nobody, Code.UNAUTHENTICATED)):
            with pytest.raises(RemoteError) as refused:
                await getattr(caller, name)(request)
            assert refused.value.code is code
    assert (await guest.GetReview(review_pb2.GetReviewRequest(review_id=review_id))).review == review


async def test_moderation_is_for_staff_of_support_or_the_catalogue(
    server: InProcessServer, service: ReviewService
) -> None:
    _, review = await create(server, service, new_id())
    moderate = review_pb2.ModerateReviewRequest(review_id=review.review_id, status="rejected")
    for caller, reason in (
        (stub(server, new_id()), "STAFF_ONLY"),
        (stub(server, new_id(), staff_roles=("warehouse",)), "ROLE_NEEDED"),
    ):
        for call, request in (
            (caller.ModerateReview, moderate),
            (caller.ListReviews, review_pb2.ListReviewsRequest()),
        ):
            with pytest.raises(RemoteError) as refused:
                await call(request)
            assert refused.value.reason == reason
    for role in ("support", "catalogue", "admin"):
        rejected = await stub(server, new_id(), staff_roles=(role,)).ModerateReview(moderate)
        assert rejected.review.status == "rejected"
