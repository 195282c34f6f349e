"""Buyers, reviews, votes and lists in MongoDB: four kinds of documents in one collection.

Whatever must be quick is read by `_id`, which is an index on every server: ids follow from what is looked for
(`uuid5`), so that no other index is needed to find a review, the votes for it, or a product's list. What
staff and the erasure of accounts look for has indexes of its own. Each document has the version by which a
write notices that it was changed meanwhile.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from pymongo import ASCENDING, IndexModel, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from stoa_chassis.mongo import PENDING, Document
from stoa_chassis.mongo_uow import MongoTransaction
from stoa_chassis.outbox import RecordsEvents
from stoa_chassis.uow import LostRace
from stoa_review.model import (
    VOTE_BUCKETS,
    Buyer,
    Entry,
    ListBucket,
    Opinion,
    Reply,
    Review,
    ReviewNotFound,
    Status,
    Tally,
    VoteBucket,
    VoteCount,
)
from stoa_review.ports import Tx

# Fields that only reviews have: of the other kinds nothing is in these.
_INDEXES = [
    IndexModel([("status", ASCENDING), ("updated_at", ASCENDING), ("_id", ASCENDING)], name="of_status"),
    IndexModel([("replies.user_id", ASCENDING)], name="of_replier", sparse=True),
]
_WITHOUT_PENDING = {PENDING: 0}


async def open_collection(database: AsyncDatabase[Document]) -> AsyncCollection[Document]:
    """Return the collection, with its indexes; a write counts when a majority has it."""
    collection = database.get_collection("reviews", write_concern=WriteConcern("majority"))
    await collection.create_indexes(_INDEXES)
    return collection


class _Documents:
    """The documents of a unit of work, and the versions that they had when they were read."""

    def __init__(self, transaction: MongoTransaction) -> None:
        self._transaction = transaction
        self._read: dict[UUID, int] = {}

    async def find(self, document_id: UUID) -> Document | None:
        """Return a document, None if there is none."""
        document = await self._transaction.collection.find_one({"_id": document_id}, _WITHOUT_PENDING)
        self._read[document_id] = document["version"] if document else 0
        return document

    def save(self, document_id: UUID, version: int, fields: Mapping[str, Any]) -> bool:
        """Write a document that was found, or is new; tells whether there is anything to write."""
        read = self._read.get(document_id, 0)
        if version == read:
            return False
        fields = {"version": version, **fields}
        if read:
            self._transaction.update(document_id, {"version": read}, fields, _lost)
        else:
            self._transaction.insert(document_id, fields, _lost)
        return True

    def publish(self, entity: RecordsEvents) -> None:
        """Publish the events of what was written."""
        self._transaction.outbox.collect(entity)


class Buyers:
    """Who has received what, in a unit of work."""

    def __init__(self, documents: _Documents) -> None:
        self._documents = documents

    async def get(self, user_id: UUID) -> Buyer:
        """Return a buyer, one who has received nothing if there is none."""
        document = await self._documents.find(user_id)
        if document is None:
            return Buyer(user_id)
        return Buyer(
            user_id,
            document["version"],
            {each["product_id"]: tuple(each["order_ids"]) for each in document["orders"]},
            {each["order_id"]: each["user_id"] for each in document["moved"]},
            document["merged_into"],
            document["is_erased"],
        )

    async def save(self, buyer: Buyer) -> None:
        """Store a buyer, if anything changed."""
        fields = {
            "kind": "buyer",
            "orders": [
                {"product_id": product_id, "order_ids": list(order_ids)}
                for product_id, order_ids in buyer.orders.items()
            ],
            "moved": [
                {"order_id": order_id, "user_id": user_id} for order_id, user_id in buyer.moved.items()
            ],
            "merged_into": buyer.merged_into,
            "is_erased": buyer.is_erased,
        }
        self._documents.save(buyer.user_id, buyer.version, fields)


class Reviews:
    """The reviews of all products, in a unit of work."""

    def __init__(self, documents: _Documents) -> None:
        self._documents = documents

    async def find(self, review_id: UUID) -> Review | None:
        """Return a review, None if there never was one."""
        document = await self._documents.find(review_id)
        return _review(document) if document is not None and _is_review(document) else None

    async def get(self, review_id: UUID) -> Review:
        """Return a review. Raises ReviewNotFound if there never was one."""
        review = await self.find(review_id)
        if review is None:
            raise ReviewNotFound(f"review {review_id} not found")
        return review

    async def save(self, review: Review) -> None:
        """Store a review, and publish its events; nothing is written if nothing changed."""
        if self._documents.save(review.review_id, review.version, _review_fields(review)):
            self._documents.publish(review)


class Votes:
    """The votes for all reviews, in a unit of work."""

    def __init__(self, documents: _Documents) -> None:
        self._documents = documents

    async def get(self, review: Review, number: int) -> VoteBucket:
        """Return a bucket of the votes for a review as it was last written, an empty one if there is none."""
        bucket = VoteBucket(review.product_id, review.review_id, review.edition, number)
        document = await self._documents.find(_votes_id(review.review_id, review.edition, number))
        if document is not None:
            bucket.version = document["version"]
            bucket.voters = frozenset(document["voters"])
        return bucket

    async def save(self, bucket: VoteBucket) -> None:
        """Store a bucket, and publish its events; nothing is written if nothing changed."""
        fields = {
            "kind": "votes",
            "review_id": bucket.review_id,
            "edition": bucket.edition,
            "number": bucket.number,
            "voters": sorted(bucket.voters),
            "votes": len(bucket.voters),
        }
        document_id = _votes_id(bucket.review_id, bucket.edition, bucket.number)
        if self._documents.save(document_id, bucket.version, fields):
            self._documents.publish(bucket)


class Lists:
    """The lists of all products' reviews, in a unit of work."""

    def __init__(self, documents: _Documents) -> None:
        self._documents = documents

    async def get(self, product_id: UUID, number: int) -> ListBucket:
        """Return a bucket of a product's list, an empty one if there is none."""
        document = await self._documents.find(_list_id(product_id, number))
        return ListBucket(product_id, number) if document is None else _list_bucket(document)

    async def save(self, bucket: ListBucket) -> None:
        """Store a bucket, and publish its events; nothing is written if nothing changed."""
        fields = {
            "kind": "list",
            "product_id": bucket.product_id,
            "number": bucket.number,
            "entries": [
                {
                    "review_id": entry.review_id,
                    "version": entry.version,
                    "rating": entry.rating,
                    "helpful_votes": entry.helpful_votes,
                    "created_at": entry.created_at,
                    "is_published": entry.is_published,
                }
                for entry in bucket.entries.values()
            ],
            "others": [
                {
                    "number": number,
                    "size": tally.size,
                    "count": tally.count,
                    "total": tally.total,
                    "version": tally.version,
                }
                for number, tally in bucket.others.items()
            ],
        }
        if self._documents.save(_list_id(bucket.product_id, bucket.number), bucket.version, fields):
            self._documents.publish(bucket)


def open_tx(transaction: MongoTransaction) -> Tx:
    """Put the repositories on a unit of work."""
    documents = _Documents(transaction)
    return Tx(Buyers(documents), Reviews(documents), Votes(documents), Lists(documents))


class ReviewReader:
    """Reviews and what belongs to them, outside of a unit of work."""

    def __init__(self, collection: AsyncCollection[Document]) -> None:
        self._collection = collection

    async def get(self, review_id: UUID) -> Review:
        """Return a review. Raises ReviewNotFound if there never was one."""
        document = await self._collection.find_one({"_id": review_id}, _WITHOUT_PENDING)
        if document is None or not _is_review(document):
            raise ReviewNotFound(f"review {review_id} not found")
        return _review(document)

    async def batch(self, review_ids: Sequence[UUID]) -> Sequence[Review]:
        """Return those reviews that there are, in the order asked for."""
        found = self._collection.find({"_id": {"$in": list(review_ids)}}, _WITHOUT_PENDING)
        reviews = {document["_id"]: _review(document) async for document in found}
        return [reviews[review_id] for review_id in review_ids if review_id in reviews]

    async def list(self, product_id: UUID) -> Sequence[ListBucket]:
        """Return all buckets of a product's list."""
        document = await self._collection.find_one({"_id": _list_id(product_id, 0)}, _WITHOUT_PENDING)
        if document is None:
            return ()
        first = _list_bucket(document)
        others = [_list_id(product_id, number) for number in first.others]
        if not others:
            return (first,)
        found = self._collection.find({"_id": {"$in": others}}, _WITHOUT_PENDING)
        return (first, *[_list_bucket(document) async for document in found])

    async def with_status(
        self, status: Status, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[Review]:
        """Return the reviews of all products that have a status, those first that were not changed for
        longest.

        `after`: only those that follow on the one that was changed then and has that id.
        """
        query: Document = {"status": str(status)}
        if after is not None:
            at, review_id = after
            query["$or"] = [{"updated_at": {"$gt": at}}, {"updated_at": at, "_id": {"$gt": review_id}}]
        order = [("updated_at", ASCENDING), ("_id", ASCENDING)]
        found = self._collection.find(query, _WITHOUT_PENDING, sort=order, limit=limit)
        return [_review(document) async for document in found]

    async def votes(self, review: Review) -> VoteCount:
        """Count the votes for a review as it was last written."""
        ids = [_votes_id(review.review_id, review.edition, number) for number in range(VOTE_BUCKETS)]
        found = self._collection.find({"_id": {"$in": ids}}, {"votes": 1, "version": 1})
        return VoteCount.of([(each["votes"], each["version"]) async for each in found])

    async def with_replies_of(self, user_id: UUID) -> Collection[UUID]:
        """Return the reviews to which a user has replied."""
        found = self._collection.find({"replies.user_id": user_id}, {"_id": 1})
        return [document["_id"] async for document in found]

    async def erased(self, user_ids: Iterable[UUID]) -> Collection[UUID]:
        """Return those of these users whose accounts were erased."""
        found = self._collection.find({"_id": {"$in": list(user_ids)}, "is_erased": True}, {"_id": 1})
        return [document["_id"] async for document in found]


async def _lost() -> Exception:
    """Somebody else wrote the document first: what was decided without it is decided again."""
    return LostRace()


def _votes_id(review_id: UUID, edition: int, number: int) -> UUID:
    return uuid5(review_id, f"votes:{edition}:{number}")


def _list_id(product_id: UUID, number: int) -> UUID:
    return uuid5(product_id, f"list:{number}")


def _is_review(document: Mapping[str, Any]) -> bool:
    return bool(document["kind"] == "review")


def _review_fields(review: Review) -> Document:
    return {
        "kind": "review",
        "revision": review.revision,
        "edition": review.edition,
        "bucket": review.bucket,
        "product_id": review.product_id,
        "user_id": review.user_id,
        "order_id": review.order_id,
        "rating": review.opinion.rating,
        "title": review.opinion.title,
        "review": review.opinion.review,
        "photos": list(review.opinion.photos),
        "is_verified_purchase": review.is_verified_purchase,
        "status": str(review.status),
        "moderation_reason": review.moderation_reason,
        "was_rejected": review.was_rejected,
        "helpful_votes": review.helpful_votes,
        "votes_version": review.votes_version,
        "replies": [
            {
                "reply_id": reply.reply_id,
                "parent_id": reply.parent_id,
                "user_id": reply.user_id,
                "reply": reply.reply,
                "is_staff": reply.is_staff,
                "timestamp": reply.created_at,
            }
            for reply in review.replies
        ],
        "timestamp": review.created_at,
        "updated_at": review.updated_at,
    }


def _review(document: Mapping[str, Any]) -> Review:
    return Review(
        review_id=document["_id"],
        version=document["version"],
        revision=document["revision"],
        edition=document["edition"],
        bucket=document["bucket"],
        product_id=document["product_id"],
        user_id=document["user_id"],
        order_id=document["order_id"],
        opinion=Opinion(document["rating"], document["title"], document["review"], tuple(document["photos"])),
        is_verified_purchase=document["is_verified_purchase"],
        status=Status(document["status"]),
        moderation_reason=document["moderation_reason"],
        # An older process wrote none, and had only these to tell what staff had rejected.
        was_rejected=document.get("was_rejected", document["status"] in (Status.REJECTED, Status.PENDING)),
        helpful_votes=document["helpful_votes"],
        votes_version=document["votes_version"],
        replies=tuple(map(_reply, document["replies"])),
        created_at=document["timestamp"],
        updated_at=document["updated_at"],
    )


def _reply(document: Mapping[str, Any]) -> Reply:
    return Reply(
        document["reply_id"],
        document["parent_id"],
        document["user_id"],
        document["reply"],
        document["is_staff"],
        document["timestamp"],
    )


def _list_bucket(document: Mapping[str, Any]) -> ListBucket:
    entries = [Entry(**entry) for entry in document["entries"]]
    others = {
        each["number"]: Tally(each["size"], each["count"], each["total"], each["version"])
        for each in document["others"]
    }
    return ListBucket(
        document["product_id"],
        document["number"],
        document["version"],
        {entry.review_id: entry for entry in entries},
        others,
    )
