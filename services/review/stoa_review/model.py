"""Reviews, who may write them, what others think of them, and what they make of a product's rating.

There are four aggregates, each small enough to be written as one document (see ADR 31). A `Buyer` knows what
a user has received. A `Review` is the one that a buyer has of a product: its id follows from the two, so that
there can't be a second. A `VoteBucket` has some of the users who found a review helpful, a `ListBucket` some
of a product's reviews as they are listed and counted. Buckets have versions that grow: whoever counts what
several of them have can tell a later count from an earlier one, and so events that come twice, late or out of
order change nothing.

Pattern of the buckets:
https://www.mongodb.com/docs/manual/data-modeling/design-patterns/group-data/bucket-pattern/
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID, uuid5

from stoa_chassis.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    differences,
)
from stoa_chassis.ids import new_id
from stoa_events import ReviewCreated, ReviewRatingChanged, ReviewUpdated, ReviewVoted

MAX_REPLIES = 200  # of a review: they are part of its document
MAX_ORDERS = 50  # of a buyer for a product that are remembered, the latest
VOTE_BUCKETS = 16  # of a review
MAX_VOTES = 10_000  # of a bucket
LIST_BUCKET = 250  # reviews that a bucket should have: it gets some more when many are written at once

_REVIEWS = UUID("6f0d3c4e-6c3f-4f0e-9d6e-3b1a8a0c7d51")


class ReviewNotFound(NotFound):
    """There is no such review, or the caller may not see it."""

    reason = "REVIEW_NOT_FOUND"


class ReplyNotFound(NotFound):
    """The review has no such reply."""

    reason = "REPLY_NOT_FOUND"


class NotABuyer(PermissionDenied):
    """The caller has not bought the product, or not received it yet."""

    reason = "NOT_A_BUYER"


class NotTheAuthor(PermissionDenied):
    """Only who wrote it may change it."""

    reason = "NOT_THE_AUTHOR"


class OwnReview(PermissionDenied):
    """Nobody votes for her own review."""

    reason = "OWN_REVIEW"


class AlreadyReviewed(AlreadyExists):
    """The buyer has a review of the product, which can be changed."""

    reason = "ALREADY_REVIEWED"


class EtagMismatch(Aborted):
    """Somebody changed the review since the writer read it."""

    reason = "ETAG_MISMATCH"


class NotPublished(FailedPrecondition):
    """The review is not published, so others can't do anything with it."""

    reason = "REVIEW_NOT_PUBLISHED"


class RepliesFull(FailedPrecondition):
    """The review has as many replies as it can have."""

    reason = "REPLIES_FULL"


class VotesFull(FailedPrecondition):
    """The review has as many votes as can be counted."""

    reason = "VOTES_FULL"


class Status(StrEnum):
    """What became of a review."""

    PENDING = "pending"
    PUBLISHED = "published"
    REJECTED = "rejected"
    DELETED = "deleted"


class Sort(StrEnum):
    """In which order a product's reviews are listed."""

    MOST_HELPFUL = "most_helpful"
    NEWEST = "newest"
    RATING = "rating"


def review_id_of(user_id: UUID, product_id: UUID) -> UUID:
    """Return the id of the review that a user has, or would have, of a product."""
    return uuid5(_REVIEWS, f"{user_id}:{product_id}")


# ----------------------------------------------------------------------------------------- who may review


Orders = Mapping[UUID, tuple[UUID, ...]]
"""The orders with which products were delivered, by product."""


@dataclass(slots=True)
class Buyer:
    """A user, and the products that were delivered to her, each with the orders, the latest last.

    What is delivered to a guest who has an account since counts for the account: all of it (`merged_into`),
    or some orders (`moved`, to whom). Of a user whose account was erased only that is kept.
    """

    user_id: UUID
    version: int = 0
    orders: Orders = field(default_factory=dict)
    moved: Mapping[UUID, UUID] = field(default_factory=dict)
    merged_into: UUID | None = None
    is_erased: bool = False

    def take_over(self, orders: Orders) -> None:
        """Note what was delivered to her, or to the guest that she was; again is fine."""
        if self.is_erased:
            return
        merged = dict(self.orders)
        for product_id, order_ids in orders.items():
            known = merged.get(product_id, ())
            new = tuple(order_id for order_id in order_ids if order_id not in known)
            merged[product_id] = (*known, *new)[-MAX_ORDERS:]
        self._become(orders=merged)

    def owner_of(self, order_id: UUID) -> UUID | None:
        """Return the account that an order of this guest belongs to, None if it is hers."""
        return self.moved.get(order_id, self.merged_into)

    def products_of(self, order_id: UUID) -> Collection[UUID]:
        """Return what was delivered with an order."""
        return [product_id for product_id, order_ids in self.orders.items() if order_id in order_ids]

    def move(self, order_id: UUID, user_id: UUID) -> None:
        """Be the guest one of whose orders belongs to an account from now on."""
        self._become(moved={**self.moved, order_id: user_id})

    def merge_into(self, user_id: UUID) -> None:
        """Be the guest who has an account from now on; the first one counts."""
        self._become(merged_into=self.merged_into or user_id)

    def erase(self) -> None:
        """Take no more orders, and review no more. What was bought is known until it is forgotten."""
        self._become(is_erased=True)

    def forget_orders(self) -> None:
        """Forget what was bought."""
        self._become(orders={})

    def order_of(self, product_id: UUID, order_id: UUID | None = None) -> UUID:
        """Return the order with which the user received a product: the one she names, or else the last.

        Raises NotABuyer if none was delivered, InvalidArgument if it was not that one.
        """
        order_ids = () if self.is_erased else self.orders.get(product_id, ())
        if not order_ids:
            raise NotABuyer(
                "only who has bought this product and received it can review it; "
                "if it was delivered a moment ago, please try again soon"
            )
        if order_id is None:
            return order_ids[-1]
        if order_id not in order_ids:
            raise InvalidArgument(
                "review.order_id", "is not an order of yours with which this product was delivered"
            )
        return order_id

    def _become(self, **changes: Any) -> None:
        changed = replace(self, **changes)
        if changed != self:
            for name, value in changes.items():
                setattr(self, name, value)
            self.version += 1


# ------------------------------------------------------------------------------------------------ reviews


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a buyer says of a product: 1 (bad) to 5 (good), in words, and with pictures by their addresses."""

    rating: int
    title: str
    review: str = ""
    photos: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What somebody says to a review, or to another reply (`parent_id`); an empty one was taken back."""

    reply_id: UUID
    parent_id: UUID | None
    user_id: UUID | None
    reply: str
    is_staff: bool
    created_at: datetime


@dataclass(slots=True, kw_only=True)
class Review:
    """The review that a buyer has of a product; `events` are its changes that are not published yet.

    `version` grows with every change, `revision` with those of its author and of staff: that is the etag, so
    that votes and replies don't get into an author's way. `edition` counts how often it was written anew
    after it was deleted: votes are for one edition. `helpful_votes` is their count, as of `votes_version`.
    `bucket` is the number of the list bucket that it belongs to. `user_id` is None once the account was
    erased. `was_rejected` from when staff rejects it until staff publishes it: whatever its author
    makes of it meanwhile waits for staff.
    """

    review_id: UUID
    product_id: UUID
    user_id: UUID | None
    order_id: UUID
    opinion: Opinion
    status: Status
    created_at: datetime
    updated_at: datetime
    bucket: int
    moderation_reason: str = ""
    was_rejected: bool = False
    is_verified_purchase: bool = True
    helpful_votes: int = 0
    votes_version: int = 0
    replies: tuple[Reply, ...] = ()
    version: int = 1
    revision: int = 1
    edition: int = 1
    events: list[ReviewCreated | ReviewUpdated] = field(default_factory=list, compare=False)

    @classmethod
    def write(
        cls,
        product_id: UUID,
        user_id: UUID,
        order_id: UUID,
        opinion: Opinion,
        now: datetime,
        *,
        moderated: bool,
        bucket: int,
    ) -> Self:
        """Write the first review that a user has of a product.

        `moderated`: it waits for staff to publish it.
        """
        review = cls(
            review_id=review_id_of(user_id, product_id),
            product_id=product_id,
            user_id=user_id,
            order_id=order_id,
            opinion=opinion,
            status=_unseen(moderated),
            created_at=now,
            updated_at=now,
            bucket=bucket,
        )
        review.events.append(ReviewCreated(**review._facts()))
        return review

    @property
    def etag(self) -> str:
        """The name of this version of what it says."""
        return str(self.revision)

    @property
    def is_published(self) -> bool:
        """Whether it is shown to everyone, and counts."""
        return self.status is Status.PUBLISHED

    @property
    def people(self) -> Collection[UUID]:
        """Who wrote it and replied to it."""
        authors = (self.user_id, *(reply.user_id for reply in self.replies))
        return {user_id for user_id in authors if user_id is not None}

    def check_same(self, order_id: UUID | None, opinion: Opinion) -> None:
        """Make sure that it says so already, of that order if one is named.

        Raises AlreadyReviewed, which names what differs.
        """
        differing = [
            *differences(self.order_id, order_id or self.order_id, "review.order_id"),
            *differences(self.opinion, opinion, "review"),
        ]
        if differing:
            raise AlreadyReviewed(
                "you have reviewed this product already; your review can be changed",
                metadata={"review_id": str(self.review_id)},
                violations=differing,
            )

    def write_again(
        self, user_id: UUID, order_id: UUID, opinion: Opinion, now: datetime, *, moderated: bool
    ) -> None:
        """Write it anew after it was deleted."""
        self.user_id, self.order_id, self.opinion = user_id, order_id, opinion
        self.helpful_votes = self.votes_version = 0
        self.edition += 1
        self.created_at = now
        self._decide(_unseen(moderated or self.was_rejected), "", now)

    def update(
        self,
        caller: UUID,
        order_id: UUID | None,
        opinion: Opinion,
        etag: str,
        now: datetime,
        *,
        moderated: bool,
    ) -> None:
        """Say something else. What staff has not seen yet is shown at once, unless reviews are moderated.

        What staff had rejected it must look at again, after each change. Nothing happens if the review says
        that already, whatever the etag. Raises ReviewNotFound, NotTheAuthor, EtagMismatch, InvalidArgument
        for another order.
        """
        self._check_author(caller)
        if order_id not in (None, self.order_id):
            raise InvalidArgument("review.order_id", "can't be changed: leave it out, or as it is")
        if opinion == self.opinion:
            return
        if etag != self.etag:
            raise EtagMismatch(
                "the review was changed since you read it", metadata={"review_id": str(self.review_id)}
            )
        self.opinion = opinion
        self._decide(_unseen(moderated or self.was_rejected), self.moderation_reason, now)

    def delete(self, caller: UUID, now: datetime) -> None:
        """Take it back, with all that was said to it; again is fine. Raises ReviewNotFound, NotTheAuthor."""
        if self.status is Status.DELETED and self.is_by(caller):
            return
        self._check_author(caller)
        self.opinion = Opinion(self.opinion.rating, "")
        self.replies = ()
        self._decide(Status.DELETED, "", now)

    def moderate(self, status: Status, reason: str, now: datetime) -> None:
        """Publish or reject it, for a reason that its author may read. Raises ReviewNotFound."""
        if self.status is Status.DELETED:
            raise _not_found(self.review_id)
        if (status, reason) != (self.status, self.moderation_reason):
            self.was_rejected = status is Status.REJECTED
            self._decide(status, reason, now)

    def add_reply(
        self, user_id: UUID, text: str, parent_id: UUID | None, now: datetime, *, is_staff: bool
    ) -> Reply:
        """Reply to it, or to one of its replies. Returns the reply that is there if it is sent twice.

        Raises NotPublished, RepliesFull, InvalidArgument for a parent that it does not have.
        """
        self._check_published()
        for reply in self.replies:
            if (reply.user_id, reply.parent_id, reply.reply) == (user_id, parent_id, text):
                return reply
        if parent_id is not None and parent_id not in {reply.reply_id for reply in self.replies}:
            raise InvalidArgument("reply.parent_id", "is not a reply to this review")
        if len(self.replies) >= MAX_REPLIES:
            raise RepliesFull(f"a review can't have more than {MAX_REPLIES} replies")
        reply = Reply(new_id(), parent_id, user_id, text, is_staff, now)
        self.replies = (*self.replies, reply)
        self._changed()
        return reply

    def take_back_reply(self, reply_id: UUID, caller: UUID, *, is_staff: bool) -> None:
        """Empty a reply; again is fine. Raises ReplyNotFound, NotTheAuthor."""
        found = next((reply for reply in self.replies if reply.reply_id == reply_id), None)
        if found is None:
            raise ReplyNotFound("the review has no such reply")
        if found.user_id != caller and not is_staff:
            raise NotTheAuthor("only who wrote a reply can take it back")
        if found.reply:
            self.replies = tuple(replace(each, reply="") if each is found else each for each in self.replies)
            self._changed()

    def check_voter(self, user_id: UUID) -> None:
        """Make sure that a user may vote for it. Raises NotPublished, OwnReview."""
        self._check_published()
        if self.is_by(user_id):
            raise OwnReview("you can't vote for your own review")

    def count_votes(self, edition: int, votes: int, version: int) -> None:
        """Note how many votes an edition has, unless a later count is known."""
        if edition != self.edition or version <= self.votes_version:
            return
        self.votes_version = version
        self.helpful_votes = votes
        self._changed()

    def forget(self, user_id: UUID) -> None:
        """Forget who somebody is whose account was erased.

        What was said stays, without a person or pictures.
        """
        forgotten = tuple(
            replace(reply, user_id=None) if reply.user_id == user_id else reply for reply in self.replies
        )
        if self.user_id != user_id and forgotten == self.replies:
            return
        self.replies = forgotten
        if self.user_id == user_id:
            self.user_id = None
            self.opinion = replace(self.opinion, photos=())
        self._changed()

    def check_visible(self, caller: UUID | None, *, is_staff: bool) -> None:
        """Make sure that a caller may see it. Raises ReviewNotFound."""
        if self.status is Status.DELETED or not (self.is_published or is_staff or self.is_by(caller)):
            raise _not_found(self.review_id)

    def is_by(self, user_id: UUID | None) -> bool:
        """Whether a user has written it."""
        return user_id is not None and user_id == self.user_id

    def _check_author(self, caller: UUID) -> None:
        self.check_visible(caller, is_staff=False)
        if not self.is_by(caller):
            raise NotTheAuthor("only who wrote a review can change it")

    def _check_published(self) -> None:
        if self.status is Status.DELETED:
            raise _not_found(self.review_id)
        if not self.is_published:
            raise NotPublished("the review is not published")

    def _decide(self, status: Status, reason: str, now: datetime) -> None:
        self.status = status
        self.moderation_reason = reason
        self.revision += 1
        self.updated_at = max(now, self.updated_at)
        self._changed()

    def _changed(self) -> None:
        self.version += 1
        self.events.append(ReviewUpdated(**self._facts()))

    def _facts(self) -> dict[str, Any]:
        """What both events say of a review."""
        return {
            "review_id": self.review_id,
            "product_id": self.product_id,
            "user_id": self.user_id,
            "order_id": self.order_id,
            "rating": self.opinion.rating,
            "title": self.opinion.title,
            "review": self.opinion.review,
            "status": str(self.status),
            "helpful_votes": self.helpful_votes,
            "version": self.version,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }


def _unseen(moderated: bool) -> Status:
    return Status.PENDING if moderated else Status.PUBLISHED


def _not_found(review_id: UUID) -> ReviewNotFound:
    return ReviewNotFound(f"review {review_id} not found")


# -------------------------------------------------------------------------------------------------- votes


@dataclass(slots=True)
class VoteBucket:
    """Some of the users who found an edition of a review helpful.

    Users are known by a hash for this review alone: nothing is left to forget when an account is erased.
    """

    product_id: UUID
    review_id: UUID
    edition: int
    number: int
    version: int = 0
    voters: frozenset[UUID] = frozenset()
    events: list[ReviewVoted] = field(default_factory=list, compare=False)

    @staticmethod
    def number_of(review_id: UUID, user_id: UUID) -> int:
        """Return the number of the bucket that a user's vote is in."""
        return _voter(review_id, user_id).int % VOTE_BUCKETS

    def vote(self, user_id: UUID, helpful: bool) -> None:
        """Note that a user finds the review helpful, or no longer does; again is fine. Raises VotesFull."""
        voter = _voter(self.review_id, user_id)
        if (voter in self.voters) == helpful:
            return
        if helpful and len(self.voters) >= MAX_VOTES:
            raise VotesFull("the review has as many votes as can be counted")
        self.voters = self.voters | {voter} if helpful else self.voters - {voter}
        self.version += 1
        self.events.append(ReviewVoted(review_id=self.review_id, product_id=self.product_id, helpful=helpful))


@dataclass(frozen=True, slots=True)
class VoteCount:
    """How many votes an edition of a review has in all buckets; of two counts the higher version is the
    later.

    The version is the sum of the buckets' versions, which only grow.
    """

    votes: int
    version: int

    @classmethod
    def of(cls, buckets: Iterable[tuple[int, int]]) -> Self:
        """Count buckets, each given as its votes and its version."""
        pairs = list(buckets)
        return cls(sum(votes for votes, _ in pairs), sum(version for _, version in pairs))


def _voter(review_id: UUID, user_id: UUID) -> UUID:
    return uuid5(review_id, str(user_id))


# --------------------------------------------------------------------------------------- a product's list


Place = tuple[int, float, str]
"""What orders a list: no two reviews have the same."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A version of a review, as far as the list of its product and the product's rating need it."""

    review_id: UUID
    version: int
    rating: int
    helpful_votes: int
    created_at: datetime
    is_published: bool

    @classmethod
    def of(cls, review: Review) -> Self:
        """Make the entry of a review."""
        return cls(
            review.review_id, review.version, review.opinion.rating, review.helpful_votes,
            review.created_at, review.is_published,
        )  # fmt: skip

    def place(self, sort: Sort) -> Place:
        """Return its place in a list, which has the greatest first: the newer of two that are alike."""
        newest = (self.created_at.timestamp(), str(self.review_id))
        if sort is Sort.MOST_HELPFUL:
            return (self.helpful_votes, *newest)
        return (self.rating, *newest) if sort is Sort.RATING else (0, *newest)


@dataclass(frozen=True, slots=True)
class Tally:
    """What a bucket holds: how many reviews, how many of them count, and the sum of their ratings.

    Of two tallies of a bucket the higher version is the later.
    """

    size: int = 0
    count: int = 0
    total: int = 0
    version: int = 0


@dataclass(slots=True)
class ListBucket:
    """Some of a product's reviews, at most about `LIST_BUCKET`; buckets are filled one after the other.

    The first one, number 0, has the tallies of the `others` and publishes the rating of the product.
    """

    product_id: UUID
    number: int
    version: int = 0
    entries: Mapping[UUID, Entry] = field(default_factory=dict)
    others: Mapping[int, Tally] = field(default_factory=dict)
    events: list[ReviewRatingChanged] = field(default_factory=list, compare=False)

    @property
    def tally(self) -> Tally:
        """What it holds."""
        counted = [entry.rating for entry in self.entries.values() if entry.is_published]
        return Tally(len(self.entries), len(counted), sum(counted), self.version)

    @property
    def product_tally(self) -> Tally:
        """What all buckets of the product hold, as far as the first one knows."""
        all_ = (self.tally, *self.others.values())
        return Tally(*(sum(getattr(each, name) for each in all_) for name in ("size", "count", "total")))

    @property
    def last_number(self) -> int:
        """The number of the product's last bucket."""
        return max(self.others, default=0)

    @property
    def next_number(self) -> int:
        """The number of the bucket that the product's next review goes to."""
        last = self.last_number
        size = self.others[last].size if last else len(self.entries)
        return last if size < LIST_BUCKET else last + 1

    def put(self, entry: Entry) -> None:
        """List a review, unless a later version of it is listed."""
        known = self.entries.get(entry.review_id)
        if known is None or known.version < entry.version:
            before = self.product_tally
            self.entries = {**self.entries, entry.review_id: entry}
            self._changed(before)

    def note(self, number: int, tally: Tally) -> None:
        """Note what another bucket holds, unless something later is known of it."""
        if self.others.get(number, Tally()).version < tally.version:
            before = self.product_tally
            self.others = {**self.others, number: tally}
            self._changed(before)

    def _changed(self, before: Tally) -> None:
        self.version += 1
        after = self.product_tally
        if self.number == 0 and (before.count, before.total) != (after.count, after.total):
            self.events.append(
                ReviewRatingChanged(
                    product_id=self.product_id, total=after.total, count=after.count, version=self.version
                )
            )
