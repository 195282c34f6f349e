"""The catalogue over gRPC: contract, policies, errors with details."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import pytest
from google.protobuf.message import Message
from google.type.money_pb2 import Money
from pymongo import AsyncMongoClient

from stoa.catalog.v1.catalog_pb2 import (
    BatchGetProductsRequest,
    BatchGetProductsResponse,
    BatchGetVariantsRequest,
    CreateProductRequest,
    DeleteProductRequest,
    GetProductRequest,
    GetProductResponse,
    ListCategoriesRequest,
    ListProductsRequest,
    ListProductsResponse,
    Product,
    Rating,
    UpdateProductRequest,
    Variant,
)
from stoa.catalog.v1.catalog_pb2_grpc import CatalogServiceStub, add_CatalogServiceServicer_to_server
from stoa_catalog import model, repository, testing
from stoa_catalog.api import FORM, CatalogServicer, form_of, present
from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.ids import new_id
from stoa_chassis.kafka import Producer
from stoa_chassis.memory import MemoryStore
from stoa_chassis.money_proto import to_proto
from stoa_chassis.mongo import Document, MongoOutbox
from stoa_chassis.mongo_uow import mongo_unit_of_work
from stoa_chassis.testing import InProcessServer, serve_in_process
from stoa_chassis.timestamps import to_timestamp
from stoa_contracts.events import Payload

from .conftest import NOW, Catalog, Store, a_full_product, details, draft

Process: TypeAlias = Catalog[bytes]


@pytest.fixture
def process(in_memory: Store) -> Process:
    """A process of the service, in which nothing has happened."""
    return Catalog(in_memory, present)


@pytest.fixture
async def server(process: Process) -> AsyncIterator[InProcessServer]:
    async with serving(process) as in_process:
        yield in_process


@pytest.fixture
def staff(server: InProcessServer) -> CatalogServiceStub:
    return server.stub(CatalogServiceStub, as_user=new_id(), staff=True)


@pytest.fixture
def nobody(server: InProcessServer) -> CatalogServiceStub:
    return server.stub(CatalogServiceStub)


def serving(process: Process) -> AbstractAsyncContextManager[InProcessServer]:
    """Serve a process."""
    servicer = CatalogServicer(process.browsing, process.assortment)
    return serve_in_process(add_CatalogServiceServicer_to_server, servicer, name="catalog")


def price(units: int, nanos: int = 0, currency: str = "USD") -> Money:
    return Money(currency_code=currency, units=units, nanos=nanos)


def lamp(*variants: Variant, **changes: Any) -> Product:
    fields = {
        "name": "Lamp",
        "category": "home",
        "variants": variants or (Variant(sku=uuid4().hex, price=price(19, 900_000_000)),),
    }
    return Product(**(fields | changes))


async def create(staff: CatalogServiceStub, product: Product | None = None) -> Product:
    created = await staff.CreateProduct(CreateProductRequest(product=product or lamp()))
    return created.product


def fields_of(error: pytest.ExceptionInfo[RemoteError]) -> list[str]:
    return [violation.field for violation in error.value.violations]


async def test_staff_writes_and_everybody_reads(
    staff: CatalogServiceStub, nobody: CatalogServiceStub
) -> None:
    asked = lamp(
        Variant(sku=uuid4().hex, attributes={"colour": "red"}, price=price(5), images=["a.jpg"]),
        description="bright",
        subcategory="lights",
        brand="Lux",
        tags=["new"],
        specifications={"socket": "E27"},
    )
    created = await create(staff, asked)
    read = (await nobody.GetProduct(GetProductRequest(product_id=created.product_id))).product
    assert read == created
    assert read.etag
    assert read.variants[0].variant_id
    assert read.HasField("rating")
    for given in ("name", "description", "subcategory", "brand", "tags", "specifications"):
        assert getattr(read, given) == getattr(asked, given)


async def test_nothing_of_a_product_is_left_out(
    nobody: CatalogServiceStub, memory: MemoryStore[testing.Rows]
) -> None:
    """Every field of the message has the value of the entity's field, which is not empty."""
    stored = replace(a_full_product(), deleted_at=None)
    memory.rows = testing.Rows({stored.product_id: stored})
    product = (await nobody.GetProduct(GetProductRequest(product_id=str(stored.product_id)))).product
    assert product == Product(
        product_id=str(stored.product_id),
        name="Lamp",
        description="Bright.",
        category="home",
        subcategory="lights",
        brand="Lux",
        tags=["light", "new"],
        variants=[
            Variant(
                variant_id=str(variant.variant_id),
                sku=variant.sku,
                attributes=variant.attributes,
                price=to_proto(variant.price),
                images=variant.images,
                weight_grams=variant.weight_grams,
            )
            for variant in stored.variants
        ],
        specifications={"socket": "E27", "weight": "1 kg"},
        rating=Rating(average=4.5, count=2, version=7),
        etag="3",
        created_at=to_timestamp(stored.created_at),
        updated_at=to_timestamp(stored.updated_at),
        version=3,
    )
    messages: list[Message] = [product, product.rating, *product.variants]
    for message in messages:
        assert {field.name for field, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name)


async def test_nothing_that_staff_sends_is_lost(
    staff: CatalogServiceStub, memory: MemoryStore[testing.Rows]
) -> None:
    asked, full = Product(name="Old", category="old", variants=lamp().variants), a_full_product()
    created = await create(staff, asked)
    sent = Product(
        name=full.details.name,
        description=full.details.description,
        category=full.details.category,
        subcategory=full.details.subcategory,
        brand=full.details.brand,
        tags=full.details.tags,
        specifications=full.details.specifications,
        etag=created.etag,
        variants=[
            Variant(
                variant_id=variant_id,
                sku=variant.sku,
                attributes=variant.attributes,
                price=to_proto(variant.price),
                images=variant.images,
                weight_grams=variant.weight_grams,
            )
            for variant_id, variant in zip((created.variants[0].variant_id, ""), full.variants, strict=True)
        ],
    )
    await staff.UpdateProduct(UpdateProductRequest(product_id=created.product_id, product=sent))
    (stored,) = memory.rows.products.values()
    assert stored.details == full.details
    kept, new = stored.variants
    assert str(kept.variant_id) == created.variants[0].variant_id
    for variant, expected in ((kept, full.variants[0]), (new, full.variants[1])):
        assert replace(variant, variant_id=expected.variant_id) == expected


async def test_only_staff_writes(server: InProcessServer, nobody: CatalogServiceStub) -> None:
    customer = server.stub(CatalogServiceStub, as_user=new_id())
    for stub, code in ((nobody, Code.UNAUTHENTICATED), (customer, Code.PERMISSION_DENIED)):
        for call in (
            stub.CreateProduct(CreateProductRequest(product=lamp())),
            stub.UpdateProduct(UpdateProductRequest(product_id=str(new_id()), product=lamp(etag="1"))),
            stub.DeleteProduct(DeleteProductRequest(product_id=str(new_id()))),
        ):
            with pytest.raises(RemoteError) as refused:
                await call
            assert refused.value.code is code


async def test_prices_for_services_are_no_public_method(
    server: InProcessServer, staff: CatalogServiceStub, nobody: CatalogServiceStub
) -> None:
    created = await create(staff)
    request = BatchGetVariantsRequest(variant_ids=[created.variants[0].variant_id, str(new_id())])
    for service in ("cart", "order", "inventory"):
        stub = server.stub(CatalogServiceStub, as_service=service)
        (entry,) = (await stub.BatchGetVariants(request)).variants
        assert (entry.product_id, entry.product_name) == (created.product_id, "Lamp")
        assert entry.variant == created.variants[0]
    await staff.DeleteProduct(DeleteProductRequest(product_id=created.product_id))
    answer = await server.stub(CatalogServiceStub, as_service="order").BatchGetVariants(request)
    (gone,) = answer.withdrawn
    assert not answer.variants
    assert (gone.product_id, gone.product_name) == (created.product_id, "Lamp")
    assert gone.variant_id == created.variants[0].variant_id
    for stub in (nobody, staff, server.stub(CatalogServiceStub, as_service="payment")):
        with pytest.raises(RemoteError) as refused:
            await stub.BatchGetVariants(request)
        assert refused.value.code is Code.PERMISSION_DENIED


async def test_an_update_needs_the_etag_of_the_latest_version(
    staff: CatalogServiceStub, nobody: CatalogServiceStub
) -> None:
    created = await create(staff)

    async def put(etag: str, name: str) -> Product:
        asked = Product(name=name, category="home", variants=created.variants, etag=etag)
        request = UpdateProductRequest(product_id=created.product_id, product=asked)
        return (await staff.UpdateProduct(request)).product

    updated = await put(created.etag, "Better lamp")
    assert updated.etag != created.etag
    assert updated.variants == created.variants
    with pytest.raises(RemoteError) as refused:
        await put(created.etag, "Other lamp")
    assert (refused.value.code, refused.value.reason) == (Code.ABORTED, "ETAG_MISMATCH")
    with pytest.raises(RemoteError) as refused:
        await put("made up", "Other lamp")
    assert refused.value.reason == "ETAG_MISMATCH"
    with pytest.raises(RemoteError) as refused:
        await put("", "Other lamp")
    assert (refused.value.code, fields_of(refused)) == (Code.INVALID_ARGUMENT, ["etag"])
    # The answer of the first may have got lost.
    assert await put(created.etag, "Better lamp") == updated
    read = (await nobody.GetProduct(GetProductRequest(product_id=created.product_id))).product
    assert read == updated


async def test_a_wrong_field_of_a_product_is_named(staff: CatalogServiceStub) -> None:
    taken = (await create(staff)).variants[0].sku
    sku = uuid4().hex
    for wrong, code, field in [
        (lamp(name=""), Code.INVALID_ARGUMENT, "name"),
        (lamp(Variant(sku=sku, price=price(0))), Code.INVALID_ARGUMENT, "variants[0].price"),
        (lamp(Variant(sku=sku, price=price(1, 1))), Code.INVALID_ARGUMENT, "variants[0].price"),
        (
            lamp(Variant(sku=sku, price=price(1, 0, "EUR"))),
            Code.INVALID_ARGUMENT,
            "variants[0].price",
        ),
        (
            lamp(Variant(sku=sku, price=price(1), variant_id=str(new_id()))),
            Code.INVALID_ARGUMENT,
            "variants[0].variant_id",
        ),
        (
            lamp(Variant(sku=sku, price=price(1), attributes={"size:EU": "42"})),
            Code.INVALID_ARGUMENT,
            'variants[0].attributes["size:EU"]',
        ),
        (
            lamp(Variant(sku=sku, price=price(1)), Variant(sku=sku, price=price(1))),
            Code.INVALID_ARGUMENT,
            "variants[1].sku",
        ),
        (
            lamp(Variant(sku=sku, price=price(1)), Variant(sku=taken, price=price(1))),
            Code.ALREADY_EXISTS,
            "variants[1].sku",
        ),
    ]:
        with pytest.raises(RemoteError) as refused:
            await create(staff, wrong)
        assert (refused.value.code, set(fields_of(refused))) == (code, {field})


async def test_a_sku_is_one_however_it_is_typed(staff: CatalogServiceStub) -> None:
    sku = f"Lamp-caf\u00e9-{uuid4()}"
    created = await create(staff, lamp(Variant(sku=f" {sku}\t", price=price(1))))
    assert created.variants[0].sku == sku
    for typed in (sku, f"{sku} ", sku.upper(), sku.replace("\u00e9", "e\u0301")):
        with pytest.raises(RemoteError) as refused:
            await create(staff, lamp(Variant(sku=typed, price=price(1))))
        assert (refused.value.reason, fields_of(refused)) == ("SKU_TAKEN", ["variants[0].sku"])
        both = lamp(*(Variant(sku=f"{each}-2", price=price(1)) for each in (sku, typed.strip())))
        with pytest.raises(RemoteError) as refused:
            await create(staff, both)
        assert fields_of(refused) == ["variants[1].sku"]


async def test_what_staff_types_is_put_in_order(
    staff: CatalogServiceStub, nobody: CatalogServiceStub
) -> None:
    category = uuid4().hex
    variant = Variant(
        sku=uuid4().hex, price=price(1), attributes={" colour": "red\u00a0"}, images=["a.jpg\n"]
    )
    created = await create(
        staff,
        lamp(
            variant, name=" Lamp ", category=f"{category} ", tags=["new "], description="One.\nTwo.\n",
            specifications={"socket ": " E27"},
        ),
    )  # fmt: skip
    assert (created.name, created.category, created.description) == ("Lamp", category, "One.\nTwo.")
    assert (list(created.tags), dict(created.specifications)) == (["new"], {"socket": "E27"})
    assert dict(created.variants[0].attributes) == {"colour": "red"}
    assert list(created.variants[0].images) == ["a.jpg"]
    found = await nobody.ListProducts(ListProductsRequest(category=f" {category}", tag="new\t"))
    assert [product.product_id for product in found.products] == [created.product_id]
    with pytest.raises(RemoteError) as refused:
        await create(staff, lamp(tags=["new", "new "]))
    assert fields_of(refused) == ["tags"]


async def test_pages_are_walked_with_their_tokens(
    staff: CatalogServiceStub, nobody: CatalogServiceStub
) -> None:
    shelf = uuid4().hex
    written = [(await create(staff, lamp(category=shelf))).product_id for _ in range(5)]
    request = ListProductsRequest(category=shelf, page_size=2)
    seen, pages = [], 0
    while True:
        page = await nobody.ListProducts(request)
        seen += [product.product_id for product in page.products]
        pages += 1
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert (seen, pages) == (written[::-1], 3)
    for wrong in (
        ListProductsRequest(page_token=request.page_token),
        ListProductsRequest(category=shelf, brand="Lux", page_token=request.page_token),
        ListProductsRequest(category=shelf, page_token="made-up"),
    ):
        with pytest.raises(RemoteError) as refused:
            await nobody.ListProducts(wrong)
        assert (refused.value.code, fields_of(refused)) == (Code.INVALID_ARGUMENT, ["page_token"])


async def test_a_list_is_narrowed_by_price(staff: CatalogServiceStub, nobody: CatalogServiceStub) -> None:
    shelf = uuid4().hex
    for units in (5, 50):
        await create(staff, lamp(Variant(sku=uuid4().hex, price=price(units)), category=shelf))

    async def count(min_price: str = "", max_price: str = "") -> int:
        request = ListProductsRequest(category=shelf, min_price=min_price, max_price=max_price)
        return len((await nobody.ListProducts(request)).products)

    assert await count() == 2
    assert await count(min_price="5.01") == 1
    assert await count(min_price="5", max_price="5.00") == 1
    assert await count(min_price="6", max_price="49") == 0
    for wrong, field in (
        ({"min_price": "9", "max_price": "1"}, "min_price"),
        ({"max_price": "-1"}, "max_price"),
    ):
        with pytest.raises(RemoteError) as refused:
            await count(**wrong)
        assert (refused.value.code, fields_of(refused)) == (Code.INVALID_ARGUMENT, [field])


async def test_an_update_takes_what_it_is_sent_for_the_whole(
    staff: CatalogServiceStub, nobody: CatalogServiceStub
) -> None:
    created = await create(staff, lamp(tags=["a", "b"], specifications={"socket": "E27"}, brand="Lux"))
    (variant,) = created.variants
    fewer = Product(name="Lamp", category="home", tags=["b"], etag=created.etag)
    for variants, field in (
        ([Variant(variant_id=variant.variant_id, sku=variant.sku)], "variants[0].price"),
        ([], "variants"),
    ):
        asked = Product(variants=variants)
        asked.MergeFrom(fewer)
        with pytest.raises(RemoteError) as refused:
            await staff.UpdateProduct(UpdateProductRequest(product_id=created.product_id, product=asked))
        assert fields_of(refused) == [field]
        read = await nobody.GetProduct(GetProductRequest(product_id=created.product_id))
        assert read.product == created
    fewer.variants.add(sku=variant.sku, price=price(7))  # without its id, as it was created
    await staff.UpdateProduct(UpdateProductRequest(product_id=created.product_id, product=fewer))
    changed = (await nobody.GetProduct(GetProductRequest(product_id=created.product_id))).product
    assert (list(changed.tags), dict(changed.specifications), changed.brand) == (["b"], {}, "")
    assert [(each.variant_id, each.price.units) for each in changed.variants] == [(variant.variant_id, 7)]


async def test_a_deleted_product_is_not_found(staff: CatalogServiceStub, nobody: CatalogServiceStub) -> None:
    product_id = (await create(staff)).product_id
    for _ in range(2):
        await staff.DeleteProduct(DeleteProductRequest(product_id=product_id))
    with pytest.raises(RemoteError) as refused:
        await nobody.GetProduct(GetProductRequest(product_id=product_id))
    assert (refused.value.code, refused.value.reason) == (Code.NOT_FOUND, "PRODUCT_NOT_FOUND")
    with pytest.raises(RemoteError) as refused:
        await staff.DeleteProduct(DeleteProductRequest(product_id=str(new_id())))
    assert refused.value.code is Code.NOT_FOUND


async def test_several_products_are_read_at_once(
    staff: CatalogServiceStub, nobody: CatalogServiceStub
) -> None:
    one, two = (await create(staff)).product_id, (await create(staff)).product_id
    response = await nobody.BatchGetProducts(
        BatchGetProductsRequest(product_ids=[two, str(new_id()), one, two])
    )
    assert [product.product_id for product in response.products] == [two, one]


async def test_categories_are_listed(staff: CatalogServiceStub, nobody: CatalogServiceStub) -> None:
    shelf = uuid4().hex
    await create(staff, lamp(category=shelf, subcategory="lights"))
    response = await nobody.ListCategories(ListCategoriesRequest())
    (found,) = [category for category in response.categories if category.name == shelf]
    assert (found.product_count, list(found.subcategories)) == (1, ["lights"])


async def test_without_the_documents_a_catalogue_shows_what_it_knows_and_says_what_it_cannot() -> None:
    product = model.Product.create(details("Known", "home"), [draft()], NOW)
    async with AsyncMongoClient[Document]("mongodb://127.0.0.1:1", serverSelectionTimeoutMS=100) as nowhere:
        collection = nowhere["lost"]["products"]
        outbox = MongoOutbox(collection, NoRegistry(""), Producer("127.0.0.1:1"))
        uow = mongo_unit_of_work(collection, outbox, repository.open_tx)
        lost = Catalog(Store(uow, repository.ProductReader(collection), nothing_published), present)
        await lost.projector.project(product)
        async with serving(lost) as server:
            nobody = server.stub(CatalogServiceStub)
            staff = server.stub(CatalogServiceStub, as_user=new_id(), staff=True)
            known = GetProductRequest(product_id=str(product.product_id))
            assert (await nobody.GetProduct(known)).product.name == "Known"
            (listed,) = (await nobody.ListProducts(ListProductsRequest(category="home"))).products
            assert listed.name == "Known"
            for call in (
                nobody.GetProduct(GetProductRequest(product_id=str(new_id()))),
                staff.GetProduct(known),
                staff.CreateProduct(CreateProductRequest(product=lamp())),
            ):
                with pytest.raises(RemoteError) as refused:
                    await call
                assert refused.value.code is Code.UNAVAILABLE


class NoRegistry(EventCodec):
    """Encodes events without their schemas."""

    def encode(self, event: Event[Payload]) -> bytes:
        return b""


async def nothing_published(product_id: UUID) -> list[Payload]:
    return []


async def test_what_staff_wrote_is_read_back_through_another_process(
    process: Process, staff: CatalogServiceStub
) -> None:
    created = await create(staff)
    async with serving(process.another_process()) as another:
        asked = GetProductRequest(product_id=created.product_id)
        writer = another.stub(CatalogServiceStub, as_user=new_id(), staff=True)
        for name in ("Better lamp", "Best lamp"):
            read = (await writer.GetProduct(asked)).product
            changed = Product(name=name, category="home", variants=read.variants, etag=read.etag)
            await staff.UpdateProduct(UpdateProductRequest(product_id=created.product_id, product=changed))
            assert (await writer.GetProduct(asked)).product.name == name
        # One who writes nothing finds what is new at once.
        newest = await create(staff)
        shopper = another.stub(CatalogServiceStub)
        found = await shopper.GetProduct(GetProductRequest(product_id=newest.product_id))
        assert found.product == newest


def test_several_products_have_the_number_of_the_one() -> None:
    numbers = {
        type_.DESCRIPTOR.fields_by_name[field].number
        for type_, field in (
            (GetProductResponse, "product"),
            (ListProductsResponse, "products"),
            (BatchGetProductsResponse, "products"),
        )
    }
    assert len(numbers) == 1


def test_the_form_of_views_is_another_one_when_their_messages_have_other_fields() -> None:
    messages = (Product.DESCRIPTOR, Variant.DESCRIPTOR, Rating.DESCRIPTOR)
    assert form_of(*messages) == FORM
    assert len({form_of(*messages[:count]) for count in range(4)}) == 4
