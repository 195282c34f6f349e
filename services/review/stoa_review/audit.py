"""The books of the review service as the audit reads them, and what must hold of them."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pymongo.asynchronous.database import AsyncDatabase

from stoa_chassis.audit import Finding

# What an event says is done by versions or written once however often it comes, and noted nowhere.
NOTED: Collection[str] = ()

_PARTS = (
    "kind", "product_id", "user_id", "rating", "status", "helpful_votes", "edition", "review_id", "votes",
    "number", "entries.is_published", "entries.rating", "others", "orders.product_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rating:
    """How many ratings of a product count, and their sum."""

    count: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Review:
    """A review that was not deleted; `user_id` is None once the account was erased."""

    review_id: UUID
    product_id: UUID
    user_id: UUID | None
    rating: int
    is_published: bool
    helpful_votes: int
    edition: int


@dataclass(frozen=True, slots=True)
class Books:
    """All reviews, what is kept of them elsewhere, and who has received what.

    `ratings` are by product, as the first buckets of the lists have them; `listed` is what the buckets have
    by themselves; `votes` are by review and edition.
    """

    reviews: Sequence[Review] = ()
    ratings: Mapping[UUID, Rating] = field(default_factory=dict)
    listed: Mapping[UUID, Rating] = field(default_factory=dict)
    votes: Mapping[tuple[UUID, int], int] = field(default_factory=dict)
    received: Mapping[UUID, Collection[UUID]] = field(default_factory=dict)


async def read(database: AsyncDatabase[dict[str, Any]]) -> Books:
    """Read the books. An account that may only read is enough."""
    reviews: list[Review] = []
    ratings: dict[UUID, Rating] = {}
    listed: dict[UUID, Rating] = defaultdict(Rating)
    votes: Counter[tuple[UUID, int]] = Counter()
    received: dict[UUID, Collection[UUID]] = {}
    async for document in database["reviews"].find({}, dict.fromkeys(_PARTS, 1)):
        if document["kind"] == "review":
            if document["status"] != "deleted":
                reviews.append(_review(document))
        elif document["kind"] == "votes":
            votes[document["review_id"], document["edition"]] += document["votes"]
        elif document["kind"] == "buyer":
            received[document["_id"]] = {each["product_id"] for each in document["orders"]}
        else:
            product_id, own = document["product_id"], _sum(document)
            listed[product_id] = _plus(listed[product_id], own)
            if document["number"] == 0:
                others = [Rating(each["count"], each["total"]) for each in document["others"]]
                ratings[product_id] = _plus(own, *others)
    return Books(reviews, ratings, listed, votes, received)


def findings(books: Books) -> Iterator[Finding]:
    """Check the books."""
    counted: dict[UUID, Rating] = defaultdict(Rating)
    for review in books.reviews:
        if review.is_published:
            counted[review.product_id] = _plus(counted[review.product_id], Rating(1, review.rating))
    for product_id in counted.keys() | books.ratings.keys() | books.listed.keys():
        right, listed = counted.get(product_id, Rating()), books.listed.get(product_id, Rating())
        rating = books.ratings.get(product_id, Rating())
        if not right == listed == rating:
            detail = f"{right} by its reviews, {listed} by its list, {rating} as published"
            yield Finding(
                "a product's rating is that of its published reviews", f"product {product_id}", detail,
                "the documents of kind list in the collection reviews; stoa logs review",
            )  # fmt: skip
    for review in books.reviews:
        subject = f"review {review.review_id}"
        votes = books.votes.get((review.review_id, review.edition), 0)
        if votes != review.helpful_votes:
            detail = f"{votes} users find it helpful, {review.helpful_votes} are counted"
            yield Finding("each helpful vote counts once", subject, detail, "stoa logs review")
        if review.user_id and review.product_id not in books.received.get(review.user_id, ()):
            detail = f"by user {review.user_id}, to whom product {review.product_id} was not delivered"
            yield Finding("only who has received a product reviews it", subject, detail, "stoa logs review")


def _review(document: Mapping[str, Any]) -> Review:
    return Review(
        document["_id"],
        document["product_id"],
        document["user_id"],
        document["rating"],
        document["status"] == "published",
        document["helpful_votes"],
        document["edition"],
    )


def _sum(document: Mapping[str, Any]) -> Rating:
    ratings = [entry["rating"] for entry in document["entries"] if entry["is_published"]]
    return Rating(len(ratings), sum(ratings))


def _plus(*ratings: Rating) -> Rating:
    return Rating(sum(each.count for each in ratings), sum(each.total for each in ratings))
