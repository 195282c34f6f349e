"""The rules that reviews keep, and how a product's list and rating follow from them."""

from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from uuid import UUID

import pytest

from stoa_chassis.errors import InvalidArgument
from stoa_chassis.ids import new_id
from stoa_events import ReviewCreated, ReviewRatingChanged, ReviewUpdated, ReviewVoted
from stoa_review.model import (
    LIST_BUCKET,
    MAX_ORDERS,
    MAX_REPLIES,
    MAX_VOTES,
    VOTE_BUCKETS,
    AlreadyReviewed,
    Buyer,
    Entry,
    EtagMismatch,
    ListBucket,
    NotABuyer,
    NotPublished,
    NotTheAuthor,
    Opinion,
    Orders,
    OwnReview,
    RepliesFull,
    Reply,
    ReplyNotFound,
    Review,
    ReviewNotFound,
    Sort,
    Status,
    Tally,
    VoteBucket,
    VoteCount,
    VotesFull,
)

from .conftest import BAD, GOOD, NOW

LATER = NOW + timedelta(hours=1)


def a_review(moderated: bool = False, user_id: UUID | None = None) -> Review:
    return Review.write(new_id(), user_id or new_id(), new_id(), GOOD, NOW, moderated=moderated, bucket=0)


def delivery(order_id: UUID, *product_ids: UUID) -> Orders:
    return dict.fromkeys(product_ids, (order_id,))


def author_of(review: Review) -> UUID:
    assert review.user_id is not None
    return review.user_id


# ----------------------------------------------------------------------------------------------------- buyers


def test_who_has_received_a_product_may_review_it_with_the_last_order_or_one_that_she_names() -> None:
    buyer, product, first, last = Buyer(new_id()), new_id(), new_id(), new_id()
    buyer.take_over(delivery(first, product))
    buyer.take_over(delivery(last, product, new_id()))
    assert buyer.order_of(product) == last
    assert buyer.order_of(product, first) == first
    with pytest.raises(InvalidArgument) as refused:
        buyer.order_of(product, new_id())
    assert [each.field for each in refused.value.violations] == ["review.order_id"]
    with pytest.raises(NotABuyer):
        buyer.order_of(new_id())


def test_an_order_that_is_delivered_twice_changes_nothing() -> None:
    buyer, product, order = Buyer(new_id()), new_id(), new_id()
    buyer.take_over(delivery(order, product))
    buyer.take_over(delivery(new_id(), product))
    before = replace(buyer)
    buyer.take_over(delivery(order, product))
    assert buyer == before


def test_of_many_orders_of_a_product_the_latest_are_remembered() -> None:
    buyer, product, orders = Buyer(new_id()), new_id(), [new_id() for _ in range(MAX_ORDERS + 1)]
    for order in orders:
        buyer.take_over(delivery(order, product))
    assert buyer.orders == {product: tuple(orders[1:])}
    assert buyer.version == len(orders)


def test_whose_account_was_erased_reviews_nothing_and_receives_nothing_more() -> None:
    buyer, product = Buyer(new_id()), new_id()
    buyer.take_over(delivery(new_id(), product))
    buyer.erase()
    with pytest.raises(NotABuyer):
        buyer.order_of(product)
    buyer.forget_orders()
    buyer.take_over(delivery(new_id(), product))
    assert not buyer.orders


def test_an_order_of_a_guest_belongs_to_the_account_that_it_was_moved_to_or_else_to_hers() -> None:
    guest, moved, other, account, hers = (new_id() for _ in range(5))
    buyer = Buyer(guest)
    assert buyer.owner_of(other) is None
    buyer.move(moved, account)
    buyer.merge_into(hers)
    assert (buyer.owner_of(moved), buyer.owner_of(other)) == (account, hers)


def test_a_guest_stays_with_the_account_that_she_got_first() -> None:
    guest, account = Buyer(new_id()), new_id()
    guest.merge_into(account)
    guest.merge_into(new_id())
    assert guest.merged_into == account


# ---------------------------------------------------------------------------------------------------- reviews


def test_what_is_kept_of_everything_is_bounded_and_votes_stay_in_their_buckets() -> None:
    bounds = (MAX_REPLIES, MAX_ORDERS, MAX_VOTES, LIST_BUCKET, VOTE_BUCKETS)
    assert bounds == (200, 50, 10_000, 250, 16)


def test_refusals_that_no_answer_of_the_api_shows_have_their_reasons() -> None:
    reasons = [error.reason for error in (NotPublished, RepliesFull, VotesFull)]
    assert reasons == ["REVIEW_NOT_PUBLISHED", "REPLIES_FULL", "VOTES_FULL"]


def test_a_review_is_published_at_once_or_waits_if_reviews_are_moderated() -> None:
    assert a_review().status is Status.PUBLISHED
    assert a_review(moderated=True).status is Status.PENDING


def test_the_event_of_a_review_has_all_that_others_need() -> None:
    review = a_review()
    assert review.events == [
        ReviewCreated(
            review_id=review.review_id,
            product_id=review.product_id,
            user_id=review.user_id,
            order_id=review.order_id,
            rating=5,
            title="Bright",
            review="It lights up\nthe whole room.",
            status="published",
            helpful_votes=0,
            version=1,
            created_at=NOW,
            updated_at=NOW,
        )
    ]


def test_the_event_of_a_change_tells_the_review_as_it_is_now() -> None:
    review = a_review()
    review.update(author_of(review), None, BAD, review.etag, LATER, moderated=True)
    review.count_votes(1, 3, 9)
    assert review.events[-1] == ReviewUpdated(
        review_id=review.review_id,
        product_id=review.product_id,
        user_id=review.user_id,
        order_id=review.order_id,
        rating=1,
        title="Dim",
        review="",
        status="pending",
        helpful_votes=3,
        version=3,
        created_at=NOW,
        updated_at=LATER,
    )


def test_what_is_still_to_be_told_makes_nothing_another() -> None:
    review, votes, listed = a_review(), VoteBucket(new_id(), new_id(), 1, 0), ListBucket(new_id(), 0)
    votes.vote(new_id(), True)
    listed.put(entry())
    assert all((review.events, votes.events, listed.events))
    assert replace(review, events=[]) == review
    assert replace(votes, events=[]) == votes
    assert replace(listed, events=[]) == listed


def test_an_opinion_needs_no_words_and_no_pictures() -> None:
    assert Opinion(1, "Dim") == Opinion(1, "Dim", "", ())


def test_a_buyer_has_one_review_of_a_product_which_may_be_sent_again() -> None:
    review = a_review()
    review.check_same(None, GOOD)
    review.check_same(review.order_id, GOOD)


@pytest.mark.parametrize(
    ("order_id", "opinion", "differs"),
    [
        (None, replace(GOOD, rating=1), {"review.rating"}),
        (None, replace(GOOD, title="Dark", review="It broke."), {"review.title", "review.review"}),
        (None, replace(GOOD, photos=("https://photos.example/other.jpg",)), {"review.photos"}),
        (UUID(int=1), GOOD, {"review.order_id"}),
        (UUID(int=1), replace(GOOD, rating=1), {"review.order_id", "review.rating"}),
    ],
)
def test_a_second_review_that_differs_in_anything_is_refused_and_told_in_what(
    order_id: UUID | None, opinion: Opinion, differs: set[str]
) -> None:
    review = a_review()
    with pytest.raises(AlreadyReviewed) as refused:
        review.check_same(order_id, opinion)
    assert {violation.field for violation in refused.value.violations} == differs
    assert refused.value.metadata == {"review_id": str(review.review_id)}


def test_an_edit_needs_the_etag_of_what_was_read_unless_nothing_would_change() -> None:
    review = a_review()
    author, etag = author_of(review), review.etag
    review.update(author, None, BAD, etag, LATER, moderated=False)
    assert (review.opinion, review.updated_at, review.created_at) == (BAD, LATER, NOW)
    assert [type(event) for event in review.events] == [ReviewCreated, ReviewUpdated]
    review.update(author, review.order_id, BAD, etag, LATER, moderated=False)
    with pytest.raises(EtagMismatch) as refused:
        review.update(author, None, GOOD, etag, LATER, moderated=False)
    assert refused.value.metadata == {"review_id": str(review.review_id)}
    assert review.version == 2


def test_an_edit_does_not_change_the_order() -> None:
    review = a_review()
    with pytest.raises(InvalidArgument) as refused:
        review.update(author_of(review), new_id(), BAD, review.etag, LATER, moderated=False)
    assert [each.field for each in refused.value.violations] == ["review.order_id"]


def test_votes_and_replies_leave_the_etag_as_it_is() -> None:
    review = a_review()
    etag = review.etag
    review.count_votes(1, 3, 1)
    review.add_reply(new_id(), "I agree.", None, NOW, is_staff=False)
    assert review.etag == etag
    assert review.version == 3


@pytest.mark.parametrize(
    ("before", "moderated", "after"),
    [
        (Status.PUBLISHED, False, Status.PUBLISHED),
        (Status.PUBLISHED, True, Status.PENDING),
        (Status.PENDING, True, Status.PENDING),
        (Status.REJECTED, False, Status.PENDING),
        (Status.REJECTED, True, Status.PENDING),
    ],
)
def test_what_staff_has_rejected_it_sees_again_after_an_edit(
    before: Status, moderated: bool, after: Status
) -> None:
    review = a_review(moderated=True)
    if before is not Status.PENDING:
        review.moderate(before, "because", NOW)
    review.update(author_of(review), None, BAD, review.etag, LATER, moderated=moderated)
    assert review.status is after


def test_what_staff_has_rejected_is_not_shown_by_changing_it_again_or_writing_it_anew() -> None:
    review = a_review()
    author = author_of(review)
    review.moderate(Status.REJECTED, "rude", NOW)
    review.update(author, None, BAD, review.etag, LATER, moderated=False)
    review.update(author, None, GOOD, review.etag, LATER, moderated=False)
    statuses = [review.status]
    review.delete(author, LATER)
    review.write_again(author, review.order_id, BAD, LATER, moderated=False)
    statuses.append(review.status)
    review.moderate(Status.PUBLISHED, "", LATER)
    review.update(author, None, GOOD, review.etag, LATER, moderated=False)
    assert [*statuses, review.status] == [Status.PENDING, Status.PENDING, Status.PUBLISHED]


def test_moderating_twice_changes_it_once() -> None:
    review = a_review(moderated=True)
    review.moderate(Status.REJECTED, "rude", LATER)
    assert (review.status, review.moderation_reason) == (Status.REJECTED, "rude")
    version = review.version
    review.moderate(Status.REJECTED, "rude", LATER)
    assert review.version == version


def test_what_was_deleted_is_gone_with_its_words_and_can_be_written_anew_without_its_votes() -> None:
    review = a_review()
    author = author_of(review)
    review.count_votes(1, 3, 7)
    review.add_reply(new_id(), "I agree.", None, NOW, is_staff=False)
    review.delete(author, LATER)
    assert (review.status, review.opinion, review.replies) == (Status.DELETED, Opinion(5, ""), ())
    version = review.version
    review.delete(author, LATER)
    assert review.version == version
    for call in (
        lambda: review.update(author, None, BAD, review.etag, LATER, moderated=False),
        lambda: review.moderate(Status.PUBLISHED, "", LATER),
        lambda: review.add_reply(new_id(), "I agree.", None, NOW, is_staff=False),
        lambda: review.check_voter(new_id()),
        lambda: review.delete(new_id(), LATER),
        lambda: review.check_visible(author, is_staff=True),
    ):
        with pytest.raises(ReviewNotFound, match=str(review.review_id)):
            call()
    review.write_again(author, new_id(), BAD, LATER, moderated=False)
    assert (review.status, review.opinion, review.helpful_votes) == (Status.PUBLISHED, BAD, 0)
    assert (review.created_at, review.edition) == (LATER, 2)
    review.count_votes(1, 4, 8)
    assert review.helpful_votes == 0


def test_only_its_author_may_change_a_review() -> None:
    review, other = a_review(), new_id()
    with pytest.raises(NotTheAuthor):
        review.update(other, None, BAD, review.etag, LATER, moderated=False)
    with pytest.raises(NotTheAuthor):
        review.delete(other, LATER)


def test_what_is_not_published_is_there_for_its_author_and_for_staff_alone() -> None:
    review, other = a_review(moderated=True), new_id()
    review.check_visible(author_of(review), is_staff=False)
    review.check_visible(None, is_staff=True)
    for caller in (other, None):
        with pytest.raises(ReviewNotFound):
            review.check_visible(caller, is_staff=False)
    with pytest.raises(ReviewNotFound):
        review.update(other, None, BAD, review.etag, LATER, moderated=True)
    with pytest.raises(ReviewNotFound):
        review.delete(other, LATER)
    with pytest.raises(NotPublished):
        review.check_voter(other)
    with pytest.raises(NotPublished):
        review.add_reply(other, "I agree.", None, NOW, is_staff=False)


def test_replies_make_threads_and_one_that_is_sent_twice_is_there_once() -> None:
    review, customer, staff = a_review(), new_id(), new_id()
    question = review.add_reply(customer, "Does it dim?", None, NOW, is_staff=False)
    answer = review.add_reply(staff, "It does.", question.reply_id, NOW, is_staff=True)
    assert review.add_reply(customer, "Does it dim?", None, LATER, is_staff=False) == question
    assert review.replies == (question, answer)
    assert answer == Reply(answer.reply_id, question.reply_id, staff, "It does.", True, NOW)
    with pytest.raises(InvalidArgument) as refused:
        review.add_reply(customer, "Thanks.", new_id(), NOW, is_staff=False)
    assert [each.field for each in refused.value.violations] == ["reply.parent_id"]


def test_a_reply_is_taken_back_by_its_author_or_by_staff_and_those_to_it_stay() -> None:
    review, customer = a_review(), new_id()
    question = review.add_reply(customer, "Does it dim?", None, NOW, is_staff=False)
    answer = review.add_reply(new_id(), "It does.", question.reply_id, NOW, is_staff=True)
    with pytest.raises(NotTheAuthor):
        review.take_back_reply(question.reply_id, new_id(), is_staff=False)
    with pytest.raises(ReplyNotFound):
        review.take_back_reply(new_id(), customer, is_staff=False)
    review.take_back_reply(question.reply_id, customer, is_staff=False)
    assert review.replies == (replace(question, reply=""), answer)
    version = review.version
    review.take_back_reply(question.reply_id, new_id(), is_staff=True)
    assert review.version == version


def test_replies_are_bounded() -> None:
    review = a_review()
    for number in range(MAX_REPLIES):
        review.add_reply(new_id(), f"Reply {number}", None, NOW, is_staff=False)
    with pytest.raises(RepliesFull):
        review.add_reply(new_id(), "One more", None, NOW, is_staff=False)


def test_who_was_erased_is_forgotten_and_what_was_said_stays() -> None:
    review, other = a_review(), new_id()
    author = author_of(review)
    review.add_reply(author, "More of it.", None, NOW, is_staff=False)
    review.add_reply(other, "I agree.", None, NOW, is_staff=False)
    review.forget(author)
    assert review.user_id is None
    assert review.opinion == replace(GOOD, photos=())
    assert [reply.user_id for reply in review.replies] == [None, other]
    assert review.people == {other}
    version = review.version
    review.forget(author)
    assert review.version == version
    assert not review.is_by(None)  # who is not signed in has written nothing


def test_reviews_are_stored_and_told_with_these_statuses_and_listed_in_these_orders() -> None:
    assert [*Status] == ["pending", "published", "rejected", "deleted"]
    assert [*Sort] == ["most_helpful", "newest", "rating"]


def test_what_is_written_anew_after_a_rejection_waits_for_staff_and_is_not_blamed_for_what_was() -> None:
    review = a_review()
    author = author_of(review)
    review.moderate(Status.REJECTED, "spam", LATER)
    review.delete(author, LATER)
    assert review.moderation_reason == ""
    with pytest.raises(ReviewNotFound, match=str(review.review_id)):
        review.moderate(Status.PUBLISHED, "", LATER)
    review.write_again(author, new_id(), GOOD, LATER, moderated=False)
    assert (review.status, review.moderation_reason, review.edition) == (Status.PENDING, "", 2)


def test_what_is_written_anew_where_reviews_are_moderated_waits_for_staff() -> None:
    review = a_review()
    review.delete(author_of(review), LATER)
    review.write_again(author_of(review), new_id(), GOOD, LATER, moderated=True)
    assert review.status is Status.PENDING


def test_a_clock_that_goes_back_makes_no_change_older_than_the_one_before() -> None:
    review = a_review()
    review.moderate(Status.REJECTED, "spam", LATER)
    review.moderate(Status.PUBLISHED, "", NOW)
    assert (review.updated_at, review.created_at) == (LATER, NOW)


def test_who_replied_is_forgotten_and_the_author_keeps_her_pictures() -> None:
    review, other = a_review(), new_id()
    review.add_reply(other, "I agree.", None, NOW, is_staff=False)
    author, version = author_of(review), review.version
    review.forget(other)
    assert (review.user_id, review.opinion) == (author, GOOD)
    assert [reply.user_id for reply in review.replies] == [None]
    assert review.version == version + 1


def test_a_review_is_of_a_purchase_and_of_one_user_and_product_for_ever() -> None:
    user_id, product_id = UUID(int=1), UUID(int=2)
    review = Review.write(product_id, user_id, new_id(), GOOD, NOW, moderated=False, bucket=3)
    assert review.review_id == UUID("688bf7e9-0b9c-508b-8771-3468720286a1")
    assert review.is_verified_purchase
    assert (review.bucket, review.etag, review.moderation_reason) == (3, "1", "")


# ------------------------------------------------------------------------------------------------------ votes


def test_a_vote_counts_once_can_be_taken_back_and_given_again() -> None:
    voter, bucket = new_id(), VoteBucket(new_id(), new_id(), 1, 0)
    for helpful, votes, version in ((True, 1, 1), (True, 1, 1), (False, 0, 2), (False, 0, 2), (True, 1, 3)):
        bucket.vote(voter, helpful)
        assert (len(bucket.voters), bucket.version) == (votes, version)
    assert bucket.events == [
        ReviewVoted(review_id=bucket.review_id, product_id=bucket.product_id, helpful=helpful)
        for helpful in (True, False, True)
    ]


def test_the_votes_in_a_bucket_are_bounded_and_can_be_taken_back_when_it_is_full() -> None:
    voters = frozenset(new_id() for _ in range(MAX_VOTES - 1))
    bucket, last = VoteBucket(new_id(), new_id(), 1, 0, voters=voters), new_id()
    bucket.vote(last, True)
    with pytest.raises(VotesFull):
        bucket.vote(new_id(), True)
    bucket.vote(last, False)
    assert len(bucket.voters) == MAX_VOTES - 1


def test_a_bucket_does_not_know_who_its_voters_are() -> None:
    voter, bucket = new_id(), VoteBucket(new_id(), new_id(), 1, 0)
    other = replace(bucket, review_id=new_id())
    for each in (bucket, other):
        each.vote(voter, True)
        assert voter not in each.voters
    assert bucket.voters.isdisjoint(other.voters)


def test_a_users_vote_is_always_in_the_same_of_all_buckets() -> None:
    review_id = UUID(int=7)
    numbers = [VoteBucket.number_of(review_id, UUID(int=user)) for user in range(200)]
    assert numbers == [VoteBucket.number_of(review_id, UUID(int=user)) for user in range(200)]
    assert set(numbers) == set(range(VOTE_BUCKETS))


def test_nobody_votes_for_her_own_review() -> None:
    review = a_review()
    with pytest.raises(OwnReview):
        review.check_voter(author_of(review))


def test_whichever_order_counts_of_votes_come_in_the_latest_stands() -> None:
    counts = [VoteCount.of([(1, 1)]), VoteCount.of([(1, 1), (2, 2)]), VoteCount.of([(0, 2), (2, 2)])]
    for order in permutations([*counts, counts[0]]):
        review = a_review()
        for count in order:
            review.count_votes(1, count.votes, count.version)
        assert review.helpful_votes == 2
        version = review.version
        review.count_votes(1, 2, 4)
        assert review.version == version


# ------------------------------------------------------------------------------------------- a product's list


def entry(rating: int = 5, version: int = 1, review_id: UUID | None = None, published: bool = True) -> Entry:
    return Entry(review_id or new_id(), version, rating, 0, NOW, published)


def test_an_entry_is_what_a_list_and_a_rating_need_of_a_review() -> None:
    review = a_review()
    review.count_votes(1, 3, 1)
    review.update(author_of(review), None, BAD, review.etag, LATER, moderated=True)
    assert Entry.of(review) == Entry(review.review_id, 3, 1, 3, NOW, False)


def test_a_bucket_that_nothing_is_known_of_holds_nothing() -> None:
    assert Tally() == Tally(0, 0, 0, 0) == ListBucket(new_id(), 0).tally


def test_a_products_rating_is_that_of_its_published_reviews() -> None:
    bucket, second = ListBucket(new_id(), 0), entry(2)
    bucket.put(entry(5))
    bucket.put(second)
    bucket.put(entry(1, published=False))
    bucket.put(replace(second, version=2, helpful_votes=3))
    bucket.put(replace(second, version=3, is_published=False))
    assert bucket.events == [
        ReviewRatingChanged(product_id=bucket.product_id, total=total, count=count, version=version)
        for total, count, version in ((5, 1, 1), (7, 2, 2), (5, 1, 5))
    ]


def test_versions_of_a_review_make_the_same_rating_in_any_order_and_however_often() -> None:
    review_id = new_id()
    versions = [entry(rating, number + 1, review_id) for number, rating in enumerate((5, 1, 4))]
    for order in permutations([*versions, *versions[:1]]):
        bucket = ListBucket(new_id(), 0)
        for each in order:
            bucket.put(each)
        assert bucket.product_tally == Tally(1, 1, 4)
        version = bucket.version
        bucket.put(versions[-1])
        assert bucket.version == version


def test_buckets_are_filled_one_after_the_other_and_the_first_adds_them_up() -> None:
    first, second = ListBucket(new_id(), 0), ListBucket(new_id(), 1)
    for _ in range(LIST_BUCKET):
        assert first.next_number == 0
        first.put(entry(4))
    assert first.next_number == 1
    for _ in range(LIST_BUCKET):
        second.put(entry(2))
        first.note(1, second.tally)
    assert first.product_tally == Tally(2 * LIST_BUCKET, 2 * LIST_BUCKET, 6 * LIST_BUCKET)
    assert first.events[-1].total == 6 * LIST_BUCKET
    assert not second.events
    assert first.next_number == 2


def test_a_tally_that_comes_late_or_twice_changes_nothing() -> None:
    first, second = ListBucket(new_id(), 0), ListBucket(new_id(), 1)
    tallies = []
    for rating in (5, 1, 3):
        second.put(entry(rating))
        tallies.append(second.tally)
    for order in permutations([*tallies, tallies[0]]):
        first = ListBucket(new_id(), 0)
        for tally in order:
            first.note(1, tally)
        assert first.product_tally == Tally(3, 3, 9)
        version = first.version
        first.note(1, tallies[-1])
        assert first.version == version


def test_what_is_not_published_fills_a_bucket_as_well() -> None:
    first = ListBucket(new_id(), 0)
    first.note(1, Tally(LIST_BUCKET, 0, 0, 1))
    assert (first.last_number, first.next_number) == (1, 2)


def test_reviews_are_listed_by_votes_by_age_or_by_rating_and_the_newer_of_two_alike_first() -> None:
    helpful = replace(entry(3), helpful_votes=2, created_at=NOW - timedelta(hours=2))
    old, new = entry(4), replace(entry(4), created_at=LATER)
    best = replace(entry(5), created_at=NOW - timedelta(hours=1))
    for sort, expected in {
        Sort.MOST_HELPFUL: [helpful, new, old, best],
        Sort.NEWEST: [new, old, best, helpful],
        Sort.RATING: [best, new, old, helpful],
    }.items():
        listed = sorted([old, best, helpful, new], key=lambda each: each.place(sort), reverse=True)
        assert listed == expected
    newest = (NOW.timestamp(), str(old.review_id))  # as tokens of pages have it
    assert [old.place(sort) for sort in Sort] == [(0, *newest), (0, *newest), (4, *newest)]
