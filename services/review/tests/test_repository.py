"""What the use cases rely on, of the store in memory and of the real one alike."""

from dataclasses import fields
from uuid import uuid4

import pytest

from stoa_events import ReviewCreated
from stoa_review.model import Review, ReviewNotFound

from .conftest import Store, a_review


async def added(store: Store, review: Review) -> Review:
    await store.uow.run(lambda tx: tx.reviews.add(review))
    return review


async def test_every_field_comes_back_as_it_was(store: Store) -> None:
    review = await added(store, a_review())
    assert all(getattr(review, field.name) for field in fields(review) if field.compare)
    assert await store.reader.get(review.user_id, review.review_id) == review


async def test_events_are_published_once_with_what_was_stored(store: Store) -> None:
    review = await added(store, a_review())
    assert review.events == []
    (event,) = await store.published(review.review_id)
    assert event.payload == ReviewCreated(
        review_id=review.review_id, user_id=review.user_id, title=review.title
    )


async def test_one_that_is_not_there_or_another_users_is_not_found(store: Store) -> None:
    review = await added(store, a_review())
    for user_id, review_id in ((review.user_id, uuid4()), (uuid4(), review.review_id)):
        with pytest.raises(ReviewNotFound):
            await store.reader.get(user_id, review_id)


async def test_a_users_are_listed_the_newest_first_page_by_page(store: Store) -> None:
    user_id = uuid4()
    stored = [await added(store, a_review(user_id)) for _ in range(3)]
    await added(store, a_review())
    assert await store.reader.list(user_id, None, 2) == [stored[2], stored[1]]
    assert await store.reader.list(user_id, stored[1].review_id, 2) == [stored[0]]
    assert await store.reader.list(user_id, stored[0].review_id, 2) == []
