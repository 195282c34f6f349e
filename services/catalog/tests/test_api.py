"""The catalogue over gRPC: contract, policies, errors with details."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.type.money_pb2 import Money
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection

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
    RebuildReadModelRequest,
    UpdateProductRequest,
    Variant,
)
from stoa.catalog.v1.catalog_pb2_grpc import CatalogServiceStub, add_CatalogServiceServicer_to_server
from stoa_catalog.api import CatalogServicer, present
from stoa_catalog.replay import Unreachable, addresses, replay
from stoa_chassis.avro import EventCodec
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.ids import new_id
from stoa_chassis.kafka import Producer
from stoa_chassis.testing import InProcessServer, serve_in_process

from .conftest import Catalog, details, draft

pytestmark = pytest.mark.stack


@pytest.fixture
def catalog(collection: AsyncCollection[dict[str, Any]], codec: EventCodec, producer: Producer) -> Catalog:
    return Catalog(collection, codec, producer, present)


@pytest.fixture
async def server(catalog: Catalog) -> AsyncIterator[InProcessServer]:
    servicer = servicer_of(catalog)
    async with serve_in_process(add_CatalogServiceServicer_to_server, servicer, name="catalog") as in_process:
        yield in_process


@pytest.fixture
def staff(server: InProcessServer) -> Any:
    return server.stub(CatalogServiceStub, as_user=new_id(), staff=True)


@pytest.fixture
def nobody(server: InProcessServer) -> Any:
    return server.stub(CatalogServiceStub)


def servicer_of(catalog: Catalog, workers: int = 1) -> CatalogServicer:
    return CatalogServicer(catalog.browsing, catalog.assortment, catalog.projector, workers)


def price(units: int, nanos: int = 0, currency: str = "USD") -> Money:
    return Money(currency_code=currency, units=units, nanos=nanos)


def lamp(*variants: Variant, **changes: Any) -> Product:
    fields = {
        "name": "Lamp",
        "category": "home",
        "variants": variants or (Variant(sku=uuid4().hex, price=price(19, 900_000_000)),),
    }
    return Product(**(fields | changes))


async def create(staff: Any, product: Product | None = None) -> Product:
    created = await staff.CreateProduct(CreateProductRequest(product=product or lamp()))
    return created.product


def fields_of(error: pytest.ExceptionInfo[RemoteError]) -> list[str]:
    return [violation.field for violation in error.value.violations]


async def test_staff_writes_and_everybody_reads(staff: Any, nobody: Any) -> None:
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


async def test_only_staff_writes(server: InProcessServer, nobody: Any) -> None:
    customer: Any = server.stub(CatalogServiceStub, as_user=new_id())
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
    server: InProcessServer, staff: Any, nobody: Any
) -> None:
    created = await create(staff)
    request = BatchGetVariantsRequest(variant_ids=[created.variants[0].variant_id, str(new_id())])
    for service in ("cart", "order", "inventory"):
        stub: Any = server.stub(CatalogServiceStub, as_service=service)
        (entry,) = (await stub.BatchGetVariants(request)).variants
        assert (entry.product_id, entry.product_name) == (created.product_id, "Lamp")
        assert entry.variant == created.variants[0]
    for stub in (nobody, staff, server.stub(CatalogServiceStub, as_service="payment")):
        with pytest.raises(RemoteError) as refused:
            await stub.BatchGetVariants(request)
        assert refused.value.code is Code.PERMISSION_DENIED


async def test_an_update_needs_the_etag_of_the_latest_version(staff: Any, nobody: Any) -> None:
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
    assert (refused.value.code, fields_of(refused)) == (Code.INVALID_ARGUMENT, ["product"])
    # The answer of the first may have got lost.
    assert await put(created.etag, "Better lamp") == updated
    read = (await nobody.GetProduct(GetProductRequest(product_id=created.product_id))).product
    assert read == updated


async def test_a_wrong_field_of_a_product_is_named(staff: Any) -> None:
    taken = (await create(staff)).variants[0].sku
    sku = uuid4().hex
    for wrong, code, field in [
        (lamp(name=""), Code.INVALID_ARGUMENT, "product.name"),
        (lamp(Variant(sku=sku, price=price(0))), Code.INVALID_ARGUMENT, "product.variants[0].price"),
        (lamp(Variant(sku=sku, price=price(1, 1))), Code.INVALID_ARGUMENT, "product.variants[0].price"),
        (
            lamp(Variant(sku=sku, price=price(1, 0, "EUR"))),
            Code.INVALID_ARGUMENT,
            "product.variants[0].price",
        ),
        (
            lamp(Variant(sku=sku, price=price(1), variant_id=str(new_id()))),
            Code.INVALID_ARGUMENT,
            "product.variants[0].variant_id",
        ),
        (
            lamp(Variant(sku=sku, price=price(1)), Variant(sku=sku, price=price(1))),
            Code.INVALID_ARGUMENT,
            "product.variants[1].sku",
        ),
        (
            lamp(Variant(sku=sku, price=price(1)), Variant(sku=taken, price=price(1))),
            Code.ALREADY_EXISTS,
            "product.variants[1].sku",
        ),
    ]:
        with pytest.raises(RemoteError) as refused:
            await create(staff, wrong)
        assert (refused.value.code, set(fields_of(refused))) == (code, {field})


async def test_pages_are_walked_with_their_tokens(staff: Any, nobody: Any) -> None:
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


async def test_a_list_is_narrowed_by_price(staff: Any, nobody: Any) -> None:
    shelf = uuid4().hex
    for units in (5, 50):
        await create(staff, lamp(Variant(sku=uuid4().hex, price=price(units)), category=shelf))

    async def count(**bounds: str) -> int:
        return len((await nobody.ListProducts(ListProductsRequest(category=shelf, **bounds))).products)

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


async def test_a_deleted_product_is_not_found(staff: Any, nobody: Any) -> None:
    product_id = (await create(staff)).product_id
    for _ in range(2):
        await staff.DeleteProduct(DeleteProductRequest(product_id=product_id))
    with pytest.raises(RemoteError) as refused:
        await nobody.GetProduct(GetProductRequest(product_id=product_id))
    assert (refused.value.code, refused.value.reason) == (Code.NOT_FOUND, "PRODUCT_NOT_FOUND")
    with pytest.raises(RemoteError) as refused:
        await staff.DeleteProduct(DeleteProductRequest(product_id=str(new_id())))
    assert refused.value.code is Code.NOT_FOUND


async def test_several_products_are_read_at_once(staff: Any, nobody: Any) -> None:
    one, two = (await create(staff)).product_id, (await create(staff)).product_id
    response = await nobody.BatchGetProducts(
        BatchGetProductsRequest(product_ids=[two, str(new_id()), one, two])
    )
    assert [product.product_id for product in response.products] == [two, one]


async def test_categories_are_listed(staff: Any, nobody: Any) -> None:
    shelf = uuid4().hex
    await create(staff, lamp(category=shelf, subcategory="lights"))
    response = await nobody.ListCategories(ListCategoriesRequest())
    (found,) = [category for category in response.categories if category.name == shelf]
    assert (found.product_count, list(found.subcategories)) == (1, ["lights"])


async def test_without_its_store_a_catalogue_shows_what_it_knows_and_says_what_it_cannot(
    catalog: Catalog,
) -> None:
    product = await catalog.assortment.create(details("Known", category := uuid4().hex), [draft()])
    async with AsyncMongoClient("mongodb://127.0.0.1:1", serverSelectionTimeoutMS=100) as nowhere:
        lost = Catalog(nowhere["lost"]["products"], catalog.codec, catalog.producer, present)
        lost.projector.apply(product)
        async with serve_in_process(
            add_CatalogServiceServicer_to_server, servicer_of(lost), name="catalog"
        ) as server:
            nobody: Any = server.stub(CatalogServiceStub)
            staff: Any = server.stub(CatalogServiceStub, as_user=new_id(), staff=True)
            known = GetProductRequest(product_id=str(product.product_id))
            assert (await nobody.GetProduct(known)).product.name == "Known"
            (listed,) = (await nobody.ListProducts(ListProductsRequest(category=category))).products
            assert listed.name == "Known"
            for call in (
                nobody.GetProduct(GetProductRequest(product_id=str(new_id()))),
                staff.GetProduct(known),
                staff.CreateProduct(CreateProductRequest(product=lamp())),
            ):
                with pytest.raises(RemoteError) as refused:
                    await call
                assert refused.value.code is Code.UNAVAILABLE


async def test_what_staff_wrote_is_read_back_through_another_process(
    catalog: Catalog, server: InProcessServer, staff: Any
) -> None:
    created = await create(staff)
    other = Catalog(catalog.collection, catalog.codec, catalog.producer, present)
    await other.projector.load()
    async with serve_in_process(
        add_CatalogServiceServicer_to_server, servicer_of(other), name="catalog"
    ) as another:
        asked = GetProductRequest(product_id=created.product_id)
        writer: Any = another.stub(CatalogServiceStub, as_user=new_id(), staff=True)
        for name in ("Better lamp", "Best lamp"):
            read = (await writer.GetProduct(asked)).product
            changed = Product(name=name, category="home", variants=read.variants, etag=read.etag)
            await staff.UpdateProduct(UpdateProductRequest(product_id=created.product_id, product=changed))
            assert (await writer.GetProduct(asked)).product.name == name
        # One who writes nothing finds what is new at once, though not yet what changed.
        newest = await create(staff)
        shopper: Any = another.stub(CatalogServiceStub)
        found = await shopper.GetProduct(GetProductRequest(product_id=newest.product_id))
        assert found.product == newest


async def test_several_products_have_the_number_of_the_one(staff: Any) -> None:
    numbers = {
        type_.DESCRIPTOR.fields_by_name[field].number
        for type_, field in (
            (GetProductResponse, "product"),
            (ListProductsResponse, "products"),
            (BatchGetProductsResponse, "products"),
        )
    }
    assert len(numbers) == 1


async def test_a_replay_rebuilds_every_process_at_an_address_and_tells_what_was_wrong(
    catalog: Catalog, server: InProcessServer, staff: Any, nobody: Any
) -> None:
    right = [await create(staff) for _ in range(3)]
    wrong, lost, bogus = (UUID(product.product_id) for product in right)
    model = catalog.projector.model
    listing = model.get(wrong)
    assert listing is not None
    await catalog.projector.load()
    model.put(replace(listing, view=b""))
    model.forget(lost)
    model.put(replace(model.get(bogus), version=99, prices=()))  # type: ignore[type-var]
    certificates = server.certificates("catalog")

    (rebuilt,) = await replay(server.target, certificates)

    assert set(rebuilt.differed) == {str(wrong), str(lost), str(bogus)}
    assert rebuilt.replayed == await catalog.collection.count_documents({"deleted_at": None})
    for product in right:
        read = await nobody.GetProduct(GetProductRequest(product_id=product.product_id))
        assert read.product == product
    (again,) = await replay(server.target, certificates)
    assert (again.replayed, list(again.differed)) == (rebuilt.replayed, [])


@asynccontextmanager
async def one_address_for(*targets: str) -> AsyncIterator[str]:
    """An address whose connections go to one of the targets, as the kernel deals them out to workers."""
    turn = count()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = targets[next(turn) // 2 % len(targets)].split(":")
        their_reader, their_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, their_writer), pump(their_reader, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_replay_meets_all_processes_that_share_an_address(
    catalog: Catalog, server: InProcessServer
) -> None:
    async with AsyncExitStack() as stack:
        targets = []
        for _ in range(3):
            process = Catalog(catalog.collection, catalog.codec, catalog.producer, present)
            running = await stack.enter_async_context(
                serve_in_process(
                    add_CatalogServiceServicer_to_server, servicer_of(process, workers=3), name="catalog"
                )
            )
            targets.append(running.target)
        address = await stack.enter_async_context(one_address_for(*targets))
        rebuilt = await replay(address, server.certificates("catalog"))
        assert len({answer.instance for answer in rebuilt}) == 3
        lonely = await stack.enter_async_context(one_address_for(*targets[:2]))
        with pytest.raises(Unreachable):
            await replay(lonely, server.certificates("catalog"))


async def test_only_the_catalogue_itself_may_have_it_rebuilt(server: InProcessServer, staff: Any) -> None:
    request = RebuildReadModelRequest(run_id=str(new_id()))
    for stub in (staff, server.stub(CatalogServiceStub, as_service="cart")):
        with pytest.raises(RemoteError) as refused:
            await stub.RebuildReadModel(request)
        assert refused.value.code is Code.PERMISSION_DENIED


def test_a_name_stands_for_all_its_addresses() -> None:
    assert list(addresses("127.0.0.1:18101, 127.0.0.2:18101")) == ["127.0.0.1:18101", "127.0.0.2:18101"]
    assert "127.0.0.1:18101" in addresses("localhost:18101")
