"""Products in MongoDB, one document each.

Only what a single document can do is used – conditional updates, unique indexes – so that the same code is
right on MongoDB, on DocumentDB and on the local server, which has no transactions. A change and the events
that it causes are one write: the events wait in the document (see `stoa_chassis.mongo_uow`).
"""

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from bson import Decimal128
from pymongo import ASCENDING, IndexModel, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from stoa_catalog.model import Details, Product, ProductNotFound, Rating, SkuTaken, Variant, sku_key
from stoa_catalog.ports import Tx
from stoa_chassis.mongo import PENDING, Document
from stoa_chassis.mongo_uow import MongoTransaction
from stoa_chassis.telemetry import get_logger
from stoa_contracts.money import Money

_log = get_logger(__name__)
_INDEXES = [
    # Of one variant in the whole shop. It sees no duplicates inside a document; the model does. Sparse:
    # products that an older version has written have no keys until this one starts.
    IndexModel([("sku_keys", ASCENDING)], name="sku_keys", unique=True, sparse=True),
    # The same with regard to case, as older versions made it and rely on.
    IndexModel([("variants.sku", ASCENDING)], name="sku", unique=True),
    IndexModel([("variants.variant_id", ASCENDING)], name="variant"),
]
_WITHOUT_PENDING = {PENDING: 0}
_SKU_KEYS = "sku_keys"
_OLDER_VERSIONS_RUN = timedelta(days=1)  # beside this one, at most
_BATCH = 200  # documents: what is done with so many should not keep other requests waiting
# Characters that mean something in the name of a field, and the sign that escapes them.
_ESCAPES = {ord(char): f"%{ord(char):02X}" for char in "%.$\0"}


async def open_products(database: AsyncDatabase[Document]) -> AsyncCollection[Document]:
    """Return the collection of products, with its indexes."""
    products = products_of(database)
    await products.create_indexes(_INDEXES)
    await bring_up_to_date(database, datetime.now(UTC))
    return products


def products_of(database: AsyncDatabase[Document]) -> AsyncCollection[Document]:
    """Return the collection of products; a write counts when a majority has it."""
    return database.get_collection("products", write_concern=WriteConcern("majority"))


async def bring_up_to_date(database: AsyncDatabase[Document], now: datetime) -> None:
    """Give products that an older version has written what this one knows their SKUs by.

    That version may still be running beside, and change some of them again: those are put right at a later
    start. When a day has gone by since the first time, this was the last one: it looks at every product.
    """
    products, notes = products_of(database), database.get_collection("upgrades")
    note = await notes.find_one({"_id": _SKU_KEYS})
    if note is not None and note["done"]:
        return
    parts = ("version", "variants.variant_id", "variants.sku", "sku_keys", "deleted_at")
    found = products.find({}, dict.fromkeys(parts, 1), batch_size=_BATCH)
    empty = True
    async for document in found:
        empty = False
        if change := _outdated(document):
            unchanged = {"_id": document["_id"], "version": document["version"]}
            try:
                await products.update_one(unchanged, {"$set": change})
            except DuplicateKeyError:
                await products.update_one(unchanged, {"$set": {"sku_keys": await _left(products, document)}})
    began = now if note is None else note["began"]
    done = {"began": began, "done": empty or now - began > _OLDER_VERSIONS_RUN}
    with contextlib.suppress(DuplicateKeyError):  # another process that starts noted the same
        await notes.update_one({"_id": _SKU_KEYS}, {"$set": done}, upsert=True)


def _outdated(document: Document) -> Document:
    """Return the fields of a product that have to change."""
    variants = document["variants"]
    if document["deleted_at"] is None:
        change, keys = {}, [sku_key(variant["sku"]) for variant in variants]
    else:
        keys = [variant["variant_id"] for variant in variants]
        change = {f"variants.{at}.sku": key for at, key in enumerate(keys) if variants[at]["sku"] != key}
    return change if document.get("sku_keys") == keys else {**change, "sku_keys": keys}


async def _left(products: AsyncCollection[Document], document: Document) -> list[str | UUID]:
    """Return the keys of those SKUs of a product that no other has in another case, and of the others none.

    Staff could give two products such SKUs before that was refused, and may go on selling them.
    """
    keys = []
    for variant in document["variants"]:
        key = sku_key(variant["sku"])
        other = await products.find_one({"sku_keys": key, "_id": {"$ne": document["_id"]}}, {"_id": 1})
        keys.append(key if other is None else variant["variant_id"])
        if other is not None:
            _log.warning(
                "a SKU differs from another product's in case alone: please change one of them",
                sku=variant["sku"], product_id=str(document["_id"]), other=str(other["_id"]),
            )  # fmt: skip
    return keys


class Products:
    """Products to be changed, those taken off sale included, in a unit of work that changes one of them."""

    def __init__(self, transaction: MongoTransaction) -> None:
        self._transaction = transaction
        self._collection = transaction.collection
        self._read: dict[UUID, tuple[int, int]] = {}  # the versions of products and of their ratings
        self._exempt: frozenset[tuple[UUID, str]] = frozenset()  # variants, by their SKU

    async def get(self, product_id: UUID) -> Product:
        """Return a product, on sale or not. Raises ProductNotFound if there never was one."""
        document = await self._collection.find_one({"_id": product_id}, _WITHOUT_PENDING)
        if document is None:
            raise ProductNotFound(f"product {product_id} not found")
        self._transaction.check(document)
        product = _product(document)
        self._read[product_id] = (product.version, product.rating.version)
        keys = document.get("sku_keys", ())
        self._exempt = frozenset(
            (each.variant_id, each.sku) for each in product.variants if each.variant_id in keys
        )
        return product

    async def add(self, product: Product) -> None:
        """Store a new product, and publish its events. Raises SkuTaken when the unit of work commits."""
        self._transaction.outbox.collect(product)
        self._transaction.insert(product.product_id, new_document(product), lambda: self._taken(product))

    async def save(self, product: Product) -> None:
        """Store a changed product, and publish its events; nothing is written if nothing changed.

        Either its rating has changed or the rest: they are written apart from each other, so that neither
        makes who writes the other begin again. Raises SkuTaken when the unit of work commits.
        """
        read, rating_read = self._read[product.product_id]
        if product.rating.version != rating_read:
            self._transaction.outbox.collect(product)
            # A product that an older version has written has no version of its rating.
            found = {"rating.version": rating_read or {"$in": [0, None]}}
            rated = {"rating": _rating_fields(product.rating)}
            self._transaction.update(product.product_id, found, rated, lambda: self._taken(product))
        elif product.version != read:
            self._transaction.outbox.collect(product)
            self._transaction.update(
                product.product_id, {"version": read}, self._fields(product), lambda: self._taken(product)
            )

    def _fields(self, product: Product) -> Document:
        """Return what a change may change."""
        return _fields(product) | {"sku_keys": [self._key(product, each) for each in product.variants]}

    def _key(self, product: Product, variant: Variant) -> str | UUID:
        """Return what no other product may have because of a variant: its id, if it claims no SKU."""
        return (
            variant.variant_id
            if (variant.variant_id, variant.sku) in self._exempt
            else _key(product, variant)
        )

    async def _taken(self, product: Product) -> SkuTaken:
        keys = [self._key(product, variant) for variant in product.variants]
        skus = [variant.sku for variant in product.variants]
        same = [{"sku_keys": {"$in": keys}}, {"variants.sku": {"$in": skus}}]
        others = self._collection.find({"$or": same, "_id": {"$ne": product.product_id}}, {"variants.sku": 1})
        # A product that was taken off sale has something else in place of each SKU.
        texts = [variant["sku"] async for other in others for variant in other["variants"]]
        taken = {sku_key(text) for text in texts if isinstance(text, str)}
        # None are found if the other gave them up meanwhile; then any may have been it.
        return SkuTaken.at([at for at, key in enumerate(keys) if key in taken] or range(len(keys)))


def open_tx(transaction: MongoTransaction) -> Tx:
    """Put the repository on a unit of work."""
    return Tx(Products(transaction))


class ProductReader:
    """Products as the read model takes them from the store, those taken off sale included."""

    def __init__(self, collection: AsyncCollection[Document]) -> None:
        self._collection = collection

    async def walk(self, after: UUID | None = None, limit: int = 0) -> AsyncIterator[Product]:
        """Walk through all products, oldest first, from the one after another; at most so many, if any."""
        query = {} if after is None else {"_id": {"$gt": after}}
        found = self._collection.find(query, _WITHOUT_PENDING, batch_size=_BATCH).sort("_id", ASCENDING)
        async for document in found.limit(limit):
            yield _product(document)

    async def batch(self, product_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return those products that there are."""
        found = self._collection.find({"_id": {"$in": list(product_ids)}}, _WITHOUT_PENDING)
        return [_product(document) async for document in found]

    async def with_variants(self, variant_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return the products that have any of these variants."""
        query = {"variants.variant_id": {"$in": list(variant_ids)}}
        return [_product(document) async for document in self._collection.find(query, _WITHOUT_PENDING)]


def new_document(product: Product) -> Document:
    """Return the document of a product that is added, without its id."""
    keys = [_key(product, variant) for variant in product.variants]
    return {**_fields(product), "sku_keys": keys, "rating": _rating_fields(product.rating)}


def _key(product: Product, variant: Variant) -> str | UUID:
    """Return what no other product may have because of a variant: its id, if the product is off sale."""
    return sku_key(variant.sku) if product.deleted_at is None else variant.variant_id


def _fields(product: Product) -> Document:
    """Return what a change may change."""
    details = product.details
    return {
        "version": product.version,
        "name": details.name,
        "description": details.description,
        "category": details.category,
        "subcategory": details.subcategory,
        "brand": details.brand,
        "tags": list(details.tags),
        "variants": [
            _variant_fields(variant) if product.deleted_at is None else _withdrawn_fields(variant)
            for variant in product.variants
        ],
        "specifications": _escaped(details.specifications),
        "created_at": product.created_at,
        "updated_at": product.updated_at,
        "deleted_at": product.deleted_at,
    }


def _variant_fields(variant: Variant) -> Document:
    return {
        "variant_id": variant.variant_id,
        "sku": variant.sku,
        "attributes": _escaped(variant.attributes),
        # Compared by its value, with whatever number of digits; a double would not be exact.
        "price": {
            "currency_code": variant.price.currency,
            "amount": Decimal128(variant.price.amount),
        },
        "images": list(variant.images),
        "weight_grams": variant.weight_grams,
    }


def _withdrawn_fields(variant: Variant) -> Document:
    """Free the SKU for others. Something must stand in its place: the unique index takes no two absences.

    It is the variant's id, as an id: whatever text somebody has for a SKU, it is of another type.
    """
    return _variant_fields(variant) | {"sku": variant.variant_id, "withdrawn_sku": variant.sku}


def _rating_fields(rating: Rating) -> Document:
    return {"average": rating.average, "count": rating.count, "version": rating.version}


def _product(document: Document) -> Product:
    return Product(
        product_id=document["_id"],
        version=document["version"],
        details=Details(
            name=document["name"],
            category=document["category"],
            description=document["description"],
            subcategory=document["subcategory"],
            brand=document["brand"],
            tags=tuple(document["tags"]),
            specifications=_unescaped(document["specifications"]),
        ),
        variants=tuple(map(_variant, document["variants"])),
        created_at=document["created_at"],
        updated_at=document["updated_at"],
        rating=Rating(**document["rating"]),
        deleted_at=document["deleted_at"],
    )


def _variant(document: Document) -> Variant:
    amount: Decimal = document["price"]["amount"].to_decimal()
    return Variant(
        variant_id=document["variant_id"],
        sku=document["withdrawn_sku"] if "withdrawn_sku" in document else document["sku"],
        price=Money(amount, document["price"]["currency_code"]),
        attributes=_unescaped(document["attributes"]),
        images=tuple(document["images"]),
        weight_grams=document.get("weight_grams", 0),
    )


def _escaped(texts: Mapping[str, str]) -> dict[str, str]:
    """Return a map whose keys may be names of fields, whatever they are."""
    return {key.translate(_ESCAPES): text for key, text in texts.items()}


def _unescaped(document: Mapping[str, Any]) -> dict[str, str]:
    return {unquote(key) if "%" in key else key: text for key, text in document.items()}
