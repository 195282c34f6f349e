"""Products in MongoDB, one document each.

Only what a single document can do is used – conditional updates, one unique index – so that the same code is
right on MongoDB, on DocumentDB and on the local server, which has no transactions. A change and the events
that it causes are one write: the events wait in the document (see `stoa_chassis.mongo_uow`).
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from bson import Decimal128
from pymongo import ASCENDING, IndexModel, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from stoa_catalog.model import Details, Product, ProductNotFound, Rating, SkuTaken, Variant
from stoa_catalog.ports import Tx
from stoa_chassis.mongo import PENDING, Document
from stoa_chassis.mongo_uow import MongoTransaction
from stoa_contracts.money import Money

_INDEXES = [
    # Of one variant in the whole shop. It doesn't look for duplicates inside a document; the model does.
    IndexModel([("variants.sku", ASCENDING)], name="sku", unique=True),
    IndexModel([("variants.variant_id", ASCENDING)], name="variant"),
]
_ON_SALE: Document = {"deleted_at": None}
_WITHOUT_PENDING = {PENDING: 0}
_BATCH = 200  # documents: what is done with so many should not keep other requests waiting
# Characters that mean something in the name of a field, and the sign that escapes them.
_ESCAPES = {ord(char): f"%{ord(char):02X}" for char in "%.$\0"}


async def open_products(database: AsyncDatabase[Document]) -> AsyncCollection[Document]:
    """Return the collection of products, with its indexes; a write counts when a majority has it."""
    products = database.get_collection("products", write_concern=WriteConcern("majority"))
    await products.create_indexes(_INDEXES)
    return products


class Products:
    """Products to be changed, those taken off sale included, in a unit of work that changes one of them."""

    def __init__(self, transaction: MongoTransaction) -> None:
        self._transaction = transaction
        self._collection = transaction.collection
        self._read: dict[UUID, int] = {}  # versions

    async def get(self, product_id: UUID) -> Product:
        """Return a product, on sale or not. Raises ProductNotFound if there never was one."""
        document = await self._collection.find_one({"_id": product_id}, _WITHOUT_PENDING)
        if document is None:
            raise ProductNotFound(f"product {product_id} not found")
        self._transaction.check(document)
        self._read[product_id] = document["version"]
        return _product(document)

    async def add(self, product: Product) -> None:
        """Store a new product, and publish its events. Raises SkuTaken when the unit of work commits."""
        self._transaction.outbox.collect(product)
        fields = {**_fields(product), "rating": _rating_fields(product.rating)}
        self._transaction.insert(product.product_id, fields, lambda: self._taken(product))

    async def save(self, product: Product) -> None:
        """Store a changed product, and publish its events; nothing is written if nothing changed.

        The rating stays as it is: it changes on its own. Raises SkuTaken when the unit of work commits.
        """
        read = self._read[product.product_id]
        if product.version != read:
            self._transaction.outbox.collect(product)
            self._transaction.update(
                product.product_id, {"version": read}, _fields(product), lambda: self._taken(product)
            )

    async def _taken(self, product: Product) -> SkuTaken:
        skus = [variant.sku for variant in product.variants]
        others = self._collection.find(
            {"variants.sku": {"$in": skus}, "_id": {"$ne": product.product_id}}, {"variants.sku": 1}
        )
        taken = {variant["sku"] async for other in others for variant in other["variants"]}
        # None are found if the other gave them up meanwhile; then any may have been it.
        return SkuTaken.at([at for at, sku in enumerate(skus) if sku in taken] or range(len(skus)))


def open_tx(transaction: MongoTransaction) -> Tx:
    """Put the repository on a unit of work."""
    return Tx(Products(transaction))


class ProductReader:
    """Products as the read model takes them from the store."""

    def __init__(self, collection: AsyncCollection[Document]) -> None:
        self._collection = collection

    async def on_sale(self) -> AsyncIterator[Product]:
        """Walk through all products on sale, oldest first."""
        found = self._collection.find(_ON_SALE, _WITHOUT_PENDING, batch_size=_BATCH).sort("_id", ASCENDING)
        async for document in found:
            yield _product(document)

    async def versions(self) -> Mapping[UUID, int]:
        """Return the version of each product on sale."""
        found = self._collection.find(_ON_SALE, {"version": 1}, batch_size=_BATCH)
        return {document["_id"]: document["version"] async for document in found}

    async def batch(self, product_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return those products that there are, on sale or not."""
        found = self._collection.find({"_id": {"$in": list(product_ids)}}, _WITHOUT_PENDING)
        return [_product(document) async for document in found]

    async def with_variants(self, variant_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return the products, on sale or not, that have any of these variants."""
        query = {"variants.variant_id": {"$in": list(variant_ids)}}
        return [_product(document) async for document in self._collection.find(query, _WITHOUT_PENDING)]


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
    }


def _withdrawn_fields(variant: Variant) -> Document:
    """Free the SKU for others. Something must stand in its place: the unique index takes no two absences."""
    return _variant_fields(variant) | {"sku": f"withdrawn/{variant.variant_id}", "withdrawn_sku": variant.sku}


def _rating_fields(rating: Rating) -> Document:
    return {"average": rating.average, "count": rating.count}


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
    )


def _escaped(texts: Mapping[str, str]) -> dict[str, str]:
    """Return a map whose keys may be names of fields, whatever they are."""
    return {key.translate(_ESCAPES): text for key, text in texts.items()}


def _unescaped(document: Mapping[str, Any]) -> dict[str, str]:
    return {unquote(key) if "%" in key else key: text for key, text in document.items()}
