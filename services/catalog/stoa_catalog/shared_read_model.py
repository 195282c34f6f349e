"""The read model in PostgreSQL, shared by all processes: it has every product, so none of them has to.

It is made from the documents alone. The order in which revisions of a product come does not matter: an
earlier one never replaces a later one, nor brings a product back that was taken off sale. Every change is
told to all processes as it is committed (NOTIFY), so that they forget what they hold of the product. Why
here, and what it costs: docs/adr/0028.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg

from stoa_catalog.model import Category, Filters
from stoa_catalog.read_model import Entry, Listing, categories_of
from stoa_chassis.postgres import CONNECTION_ERRORS, Database, any_of
from stoa_chassis.telemetry import get_logger

_log = get_logger(__name__)
_CHANNEL = "products"
_LOCK = 0x636174616C6F67  # of who compares the whole read model: any number, the same for all processes
_TOLD_ONE_BY_ONE = 100  # changes; of more at once is told that there were many
_CHECK_SECONDS = 10.0  # between looks at whether the connection that tells of changes still answers
_AGAIN_SECONDS = 0.5
_LOST: tuple[type[Exception], ...] = (*CONNECTION_ERRORS, TimeoutError)

_ENTRY = "product_id, revision, on_sale, name, variant_ids, view"
_READ = f"SELECT {_ENTRY} FROM products WHERE product_id = {any_of('$1')}"
_READ_WITH_VARIANTS = f"SELECT {_ENTRY} FROM products WHERE variant_ids && $1::uuid[]"
_READ_SECTIONS = "SELECT category, subcategory, products FROM sections WHERE products > 0"
# Of a product that was taken off sale there is no listing: what it was found by does not matter any more.
_READ_LISTINGS = f"""
SELECT {_ENTRY}, category, subcategory, brand, tags, prices
FROM products LEFT JOIN listings USING (product_id)
"""
_READ_LISTINGS_OF = f"{_READ_LISTINGS} WHERE product_id = {any_of('$1')}"
_READ_LISTINGS_BETWEEN = f"""
{_READ_LISTINGS} WHERE product_id > $1 AND product_id <= $2 ORDER BY product_id LIMIT $3
"""
_LOWEST, _HIGHEST = UUID(int=0), UUID(int=2**128 - 1)

# What a comparison found to be wrong has no revision that could be relied on.
_DISTRUST = """
UPDATE products AS p SET revision = -1 FROM unnest($1::uuid[], $2::bigint[]) AS seen (product_id, revision)
WHERE p.product_id = seen.product_id AND p.revision = seen.revision
"""
# In the order of their ids, so that two who write several wait for each other in the same order.
_WRITE = """
INSERT INTO products AS p (product_id, revision, on_sale, name, variant_ids, view)
SELECT product_id, revision, on_sale, name, variant_ids::uuid[], view
FROM unnest($1::uuid[], $2::bigint[], $3::boolean[], $4::text[], $5::text[], $6::bytea[])
    AS given (product_id, revision, on_sale, name, variant_ids, view)
ORDER BY product_id
ON CONFLICT (product_id) DO UPDATE
SET revision = excluded.revision, on_sale = excluded.on_sale, name = excluded.name,
    variant_ids = excluded.variant_ids, view = excluded.view
WHERE p.revision < excluded.revision
RETURNING product_id
"""
_DROP = """
DELETE FROM products AS p USING unnest($1::uuid[], $2::bigint[]) AS seen (product_id, revision)
WHERE p.product_id = seen.product_id AND p.revision = seen.revision
RETURNING p.product_id
"""
# After the statement that locked their rows in `products`: so it sees the listings as those before left them.
_LIST = """
WITH given AS MATERIALIZED (
    SELECT product_id, category, subcategory, brand, tags::text[], prices::numeric[], on_sale
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[])
        AS given (product_id, category, subcategory, brand, tags, prices, on_sale)
), listed AS MATERIALIZED (
    SELECT product_id, category, subcategory, tags FROM listings WHERE product_id = ANY ($1)
), put AS (
    INSERT INTO listings AS l (product_id, category, subcategory, brand, tags, prices, lowest, highest)
    SELECT product_id, category, subcategory, brand, tags, prices, prices[1], prices[cardinality(prices)]
    FROM given WHERE on_sale
    ON CONFLICT (product_id) DO UPDATE
    SET category = excluded.category, subcategory = excluded.subcategory, brand = excluded.brand,
        tags = excluded.tags, prices = excluded.prices, lowest = excluded.lowest, highest = excluded.highest
), taken AS (
    DELETE FROM listings AS l USING given WHERE l.product_id = given.product_id AND NOT given.on_sale
), tagged AS (
    INSERT INTO listing_tags (tag, product_id)
    SELECT tag, product_id FROM given, unnest(tags) AS tag WHERE on_sale
    ON CONFLICT DO NOTHING
), untagged AS (
    DELETE FROM listing_tags AS t USING listed JOIN given USING (product_id), unnest(listed.tags) AS was (tag)
    WHERE t.tag = was.tag AND t.product_id = listed.product_id
        AND NOT (given.on_sale AND was.tag = ANY (given.tags))
)
INSERT INTO sections AS s (category, subcategory, products)
SELECT category, subcategory, sum(more) FROM (
    SELECT category, subcategory, 1 AS more FROM given WHERE on_sale
    UNION ALL
    SELECT category, subcategory, -1 FROM listed
) AS changes
GROUP BY category, subcategory HAVING sum(more) <> 0 ORDER BY category, subcategory
ON CONFLICT (category, subcategory) DO UPDATE SET products = s.products + excluded.products
"""
_TELL = f"SELECT pg_notify('{_CHANNEL}', told::text) FROM unnest($1::text[]) AS told"

_TAKE_TURN = """
UPDATE comparison SET due_at = now() + make_interval(secs => $1) WHERE due_at <= now() RETURNING after
"""


class SharedReadModel:
    """The read model in PostgreSQL, of products whose views are bytes.

    Its methods raise Unavailable while the database can't be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------------------------------------------------- reading

    async def get(self, product_ids: Iterable[UUID]) -> Sequence[Entry[bytes]]:
        """Return what is known of these products, on sale or not."""
        return list(map(_entry, await self._database.fetch(_READ, list(product_ids))))

    async def with_variants(self, variant_ids: Iterable[UUID]) -> Sequence[Entry[bytes]]:
        """Return the products, on sale or not, that have any of these variants."""
        return list(map(_entry, await self._database.fetch(_READ_WITH_VARIANTS, list(variant_ids))))

    async def page(self, filters: Filters, before: UUID | None, limit: int) -> Sequence[Entry[bytes]]:
        """Return the newest products that pass the filters and are older than `before`."""
        query, arguments = _page(filters, before, limit)
        return list(map(_entry, await self._database.fetch(query, *arguments)))

    async def categories(self) -> Sequence[Category]:
        """Return all categories, by name."""
        return categories_of(map(tuple, await self._database.fetch(_READ_SECTIONS)))

    async def listings(self, product_ids: Iterable[UUID]) -> Mapping[UUID, Listing[bytes]]:
        """Return all that is known of these products."""
        return _by_id(await self._database.fetch(_READ_LISTINGS_OF, list(product_ids)))

    async def listings_between(
        self, after: UUID | None, upto: UUID | None, limit: int
    ) -> Mapping[UUID, Listing[bytes]]:
        """Return all that is known of the products whose ids are in a range, the lowest `limit` of them.

        They come in order; None has no bound.
        """
        bounds = after or _LOWEST, upto or _HIGHEST
        return _by_id(await self._database.fetch(_READ_LISTINGS_BETWEEN, *bounds, limit))

    # ------------------------------------------------------------------------------------------- writing

    async def put(
        self, listings: Sequence[Listing[bytes]], instead_of: Mapping[UUID, int] | None = None
    ) -> None:
        """Take in what is later than what is known, and tell every process of it.

        `instead_of` are revisions of products that were found to be wrong: they count for nothing.
        """
        async with self._database.transaction() as connection:
            if instead_of:
                await connection.execute(_DISTRUST, list(instead_of), list(instead_of.values()))
            entries = [listing.entry for listing in listings]
            rows = await connection.fetch(
                _WRITE,
                [entry.product_id for entry in entries],
                [entry.revision for entry in entries],
                [entry.on_sale for entry in entries],
                [entry.name for entry in entries],
                [_array(map(str, entry.variant_ids)) for entry in entries],
                [entry.view for entry in entries],
            )
            written = {row["product_id"] for row in rows}
            await _list(connection, [listing for listing in listings if listing.product_id in written])

    async def drop(self, seen: Mapping[UUID, int]) -> None:
        """Forget products of which there is no document, as if they had never been, if they are as seen."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_DROP, list(seen), list(seen.values()))
            gone = [Entry(row["product_id"], 0, False, "", (), b"") for row in rows]
            await _list(connection, list(map(Listing, gone)))

    # ------------------------------------------------------------------------------------ several processes

    async def follow(self, changed: Callable[[UUID], None], anything: Callable[[], None]) -> None:
        """Tell of each change, whichever process made it, until cancelled.

        `anything` is called where a change may have been missed: at first, after the connection was lost, and
        for very many changes at once.
        """

        def told(_: object, __: int, ___: str, what: object) -> None:
            changed(UUID(str(what))) if what else anything()

        while True:
            try:
                async with self._database.dedicated() as connection:
                    lost = asyncio.Event()
                    connection.add_termination_listener(lambda _, lost=lost: lost.set())
                    await connection.add_listener(_CHANNEL, told)
                    anything()
                    while not lost.is_set():
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(lost.wait(), _CHECK_SECONDS)
                        await connection.execute("SELECT 1", timeout=_CHECK_SECONDS)
            except _LOST as error:
                _log.warning("changes of products can't be followed now", error=repr(error))
            await asyncio.sleep(_AGAIN_SECONDS)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until no other process is here, and keep all others out meanwhile."""
        async with self._database.dedicated() as connection:
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
            yield
            with contextlib.suppress(*CONNECTION_ERRORS):  # which frees it too
                await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)

    async def form(self) -> str:
        """Return the form of the views that all of it was last made in; "" before it is complete."""
        return str(await self._database.fetchval("SELECT form FROM comparison"))

    async def has_form(self, form: str) -> None:
        """Note that all of it is there, in this form."""
        await self._database.execute("UPDATE comparison SET form = $1", form)
        # Without it the first lists after a load are planned as if there were nothing.
        await self._database.execute("ANALYZE listings, listing_tags, products")

    async def take_turn(self, seconds: float) -> tuple[UUID | None] | None:
        """Return after which product to compare the next page, None if it is not yet time for one.

        Of all processes one gets a turn, and the next one comes `seconds` later.
        """
        row = await self._database.fetchrow(_TAKE_TURN, seconds)
        return None if row is None else (row["after"],)

    async def compared(self, upto: UUID | None) -> None:
        """Note how far it was compared; None is to the end."""
        await self._database.execute("UPDATE comparison SET after = $1", upto)


async def _list(connection: asyncpg.Connection, listings: Sequence[Listing[bytes]]) -> None:
    if not listings:
        return
    await connection.execute(
        _LIST,
        [listing.product_id for listing in listings],
        [listing.category for listing in listings],
        [listing.subcategory for listing in listings],
        [listing.brand for listing in listings],
        [_array(listing.tags) for listing in listings],
        [_array(map(str, listing.prices)) for listing in listings],
        [listing.entry.on_sale for listing in listings],
    )
    changed = [str(listing.product_id) for listing in listings]
    await connection.execute(_TELL, changed if len(changed) <= _TOLD_ONE_BY_ONE else [""])


def _array(texts: Iterable[str]) -> str:
    """Return an array as its text: arrays of different lengths can't be sent as one of two dimensions."""
    quoted = ('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts)
    return "{" + ",".join(quoted) + "}"


def _page(filters: Filters, before: UUID | None, limit: int) -> tuple[str, list[Any]]:
    """Return the query of a list, with nothing in it that was not asked for, and its arguments."""
    arguments: list[Any] = [limit]
    source, conditions = "listings", []

    def narrow(condition: str, value: Any) -> None:
        arguments.append(value)
        conditions.append(condition.format(f"${len(arguments)}"))

    if filters.tag:
        source = "listings JOIN listing_tags USING (product_id)"
        narrow("tag = {}", filters.tag)
    for name in ("category", "subcategory", "brand"):
        if value := getattr(filters, name):
            narrow(f"{name} = {{}}", value)
    low, high = filters.min_price, filters.max_price
    if low is not None:
        narrow("highest >= {}", low)
    if high is not None:
        narrow("lowest <= {}", high)
    if low is not None and high is not None:
        at = len(arguments)
        conditions.append(
            f"EXISTS (SELECT FROM unnest(prices) AS price WHERE price BETWEEN ${at - 1} AND ${at})"
        )
    if before is not None:
        narrow("product_id < {}", before)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    query = f"""
        SELECT {_ENTRY} FROM products JOIN (
            SELECT product_id FROM {source} {where} ORDER BY product_id DESC LIMIT $1
        ) AS found USING (product_id)
        ORDER BY product_id DESC
    """
    return query, arguments


def _entry(row: asyncpg.Record) -> Entry[bytes]:
    return Entry(
        row["product_id"],
        row["revision"],
        row["on_sale"],
        row["name"],
        tuple(row["variant_ids"]),
        row["view"],
    )


def _by_id(rows: Iterable[asyncpg.Record]) -> Mapping[UUID, Listing[bytes]]:
    return {row["product_id"]: _listing(row) for row in rows}


def _listing(row: asyncpg.Record) -> Listing[bytes]:
    if row["category"] is None:
        return Listing(_entry(row))
    return Listing(
        _entry(row),
        row["category"],
        row["subcategory"],
        row["brand"],
        tuple(row["tags"]),
        tuple(row["prices"]),
    )
