"""The rules that reviews must keep, and that the audit reads what they are about."""

from dataclasses import replace

import pytest
from pymongo.asynchronous.collection import AsyncCollection

from stoa_chassis.ids import new_id
from stoa_chassis.mongo import Document
from stoa_review.audit import Books, Rating, Review, findings, read
from stoa_review.model import Status

from .conftest import BAD, GOOD, ReviewService, Store

LAMP, BUYER = new_id(), new_id()
REVIEW = Review(new_id(), LAMP, BUYER, 4, True, 2, 1)
RIGHT = Books(
    [REVIEW, replace(REVIEW, review_id=new_id(), rating=1, is_published=False, helpful_votes=0)],
    {LAMP: Rating(1, 4)},
    {LAMP: Rating(1, 4)},
    {(REVIEW.review_id, 1): 2},
    {BUYER: {LAMP}},
)


def test_books_that_balance_have_no_findings() -> None:
    assert list(findings(RIGHT)) == []


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (replace(RIGHT, ratings={LAMP: Rating(2, 5)}), "a product's rating is that of its published reviews"),
        (replace(RIGHT, listed={}), "a product's rating is that of its published reviews"),
        (replace(RIGHT, reviews=()), "a product's rating is that of its published reviews"),
        (replace(RIGHT, votes={}), "each helpful vote counts once"),
        (replace(RIGHT, received={}), "only who has received a product reviews it"),
    ],
)
def test_what_is_wrong_is_found(wrong: Books, rule: str) -> None:
    assert {each.rule for each in findings(wrong)} == {rule}


@pytest.mark.stack
async def test_the_books_have_what_is_stored(
    in_mongo: Store, collection: AsyncCollection[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoa_review.model.LIST_BUCKET", 2)
    service, product = ReviewService(in_mongo), new_id()
    reviews = [await service.a_review_of(product, opinion) for opinion in (GOOD, GOOD, BAD)]
    await service.reviewing.moderate(reviews[0].review_id, Status.REJECTED, "rude")
    assert reviews[1].user_id is not None
    await service.reviewing.delete(reviews[1].user_id, reviews[1].review_id)
    await service.reviewing.vote(new_id(), reviews[2].review_id, True)
    await service.settle(product)
    books = await read(collection.database)
    assert list(findings(books)) == []
    assert books.ratings == books.listed == {product: Rating(1, 1)}
    assert {each.review_id: each.is_published for each in books.reviews} == {
        reviews[0].review_id: False,
        reviews[2].review_id: True,
    }
    assert [each.helpful_votes for each in books.reviews if each.is_published] == [1]
    assert books.votes == {(reviews[2].review_id, 1): 1}
    assert {each for each in books.received if product in books.received[each]} == {
        review.user_id for review in reviews
    }
