"""The gRPC servicer: messages to use cases and back.

What readers get of a product is serialised once per revision (`present`), and answers are put together from
that (`Preserialized`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import Descriptor
from google.protobuf.empty_pb2 import Empty

from stoa.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from stoa_catalog.model import Details, Filters, Product, Variant, VariantDraft
from stoa_catalog.read_model import Entry
from stoa_catalog.service import Assortment, Browsing
from stoa_chassis.auth import current_principal
from stoa_chassis.errors import InvalidArgument
from stoa_chassis.money_proto import from_proto, to_proto
from stoa_chassis.paging import page
from stoa_chassis.timestamps import to_timestamp


def present(product: Product) -> bytes:
    """Return what readers get: a serialised GetProductResponse, whose only field has the number that products
    have in the answers with several, too.
    """
    return catalog_pb2.GetProductResponse(product=_message(product)).SerializeToString(deterministic=True)


def form_of(*messages: Descriptor) -> str:
    """Return the name of the form of messages: another one has other fields, or something else in one."""
    fields = [f"{field.full_name}={field.number}:{field.type}" for each in messages for field in each.fields]
    return f"{_PRESENTED}-{hashlib.sha256(' '.join(fields).encode()).hexdigest()[:16]}"


# To be raised when `present` fills the fields that there are with something else than before.
_PRESENTED = 1
FORM = form_of(catalog_pb2.Product.DESCRIPTOR, catalog_pb2.Variant.DESCRIPTOR, catalog_pb2.Rating.DESCRIPTOR)
"""What views look like now: those that were made in another form are made anew after an upgrade."""


class Preserialized:
    """Stands for an answer whose parts were serialised before: protobuf takes messages that follow each other
    for one with the fields of all.

    It takes a third off the cost of the shop's most frequent answers (docs/performance.md), at the price that
    nothing checks the parts: that their field has the same number in each answer is written in the proto and
    kept by a test. Not a pattern: other services answer with messages.
    """

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts

    def SerializeToString(self) -> bytes:
        """Return the parts, one after the other."""
        return b"".join(self._parts)


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    """stoa.catalog.v1.CatalogService."""

    def __init__(self, browsing: Browsing[bytes], assortment: Assortment[bytes]) -> None:
        self._browsing = browsing
        self._assortment = assortment

    async def ListProducts(self, request: catalog_pb2.ListProductsRequest, context: object) -> Any:
        """List products, newest first."""
        filters = _filters(request)

        async def read(after: Mapping[str, Any], limit: int) -> Sequence[Entry[bytes]]:
            return await self._browsing.page(filters, UUID(after["before"]) if after else None, limit)

        found = await page(request, asdict(filters), read, lambda entry: {"before": entry.product_id})
        parts = [entry.view for entry in found.items]
        if found.next_page_token:
            last = catalog_pb2.ListProductsResponse(next_page_token=found.next_page_token)
            parts.append(last.SerializeToString())
        return Preserialized(parts)

    async def GetProduct(self, request: catalog_pb2.GetProductRequest, context: object) -> Any:
        """Read a product."""
        caller = current_principal()
        view = await self._browsing.get(UUID(request.product_id), caller.known_user, fresh=caller.is_staff)
        return Preserialized([view])

    async def BatchGetProducts(self, request: catalog_pb2.BatchGetProductsRequest, context: object) -> Any:
        """Read several products."""
        return Preserialized(await self._browsing.batch(_ids(request.product_ids)))

    async def BatchGetVariants(
        self, request: catalog_pb2.BatchGetVariantsRequest, context: object
    ) -> catalog_pb2.BatchGetVariantsResponse:
        """Read several variants with today's prices, and name those that were taken off sale."""
        on_sale, withdrawn = await self._browsing.with_variants(_ids(request.variant_ids))
        return catalog_pb2.BatchGetVariantsResponse(
            variants=(_entry(str(variant_id), view) for variant_id, view in on_sale),
            withdrawn=(
                catalog_pb2.BatchGetVariantsResponse.Withdrawn(
                    product_id=str(each.product_id),
                    product_name=each.product_name,
                    variant_id=str(each.variant_id),
                )
                for each in withdrawn
            ),
        )

    async def ListCategories(
        self, request: catalog_pb2.ListCategoriesRequest, context: object
    ) -> catalog_pb2.ListCategoriesResponse:
        """List the categories."""
        return catalog_pb2.ListCategoriesResponse(
            categories=(
                catalog_pb2.ListCategoriesResponse.Category(
                    name=category.name,
                    product_count=category.product_count,
                    subcategories=category.subcategories,
                )
                for category in await self._browsing.categories()
            )
        )

    async def CreateProduct(
        self, request: catalog_pb2.CreateProductRequest, context: object
    ) -> catalog_pb2.CreateProductResponse:
        """Add a product."""
        product = await self._assortment.create(_details(request.product), _drafts(request.product))
        return catalog_pb2.CreateProductResponse(product=_message(product))

    async def UpdateProduct(
        self, request: catalog_pb2.UpdateProductRequest, context: object
    ) -> catalog_pb2.UpdateProductResponse:
        """Replace a product."""
        asked = request.product
        if not asked.etag:  # which whoever creates a product has none of
            raise InvalidArgument("product.etag", "is missing: it must be that of the version you read")
        product = await self._assortment.update(
            UUID(request.product_id), _details(asked), _drafts(asked), asked.etag
        )
        return catalog_pb2.UpdateProductResponse(product=_message(product))

    async def DeleteProduct(self, request: catalog_pb2.DeleteProductRequest, context: object) -> Empty:
        """Take a product off sale."""
        await self._assortment.delete(UUID(request.product_id))
        return Empty()


def _ids(texts: Sequence[str]) -> list[UUID]:
    return [UUID(text) for text in texts]


def _filters(request: catalog_pb2.ListProductsRequest) -> Filters:
    return Filters(
        category=request.category,
        subcategory=request.subcategory,
        brand=request.brand,
        tag=request.tag,
        min_price=Decimal(request.min_price) if request.min_price else None,
        max_price=Decimal(request.max_price) if request.max_price else None,
    )


def _details(sent: catalog_pb2.Product) -> Details:
    return Details(
        name=sent.name,
        category=sent.category,
        description=sent.description,
        subcategory=sent.subcategory,
        brand=sent.brand,
        tags=tuple(sent.tags),
        specifications=dict(sent.specifications),
    )


def _drafts(sent: catalog_pb2.Product) -> list[VariantDraft]:
    return [
        VariantDraft(
            variant_id=UUID(variant.variant_id) if variant.variant_id else None,
            sku=variant.sku,
            price=from_proto(variant.price, f"product.variants[{at}].price"),
            attributes=dict(variant.attributes),
            images=tuple(variant.images),
            weight_grams=variant.weight_grams,
        )
        for at, variant in enumerate(sent.variants)
    ]


def _message(product: Product) -> catalog_pb2.Product:
    details = product.details
    return catalog_pb2.Product(
        product_id=str(product.product_id),
        name=details.name,
        description=details.description,
        category=details.category,
        subcategory=details.subcategory,
        brand=details.brand,
        tags=details.tags,
        variants=map(_variant_message, product.variants),
        specifications=details.specifications,
        rating=catalog_pb2.Rating(
            average=product.rating.average, count=product.rating.count, version=product.rating.version
        ),
        etag=product.etag,
        created_at=to_timestamp(product.created_at),
        updated_at=to_timestamp(product.updated_at),
        version=product.version,
    )


def _variant_message(variant: Variant) -> catalog_pb2.Variant:
    return catalog_pb2.Variant(
        variant_id=str(variant.variant_id),
        sku=variant.sku,
        attributes=variant.attributes,
        price=to_proto(variant.price),
        images=variant.images,
        weight_grams=variant.weight_grams,
    )


def _entry(variant_id: str, view: bytes) -> catalog_pb2.BatchGetVariantsResponse.Entry:
    product = catalog_pb2.GetProductResponse.FromString(view).product
    variant = next(each for each in product.variants if each.variant_id == variant_id)
    return catalog_pb2.BatchGetVariantsResponse.Entry(
        product_id=product.product_id, product_name=product.name, variant=variant
    )
