"""What the use cases rely on, of the store in memory and of the real one alike."""

import asyncio
from dataclasses import fields, replace
from datetime import timedelta
from uuid import UUID

import pytest

from stoa_chassis.ids import new_id
from stoa_events import ReviewCreated, ReviewVoted
from stoa_review import ports
from stoa_review.model import (
    AlreadyReviewed,
    Buyer,
    Entry,
    ListBucket,
    Reply,
    Review,
    ReviewNotFound,
    Sort,
    Status,
    Tally,
    VoteBucket,
    VoteCount,
)

from .conftest import BAD, GOOD, NOW, ReviewService, Store, of_type


def a_full_review(product_id: UUID | None = None) -> Review:
    """A review of which every field has a value of its own."""
    user_id = new_id()
    review = Review.write(product_id or new_id(), user_id, new_id(), GOOD, NOW, moderated=False, bucket=3)
    question = Reply(new_id(), None, new_id(), "Does it\ndim?", False, NOW + timedelta(hours=1))
    answer = Reply(new_id(), question.reply_id, None, "It does.", True, NOW + timedelta(hours=2))
    return replace(
        review,
        updated_at=NOW + timedelta(days=1),
        moderation_reason="fine",
        was_rejected=True,
        helpful_votes=2,
        votes_version=5,
        replies=(question, answer),
        version=4,
        revision=3,
        edition=2,
    )


async def added(store: Store, review: Review) -> Review:
    await store.uow.run(lambda tx: tx.reviews.save(review))
    return review


async def test_every_field_of_a_review_comes_back_as_it_was(store: Store) -> None:
    review = await added(store, a_full_review())
    for each in fields(review):
        assert getattr(review, each.name) or each.name == "events", each.name
    assert await store.reader.get(review.review_id) == review
    assert await store.reader.batch([new_id(), review.review_id]) == [review]
    assert await store.uow.run(lambda tx: tx.reviews.get(review.review_id)) == review


async def test_a_review_that_is_not_there_is_not_found(store: Store) -> None:
    buyer = Buyer(new_id())
    buyer.take_over({new_id(): (new_id(),)})
    await _saved_buyer(store, buyer)
    for review_id in (new_id(), buyer.user_id):  # nor is another document
        with pytest.raises(ReviewNotFound):
            await store.reader.get(review_id)
        with pytest.raises(ReviewNotFound):
            await store.uow.run(lambda tx, review_id=review_id: tx.reviews.get(review_id))  # type: ignore[misc]


async def test_events_are_published_once_with_what_was_stored(store: Store) -> None:
    review = await added(store, a_full_review())
    assert not review.events
    assert [type(event) for event in await store.published(review.product_id)] == [ReviewCreated]


async def test_a_buyer_comes_back_as_she_was_or_without_anything(store: Store) -> None:
    buyer = Buyer(new_id())
    assert await _buyer(store, buyer.user_id) == buyer
    buyer.take_over({new_id(): (new_id(), new_id()), new_id(): (new_id(),)})
    buyer.move(new_id(), new_id())
    buyer.merge_into(new_id())
    buyer.erase()
    await _saved_buyer(store, buyer)
    assert await _buyer(store, buyer.user_id) == buyer
    assert await store.reader.erased([new_id(), buyer.user_id]) == [buyer.user_id]


async def test_votes_are_counted_over_all_buckets_of_an_edition(store: Store) -> None:
    review = await added(store, a_full_review())
    voters = [new_id() for _ in range(20)]
    for voter in voters:
        await _vote(store, review, voter, True)
    await _vote(store, review, voters[0], False)
    assert await store.reader.votes(review) == VoteCount(19, 21)
    assert await store.reader.votes(replace(review, edition=3)) == VoteCount(0, 0)
    assert len(of_type(await store.published(review.product_id), ReviewVoted)) == 21


async def test_a_list_comes_back_with_all_its_buckets(store: Store) -> None:
    product = new_id()
    assert list(await store.reader.list(product)) == []
    entries = [
        Entry(new_id(), 2, 4, 3, NOW, True),
        Entry(new_id(), 1, 1, 0, NOW + timedelta(milliseconds=7), False),
    ]
    first, second = ListBucket(product, 0), ListBucket(product, 1)
    for bucket, entry in zip((first, second), entries, strict=True):
        await _changed_list(store, bucket, entry)
    tally = (await _list(store, product, 1)).tally
    assert tally == Tally(1, 0, 0, 1)

    async def note(tx: ports.Tx) -> None:
        bucket = await tx.lists.get(product, 0)
        bucket.note(1, tally)
        await tx.lists.save(bucket)

    await store.uow.run(note)
    buckets = await store.reader.list(product)
    assert [(each.number, list(each.entries.values())) for each in buckets] == [
        (0, entries[:1]),
        (1, entries[1:]),
    ]
    assert buckets[0].others == {1: tally}


async def test_those_with_a_status_are_listed_the_longest_waiting_first_page_by_page(store: Store) -> None:
    # Others that run on the same store have other times.
    start = NOW + timedelta(days=new_id().int % 100_000)
    reviews = [
        replace(a_full_review(), status=Status.REJECTED, updated_at=start + timedelta(seconds=n // 2))
        for n in range(5)
    ]
    reviews.sort(key=lambda review: (review.updated_at, review.review_id))
    for review in reversed(reviews):
        await added(store, review)
    await added(store, replace(a_full_review(), updated_at=start))
    before = (start - timedelta(seconds=1), new_id())
    page = await store.reader.with_status(Status.REJECTED, before, 3)
    assert list(page) == reviews[:3]
    last = (page[-1].updated_at, page[-1].review_id)
    assert list(await store.reader.with_status(Status.REJECTED, last, 9))[:2] == reviews[3:]


async def test_reviews_are_found_by_who_has_replied(store: Store) -> None:
    review = await added(store, a_full_review())
    replier = review.replies[0].user_id
    assert replier is not None
    assert await store.reader.with_replies_of(replier) == [review.review_id]
    assert list(await store.reader.with_replies_of(new_id())) == []


async def test_a_unit_of_work_writes_one_document(store: Store) -> None:
    async def two(tx: ports.Tx) -> None:
        for _ in range(2):
            await tx.reviews.save(a_full_review())

    with pytest.raises(RuntimeError):
        await store.uow.run(two)


# --------------------------------------------------------------------------------------- at the same moment


async def test_of_many_reviews_that_a_buyer_writes_at_once_there_is_one(
    service_on_each: ReviewService,
) -> None:
    service, product = service_on_each, new_id()
    buyer = await service.a_buyer_of(product)
    results = await asyncio.gather(
        *(
            service.reviewing.create(buyer, product, None, replace(GOOD, title=f"Title {n}"))
            for n in range(8)
        ),
        return_exceptions=True,
    )
    (winner,) = [result for result in results if isinstance(result, Review)]
    assert all(isinstance(result, AlreadyReviewed) for result in results if result is not winner)
    stored = await service.store.reader.get(winner.review_id)
    assert stored.opinion == winner.opinion
    assert len(of_type(await service.store.published(product), ReviewCreated)) == 1
    assert await service.rating(product) == (5, 1)


async def test_the_same_review_sent_twice_at_once_succeeds_twice_and_counts_once(
    service_on_each: ReviewService,
) -> None:
    service, product = service_on_each, new_id()
    buyer = await service.a_buyer_of(product)
    one, other = await asyncio.gather(
        *(service.reviewing.create(buyer, product, None, GOOD) for _ in range(2))
    )
    assert one.review_id == other.review_id
    assert await service.rating(product) == (5, 1)


async def test_many_buyers_who_review_a_product_at_once_all_count(service_on_each: ReviewService) -> None:
    service, product = service_on_each, new_id()
    buyers = [await service.a_buyer_of(product) for _ in range(20)]
    opinions = [GOOD, BAD] * 10
    await asyncio.gather(
        *(
            service.reviewing.create(buyer, product, None, opinion)
            for buyer, opinion in zip(buyers, opinions, strict=True)
        )
    )
    await service.settle(product)
    assert await service.rating(product) == (60, 20)
    assert len(await service.listed(product)) == 20


async def test_a_storm_of_votes_is_counted_exactly(service_on_each: ReviewService) -> None:
    service, product = service_on_each, new_id()
    review = await service.a_review_of(product)
    voters = [new_id() for _ in range(100)]

    async def change_her_mind(voter: UUID) -> None:
        for helpful in (True, True, False, True):
            await service.reviewing.vote(voter, review.review_id, helpful)

    takers_back = voters[:30]
    await asyncio.gather(*map(change_her_mind, voters))
    await asyncio.gather(*(service.reviewing.vote(each, review.review_id, False) for each in takers_back * 2))
    events = of_type(await service.store.published(product), ReviewVoted)
    await asyncio.gather(*map(service.handle, events[::-7]))
    await service.settle(product)
    assert (await service.store.reader.get(review.review_id)).helpful_votes == 70
    (listed,) = await service.reading.of_product(product, Sort.MOST_HELPFUL, None, 9)
    assert listed.place[0] == 70


async def _saved_buyer(store: Store, buyer: Buyer) -> None:
    async def save(tx: ports.Tx) -> None:
        await tx.buyers.get(buyer.user_id)
        await tx.buyers.save(buyer)

    await store.uow.run(save)


async def _buyer(store: Store, user_id: UUID) -> Buyer:
    buyer: Buyer = await store.uow.run(lambda tx: tx.buyers.get(user_id))
    return buyer


async def _list(store: Store, product_id: UUID, number: int) -> ListBucket:
    bucket: ListBucket = await store.uow.run(lambda tx: tx.lists.get(product_id, number))
    return bucket


async def _changed_list(store: Store, bucket: ListBucket, entry: Entry) -> None:
    async def change(tx: ports.Tx) -> None:
        found = await tx.lists.get(bucket.product_id, bucket.number)
        found.put(entry)
        await tx.lists.save(found)

    await store.uow.run(change)


async def _vote(store: Store, review: Review, voter: UUID, helpful: bool) -> None:
    async def change(tx: ports.Tx) -> None:
        bucket = await tx.votes.get(review, VoteBucket.number_of(review.review_id, voter))
        bucket.vote(voter, helpful)
        await tx.votes.save(bucket)

    await store.uow.run(change)
