"""The rules that reviews keep."""

from datetime import UTC, datetime
from uuid import uuid4

from stoa_events import ReviewCreated
from stoa_review.model import Review

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def test_a_new_review_is_its_users_and_says_so() -> None:
    user_id = uuid4()
    review = Review.create(user_id, " A title ", NOW)
    assert (review.user_id, review.title, review.created_at) == (user_id, "A title", NOW)
    assert review.events == [ReviewCreated(review_id=review.review_id, user_id=user_id, title="A title")]


def test_newer_reviews_have_greater_ids() -> None:
    ids = [Review.create(uuid4(), "A title", NOW).review_id for _ in range(100)]
    assert ids == sorted(ids)
