"""`stoa bench --million`: what reads cost in a shop of a million products.

The products are generated. They are put into the read model in the way in which an upgrade fills it; the
first of them into the document store as well, whose stand-in can't hold a million (docs/adr/0028). So the
comparison of all products that is timed reads generated documents, not stored ones.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import uvloop
from rich.console import Console

from stoa_catalog.api import FORM, present
from stoa_catalog.hot_set import HotSet
from stoa_catalog.model import Details, Product, Variant
from stoa_catalog.projector import Projector
from stoa_catalog.repository import new_document, products_of
from stoa_catalog.shared_read_model import SharedReadModel
from stoa_chassis import mongo
from stoa_chassis.postgres import Database
from stoa_contracts.money import Money
from stoa_load.command import chosen, play
from stoa_load.load import Act, Http
from stoa_load.scenarios import SCENARIOS, Actors, Bench, Play, Scenario, connected, loop
from stoa_rest import GET_PRODUCT, LIST_PRODUCTS
from stoa_stack.instance import CHECKOUT, Instance
from stoa_stack.running import memory_mb, processes_of
from stoa_stack.servers import postgres
from stoa_stack.servers.mongo import mongo_url
from stoa_stack.status import Status, status_file
from stoa_stack.throwaway import throwaway

_STATE = CHECKOUT / ".stoa-million"
_IN_DOCUMENTS = 5_000  # of them
_BATCH = 500
_SECONDS_WITHOUT_COMPARING = 1_000_000  # else what has no document would be dropped
_BASELINES = ("direct", "empty")

_CATEGORIES, _SUBCATEGORIES, _BRANDS, _TAGS = 40, 12, 3_000, 200
_SINCE = datetime(2024, 1, 1, tzinfo=UTC)
_WORDS = tuple(
    f"{first}{second}"
    for first in (
        "al",
        "bor",
        "cin",
        "dra",
        "el",
        "fon",
        "gil",
        "hul",
        "is",
        "jor",
        "kal",
        "lum",
        "mor",
        "nex",
    )
    for second in ("ba", "do", "fix", "gen", "lo", "mi", "nor", "pa", "qui", "ras", "sol", "tan", "va", "wen")
)


@dataclass(frozen=True)
class Generated:
    """So many products, always the same, as the read model takes them from the documents."""

    count: int
    currency: str

    async def walk(self, after: UUID | None = None, limit: int = 0) -> AsyncIterator[Product]:
        """Walk through all products, oldest first, from the one after another; at most so many, if any."""
        first = 0 if after is None else _number(after) + 1
        last = min(self.count, first + limit) if limit else self.count
        for number in range(first, last):
            yield self.product(number)

    async def batch(self, product_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return those products that there are."""
        return [self.product(_number(each)) for each in product_ids if _number(each) < self.count]

    async def with_variants(self, variant_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return the products that have any of these variants."""
        return await self.batch({product_id(_number(each) // 10) for each in variant_ids})

    def product(self, number: int) -> Product:
        """Make a product: a few categories have most of them, and of the brands a few as well."""
        chance = random.Random(number)
        category = category_of(int(chance.paretovariate(0.8)) % _CATEGORIES)
        price = Decimal(round(100 * chance.lognormvariate(3.5, 1)) + 99).scaleb(-2)
        at = _SINCE + timedelta(milliseconds=number)
        return Product(
            product_id=product_id(number),
            version=1,
            details=Details(
                name=" ".join(chance.choices(_WORDS, k=4)),
                category=category,
                description=" ".join(chance.choices(_WORDS, k=50)),
                subcategory=f"{category} {chance.randrange(_SUBCATEGORIES)}",
                brand=brand_of(int(chance.paretovariate(0.6)) % _BRANDS),
                tags=tuple(map(tag_of, chance.sample(range(_TAGS), 3))),
                specifications={"material": chance.choice(_WORDS), "weight": f"{chance.randrange(2_000)} g"},
            ),
            variants=tuple(
                Variant(
                    _uuid(number, 10 * number + at_),
                    f"GEN-{number}-{at_}",
                    Money(price + at_, self.currency),
                    {"colour": chance.choice(_WORDS), "size": "SML"[at_]},
                    (f"https://images.example/{number}/{at_}.jpg",),
                )
                for at_ in range(chance.choice((1, 1, 2, 3)))
            ),
            created_at=at,
            updated_at=at,
        )


def product_id(number: int) -> UUID:
    """The id of a product: a UUIDv7, in the order of their numbers."""
    return _uuid(number, number)


def category_of(number: int) -> str:
    """The name of a category."""
    return f"Category {number}"


def brand_of(number: int) -> str:
    """The name of a brand."""
    return f"Brand {number}"


def tag_of(number: int) -> str:
    """A tag."""
    return f"tag {number}"


def _uuid(milliseconds: int, rest: int) -> UUID:
    since = int(_SINCE.timestamp() * 1000) + milliseconds
    return UUID(int=since << 80 | 7 << 76 | 2 << 62 | rest)


def _number(given: UUID) -> int:
    return given.int & ((1 << 62) - 1)


# ------------------------------------------------------------------------------------------------- loading


async def load(at: Instance, products: Generated, console: Console) -> dict[str, Any]:
    """Fill the read model, compare it with what it was made of, and put some into the documents."""
    async with Database.connect(postgres.database_url(at, "catalog")) as database:
        model = SharedReadModel(database)
        projector = Projector(products, model, HotSet[bytes](1, len), present, "generated")
        loaded = await _timed("filling the read model", projector.upgrade, console)
        compared = await _timed("comparing all of it", projector.rebuild, console)
        await model.has_form(FORM)
    owner = await asyncpg.connect(postgres.superuser_url(at, "catalog"))
    try:
        await owner.execute("VACUUM ANALYZE")
        tables = await owner.fetch(
            "SELECT relname, pg_total_relation_size(oid) / 1048576 AS mb FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC LIMIT 4"
        )
        size = await owner.fetchval("SELECT pg_database_size('catalog') / 1048576")
    finally:
        await owner.close()
    async with mongo.connect(mongo_url(at)) as client:
        documents = products_of(client["catalog"])
        for start in range(0, min(products.count, _IN_DOCUMENTS), _BATCH):
            numbers = range(start, min(products.count, _IN_DOCUMENTS, start + _BATCH))
            await documents.insert_many(
                [{"_id": product_id(n), **new_document(products.product(n))} for n in numbers]
            )
    return {
        "products": products.count,
        "load_s": loaded,
        "compare_s": compared,
        "database_mb": int(size),
        "tables_mb": {row["relname"]: int(row["mb"]) for row in tables},
    }


async def _timed(what: str, work: Callable[[], Any], console: Console) -> float:
    console.print(f"{what} …")
    began = time.perf_counter()
    await work()
    taken = time.perf_counter() - began
    console.print(f"{what}: {taken:.0f} s")
    return round(taken, 1)


def memory(at: Instance) -> dict[str, int]:
    """Megabytes of the service and the database, pages that processes share counted once."""
    status = Status.read(status_file(at)) or Status()
    return {
        f"{part}_mb": round(memory_mb(processes_of(status.parts[part]))) for part in ("catalog", "postgres")
    }


# ------------------------------------------------------------------------------------------------ scenarios


def asking(target: Callable[[random.Random], str]) -> Actors:
    """Ask for something else each time."""

    @asynccontextmanager
    async def actors(bench: Bench, count: int) -> AsyncIterator[list[Act]]:
        async with connected(bench.shop.at.edge_url, count) as opened:
            yield [_asker(client, target, number) for number, client in enumerate(opened)]

    return actors


def _asker(client: Http, target: Callable[[random.Random], str], number: int) -> Act:
    chance = random.Random(f"{number} {time.time_ns()}")  # what was asked for before is held
    return lambda: client.send(client.encode("GET", target(chance)))


def scenarios(count: int) -> tuple[Scenario, ...]:
    """What is measured in a shop of so many products."""

    def filters(**others: Callable[[random.Random], str]) -> Callable[[random.Random], str]:
        # No two are the same, so that none is answered from what a process holds.
        def target(chance: random.Random) -> str:
            asked = {name: value(chance) for name, value in others.items()}
            return LIST_PRODUCTS.target(page_size=20, **{"max_price": any_price(chance)} | asked)

        return target

    def any_price(chance: random.Random) -> str:
        return f"{chance.randrange(500_000, 10**9) / 100}"

    def category(chance: random.Random) -> str:
        return category_of(chance.randrange(_CATEGORIES))

    def brand(chance: random.Random) -> str:
        return brand_of(int(chance.paretovariate(0.6)) % _BRANDS)

    def tag(chance: random.Random) -> str:
        return tag_of(chance.randrange(_TAGS))

    def low(chance: random.Random) -> str:
        return f"{chance.randrange(500, 5_000) / 100}"

    def high(chance: random.Random) -> str:
        return f"{chance.randrange(5_000, 20_000) / 100}"

    def section(chance: random.Random) -> str:
        number = chance.randrange(_CATEGORIES)
        return LIST_PRODUCTS.target(
            page_size=20,
            category=category_of(number),
            subcategory=f"{category_of(number)} {chance.randrange(_SUBCATEGORIES)}",
            max_price=any_price(chance),
        )

    def hot(chance: random.Random) -> str:
        return GET_PRODUCT.target(str(product_id(chance.randrange(50))))

    def cold(chance: random.Random) -> str:
        return GET_PRODUCT.target(str(product_id(chance.randrange(count))))

    def within_a_cent(chance: random.Random) -> str:
        price = f"{chance.randrange(5_000, 20_000) / 100}"
        return LIST_PRODUCTS.target(page_size=20, category=category(chance), min_price=price, max_price=price)

    def lists(target: Callable[[random.Random], str]) -> Play:
        return loop(asking(target), 8)

    return (
        *(scenario for scenario in SCENARIOS if scenario.name in _BASELINES),
        Scenario("hot-product", "GET one of 50 products", loop(asking(hot), 8)),
        Scenario("cold-product", f"GET one of {count:,} products", loop(asking(cold), 8)),
        Scenario("hot-list", "GET a list of 20, the same",
                 lists(lambda _: LIST_PRODUCTS.target(page_size=20))),
        Scenario("newest", "GET 20 below a price", lists(filters())),
        Scenario("by-category", "GET 20 of a category", lists(filters(category=category))),
        Scenario("by-price", "GET 20 of a category within prices",
                 lists(filters(category=category, min_price=low, max_price=high))),
        Scenario("by-subcategory", "GET 20 of a subcategory", lists(section)),
        Scenario("by-brand", "GET 20 of a brand", lists(filters(brand=brand))),
        Scenario("by-tag", "GET 20 with a tag", lists(filters(tag=tag))),
        Scenario("by-two", "GET 20 of a category and a brand",
                 lists(filters(category=category, brand=brand))),
        Scenario("by-three", "GET 20 of a category with a tag within prices",
                 lists(filters(category=category, tag=tag, min_price=low, max_price=high))),
        Scenario("worst", "GET 20 of a category within a cent",
                 lists(within_a_cent)),
    )  # fmt: skip


def command(console: Console, names: Sequence[str], seconds: float, file: Path | None, count: int) -> int:
    """Load so many products into a shop made for it, and play the named scenarios or all.

    Returns 1 if a request failed, 2 if a name is unknown.
    """
    to_play = chosen(console, names, scenarios(count))
    if not to_play:
        return 2
    settings = {
        "STOA_RATE_LIMITS": "off",
        "STOA_CATALOG__RECONCILE_SECONDS": str(_SECONDS_WITHOUT_COMPARING),
    }
    with throwaway(console, _STATE, settings) as at:
        return uvloop.run(_measure(at, console, to_play, seconds, file, count))


async def _measure(
    at: Instance, console: Console, to_play: Sequence[Scenario], seconds: float, file: Path | None, count: int
) -> int:
    before = memory(at)
    loaded = await load(at, Generated(count, at.currency), console)
    path = file or at.folder("bench") / "bench.jsonl"
    failed = await play(at, console, to_play, seconds, path)
    for name, fact in (loaded | {f"{key}_before": mb for key, mb in before.items()} | memory(at)).items():
        console.print(f"{name}: {fact}")
    return failed
