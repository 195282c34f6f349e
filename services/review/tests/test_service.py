"""What the use cases do, on a store in memory."""

from uuid import uuid4

import pytest

from stoa_chassis.memory import MemoryStore
from stoa_events import ReviewCreated
from stoa_review.model import ReviewNotFound
from stoa_review.service import Reviews
from stoa_review.testing import Rows


async def test_what_was_created_can_be_read_and_is_published(
    reviews: Reviews, memory: MemoryStore[Rows]
) -> None:
    user_id = uuid4()
    review = await reviews.create(user_id, "A title")
    assert await reviews.get(user_id, review.review_id) == review
    assert memory.payloads(ReviewCreated) == [
        ReviewCreated(review_id=review.review_id, user_id=user_id, title="A title")
    ]


async def test_another_users_is_as_if_there_were_none(reviews: Reviews) -> None:
    review = await reviews.create(uuid4(), "A title")
    with pytest.raises(ReviewNotFound):
        await reviews.get(uuid4(), review.review_id)


async def test_a_users_are_listed_the_newest_first(reviews: Reviews) -> None:
    user_id = uuid4()
    created = [await reviews.create(user_id, title) for title in ("one", "two", "three")]
    await reviews.create(uuid4(), "another's")
    assert await reviews.list(user_id, None, 10) == created[::-1]
    assert await reviews.list(user_id, created[1].review_id, 10) == created[:1]
