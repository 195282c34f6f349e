"""Reviews in MongoDB, one document each."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pymongo import DESCENDING, IndexModel, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from stoa_chassis.errors import AlreadyExists
from stoa_chassis.mongo import Document
from stoa_chassis.mongo_uow import MongoTransaction
from stoa_review.model import Review, ReviewNotFound
from stoa_review.ports import Tx

# A user's, the newest first: ids grow with time.
_INDEXES = [IndexModel([("user_id", DESCENDING), ("_id", DESCENDING)], name="of_user")]


class ReviewStore:
    """The reviews of all users, in a unit of work that writes one of them."""

    def __init__(self, transaction: MongoTransaction) -> None:
        self._transaction = transaction

    async def add(self, review: Review) -> None:
        """Store a new review, and publish its events."""
        self._transaction.outbox.collect(review)
        self._transaction.insert(review.review_id, _fields(review), _is_there)


class ReviewReader:
    """The reviews of all users, outside of a unit of work."""

    def __init__(self, collection: AsyncCollection[Document]) -> None:
        self._collection = collection

    async def get(self, user_id: UUID, review_id: UUID) -> Review:
        """Read a user's review. Raises ReviewNotFound."""
        document = await self._collection.find_one({"_id": review_id, "user_id": user_id})
        if document is None:
            raise ReviewNotFound("the user has no such review")
        return _review(document)

    async def list(self, user_id: UUID, before: UUID | None, limit: int) -> Sequence[Review]:
        """Read a user's reviews, the newest first; `before`: only older than this one."""
        older: Document = {"_id": {"$lt": before}} if before else {}
        found = self._collection.find({"user_id": user_id, **older}, sort=[("_id", DESCENDING)], limit=limit)
        return [_review(document) async for document in found]


async def open_collection(database: AsyncDatabase[Document]) -> AsyncCollection[Document]:
    """Return the collection of reviews, with its indexes; a write counts when a majority has it."""
    collection = database.get_collection("reviews", write_concern=WriteConcern("majority"))
    await collection.create_indexes(_INDEXES)
    return collection


def open_tx(transaction: MongoTransaction) -> Tx:
    """Put the repository on a unit of work."""
    return Tx(ReviewStore(transaction))


async def _is_there() -> Exception:
    return AlreadyExists("there is a review with this id")


def _fields(review: Review) -> Document:
    return {"user_id": review.user_id, "title": review.title, "created_at": review.created_at}


def _review(document: Mapping[str, Any]) -> Review:
    return Review(
        review_id=document["_id"],
        user_id=document["user_id"],
        title=document["title"],
        created_at=document["created_at"],
    )
