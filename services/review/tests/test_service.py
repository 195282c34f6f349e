"""What the use cases do, on a store in memory, with events that come late, twice or never."""

import random
from dataclasses import replace
from uuid import UUID

import pytest

from stoa_chassis.errors import InvalidArgument
from stoa_chassis.ids import new_id
from stoa_chassis.memory import MemoryStore
from stoa_contracts.events import Payload
from stoa_events import ReviewCreated, ReviewRatingChanged, ReviewUpdated, ReviewVoted
from stoa_review import service as use_cases
from stoa_review.model import (
    AlreadyReviewed,
    NotABuyer,
    ReviewNotFound,
    Sort,
    Status,
)
from stoa_review.testing import Rows

from .conftest import BAD, GOOD, ReviewService, Store, buyer_changed, delivered, erased, guest_merged, of_type

Memory = MemoryStore[Rows]


async def test_who_has_received_a_product_reviews_it_and_sees_it_listed(service: ReviewService) -> None:
    product = new_id()
    buyer = await service.a_buyer_of(product)
    review = await service.reviewing.create(buyer, product, None, GOOD)
    assert review.user_id == buyer
    assert await service.listed(product) == [review.review_id]
    assert await service.rating(product) == (5, 1)


async def test_who_has_not_received_it_is_refused_until_the_event_comes(
    service: ReviewService, memory: Memory
) -> None:
    user, product = new_id(), new_id()
    await service.deliver(user, new_id())
    with pytest.raises(NotABuyer):
        await service.reviewing.create(user, product, None, GOOD)
    assert not memory.published
    await service.deliver(user, product)
    await service.reviewing.create(user, product, None, GOOD)


async def test_an_order_that_is_anothers_is_no_right(service: ReviewService) -> None:
    product, order = new_id(), new_id()
    await service.deliver(new_id(), product, order_id=order)
    with pytest.raises(InvalidArgument):
        await service.reviewing.create(await service.a_buyer_of(product), product, order, GOOD)


async def test_each_buyer_has_one_review_of_a_product(service: ReviewService, memory: Memory) -> None:
    product = new_id()
    buyer = await service.a_buyer_of(product)
    review = await service.reviewing.create(buyer, product, None, GOOD)
    again = await service.reviewing.create(buyer, product, None, GOOD)
    assert again.review_id == review.review_id
    with pytest.raises(AlreadyReviewed):
        await service.reviewing.create(buyer, product, None, BAD)
    await service.deliver(buyer, product, order_id=(another := new_id()))
    assert (await service.reviewing.create(buyer, product, None, GOOD)).order_id == review.order_id
    with pytest.raises(AlreadyReviewed):
        await service.reviewing.create(buyer, product, another, GOOD)
    assert len(memory.payloads(ReviewCreated)) == 1
    assert not memory.payloads(ReviewUpdated)


async def test_what_guests_have_received_counts_for_their_accounts_before_and_after_they_have_one(
    service: ReviewService,
) -> None:
    guest, user, before, after = (new_id() for _ in range(4))
    await service.deliver(guest, before)
    merged = guest_merged(guest, user)
    await service.handle(merged)
    await service.deliver(guest, after)
    await service.handle(merged)
    for product in (before, after):
        await service.reviewing.create(user, product, None, GOOD)


@pytest.mark.parametrize("is_delivered_first", [True, False])
async def test_a_guests_order_that_became_an_accounts_counts_for_it_whichever_event_comes_first(
    service: ReviewService, is_delivered_first: bool
) -> None:
    guest, user, product, order = (new_id() for _ in range(4))
    events: list[Payload] = [delivered(guest, product, order_id=order), buyer_changed(order, guest, user)]
    for event in events if is_delivered_first else events[::-1]:
        await service.handle(event)
        await service.handle(event)
    assert (await service.reviewing.create(user, product, None, GOOD)).order_id == order


async def test_an_edit_a_rejection_and_a_deletion_change_the_rating(service: ReviewService) -> None:
    product = new_id()
    kept, review = await service.a_review_of(product, GOOD), await service.a_review_of(product, GOOD)
    author = review.user_id
    assert author is not None
    assert await service.rating(product) == (10, 2)
    review = await service.reviewing.update(author, review.review_id, None, BAD, review.etag)
    assert await service.rating(product) == (6, 2)
    await service.reviewing.moderate(review.review_id, Status.REJECTED, "rude")
    assert await service.rating(product) == (5, 1)
    assert await service.listed(product) == [kept.review_id]
    await service.reviewing.moderate(review.review_id, Status.PUBLISHED, "")
    assert await service.rating(product) == (6, 2)
    await service.reviewing.delete(author, review.review_id)
    assert await service.rating(product) == (5, 1)
    await service.reviewing.create(author, product, None, GOOD)
    assert await service.rating(product) == (10, 2)


async def test_where_reviews_are_moderated_they_wait_for_staff(moderated: ReviewService) -> None:
    product = new_id()
    review = await moderated.a_review_of(product)
    assert await moderated.listed(product) == []
    assert await moderated.rating(product) == (0, 0)
    assert [each.review_id for each in await moderated.reading.with_status(Status.PENDING, None, 9)] == [
        review.review_id
    ]
    with pytest.raises(ReviewNotFound):
        await moderated.reading.get(review.review_id, new_id(), is_staff=False)
    await moderated.reviewing.moderate(review.review_id, Status.PUBLISHED, "")
    assert await moderated.listed(product) == [review.review_id]
    assert await moderated.rating(product) == (5, 1)


async def test_votes_are_counted_at_once_for_the_voter_and_for_the_list_when_their_events_come(
    service: ReviewService,
) -> None:
    product = new_id()
    voted, other = await service.a_review_of(product), await service.a_review_of(product)
    voter = new_id()
    assert (await service.reviewing.vote(voter, voted.review_id, True)).helpful_votes == 1
    assert (await service.reviewing.vote(voter, voted.review_id, True)).helpful_votes == 1
    assert (await service.reviewing.vote(new_id(), voted.review_id, True)).helpful_votes == 2
    await service.settle(product)
    assert await service.listed(product, Sort.MOST_HELPFUL) == [voted.review_id, other.review_id]
    assert (await service.reviewing.vote(voter, voted.review_id, False)).helpful_votes == 1
    await service.settle(product)
    assert (await service.store.reader.get(voted.review_id)).helpful_votes == 1


async def test_votes_for_what_was_deleted_do_not_count_for_what_is_written_anew(
    service: ReviewService,
) -> None:
    product = new_id()
    review = await service.a_review_of(product)
    assert review.user_id is not None
    await service.reviewing.vote(new_id(), review.review_id, True)
    await service.reviewing.delete(review.user_id, review.review_id)
    await service.reviewing.create(review.user_id, product, None, BAD)
    await service.settle(product)
    assert (await service.store.reader.get(review.review_id)).helpful_votes == 0


async def test_lists_are_read_page_by_page_without_losing_or_repeating_any(service: ReviewService) -> None:
    product = new_id()
    reviews = {(await service.a_review_of(product)).review_id for _ in range(7)}
    for sort in Sort:
        found: list[UUID] = []
        place = None
        while page := await service.reading.of_product(product, sort, place, 3):
            found += [listed.review.review_id for listed in page]
            place = page[-1].place
        assert len(found) == 7
        assert set(found) == reviews


async def test_a_page_is_full_also_if_the_list_does_not_know_of_a_rejection_yet(
    service: ReviewService,
) -> None:
    product = new_id()
    reviews = [await service.a_review_of(product) for _ in range(4)]
    await service.reviewing._moderate(reviews[3].review_id, Status.REJECTED, "rude")
    assert await service.listed(product, limit=3) == [each.review_id for each in reviews[2::-1]]


async def test_a_large_list_goes_over_several_buckets(
    service: ReviewService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoa_review.model.LIST_BUCKET", 3)
    product = new_id()
    reviews = [await service.a_review_of(product, replace(GOOD, rating=1 + n % 5)) for n in range(10)]
    assert sorted({review.bucket for review in reviews}) == [0, 1, 2, 3]
    assert await service.listed(product) == [each.review_id for each in reversed(reviews)]
    assert await service.rating(product) == (30, 10)
    await service.reviewing.moderate(reviews[9].review_id, Status.REJECTED, "rude")
    assert await service.rating(product) == (25, 9)


async def test_what_was_not_listed_because_the_process_died_is_listed_when_its_event_comes(
    service: ReviewService, memory: Memory
) -> None:
    product = new_id()
    review = await service.reviewing._create(await service.a_buyer_of(product), product, None, GOOD)
    assert await service.listed(product) == []
    await service.settle(product)
    assert await service.listed(product) == [review.review_id]
    assert await service.rating(product) == (5, 1)


@pytest.mark.parametrize("seed", range(20))
async def test_in_whichever_order_and_however_often_events_come_lists_and_ratings_are_right(
    in_memory: Store, memory: Memory, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """No change is listed at once; then the events come, shuffled and twice, some before the last change."""

    async def not_listed(_: object, review: object) -> object:
        return review

    monkeypatch.setattr("stoa_review.model.LIST_BUCKET", 2)
    monkeypatch.setattr(use_cases.Reviewing, "_shown", not_listed)
    service, chance, product = ReviewService(in_memory), random.Random(seed), new_id()

    async def some_events() -> None:
        published = await in_memory.published(product)
        events = [each for each in published if type(each) is not ReviewRatingChanged]
        for event in chance.choices(events, k=2 * len(events)):
            await service.handle(event)

    reviews = [await service.a_review_of(product, replace(GOOD, rating=1 + n % 5)) for n in range(5)]
    await some_events()
    for review in chance.sample(reviews, 3):
        assert review.user_id is not None
        await service.reviewing.update(
            review.user_id, review.review_id, None, replace(BAD, rating=chance.randint(1, 5)), review.etag
        )
        await service.reviewing.vote(new_id(), review.review_id, True)
    await some_events()
    await service.reviewing.moderate(chance.choice(reviews).review_id, Status.REJECTED, "rude")
    await service.settle(product)

    shown = [each for each in memory.rows.reviews.values() if each.is_published]
    assert await service.rating(product) == (sum(each.opinion.rating for each in shown), 4)
    assert set(await service.listed(product)) == {each.review_id for each in shown}
    votes = {each.review_id: each.helpful_votes for each in memory.rows.reviews.values()}
    assert sum(votes.values()) == len(of_type(await in_memory.published(product), ReviewVoted))
    entries = [entry for bucket in memory.rows.lists.values() for entry in bucket.entries.values()]
    assert {entry.review_id: entry.helpful_votes for entry in entries} == votes


async def test_who_was_erased_is_forgotten_everywhere_and_a_second_time_changes_nothing(
    service: ReviewService, memory: Memory
) -> None:
    product = new_id()
    user = await service.a_buyer_of(product)
    own = await service.reviewing.create(user, product, None, GOOD)
    other = await service.a_review_of(product)
    await service.reviewing.reply(user, other.review_id, "I agree.", None, is_staff=False)
    await service.reviewing.vote(user, other.review_id, True)
    await service.settle(product)
    await service.handle(erased(user))
    await service.settle(product)
    assert str(user) not in str((memory.rows.reviews, memory.rows.votes, memory.rows.lists))
    assert memory.rows.buyers[user].orders == {}
    assert (await service.store.reader.get(other.review_id)).helpful_votes == 1
    assert await service.rating(product) == (10, 2)
    updates = of_type(await service.store.published(product), ReviewUpdated)
    assert [each.user_id for each in updates if each.review_id == own.review_id] == [None]
    published = len(memory.published)
    await service.handle(erased(user))
    assert len(memory.published) == published
    with pytest.raises(NotABuyer):
        await service.reviewing.create(user, product, None, BAD)
    await service.handle(delivered(user, product))
    with pytest.raises(NotABuyer):
        await service.reviewing.create(user, product, None, BAD)


async def test_what_somebody_writes_while_her_account_is_erased_is_forgotten_when_its_event_comes(
    service: ReviewService, memory: Memory
) -> None:
    product, user = new_id(), new_id()
    review = await service.a_review_of(product)
    await service.handle(erased(user))
    await service.reviewing.reply(user, review.review_id, "I agree.", None, is_staff=False)
    await service.settle(product)
    assert str(user) not in str(memory.rows.reviews)
