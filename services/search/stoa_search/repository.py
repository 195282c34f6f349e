"""The index of products in OpenSearch.

Searches go to the alias `products`, which names one index. Changes go to every index that the alias
`products-fed` names: that one, and while a new one is filled, the new one as well. An entry is written only
if nobody else has written it since it was read (its sequence number): so it is decided in one place what an
entry becomes, in the model, whichever process hears of a change first.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from opensearchpy import AsyncOpenSearch
from opensearchpy.exceptions import NotFoundError, RequestError, TransportError

from stoa_chassis.opensearch import OUTAGES, EngineUnavailable
from stoa_chassis.telemetry import get_logger
from stoa_contracts.money import Money
from stoa_search import mapping, queries
from stoa_search.model import (
    Availability,
    Bucket,
    Criteria,
    Details,
    Entry,
    Facet,
    Found,
    Hit,
    IndexMissing,
    Rating,
    Suggestion,
    Variant,
    price_range,
)
from stoa_search.ports import Stored
from stoa_search.queries import ATTRIBUTE, Strictness
from stoa_search.settings import Settings

_log = get_logger(__name__)
_FED = "-fed"
_BATCH = 500
_CATEGORIES = 3
_CONFLICT = 409
_WRITE_SECONDS = 30.0


class ProductIndex:
    """What is searched in: the alias `index`."""

    def __init__(self, client: AsyncOpenSearch, settings: Settings) -> None:
        self._client = client
        self._index = settings.index
        self._view = _View(client, settings)

    async def search(
        self, criteria: Criteria, after: Mapping[str, Any], limit: int, *, facets: bool
    ) -> Found:
        """Find products, after a place that an earlier search has named. Raises IndexMissing."""
        steps = [Strictness(after["strictness"])] if after else list(Strictness)
        view = str(after["view"]) if after else await self._view.current()
        found: Mapping[str, Any] = {}
        strictness = steps[0]
        for strictness in steps if criteria.words else steps[:1]:
            body = queries.search(criteria, strictness, limit, facets=facets)
            if after:
                body["search_after"] = after["values"]
            found, view = await self._view.search(view, body)
            if found["hits"]["hits"]:
                break
        hits = found["hits"]["hits"]
        return Found(
            hits=[_hit(hit) for hit in hits],
            places=[{"view": view, "strictness": strictness, "values": hit["sort"]} for hit in hits],
            total_size=found["hits"]["total"]["value"],
            facets=_facets(found.get("aggregations", {}), criteria),
        )

    async def suggest(self, text: str, limit: int) -> Sequence[Suggestion]:
        """Find categories and products whose names begin like this. Raises IndexMissing."""
        suggestions: list[Suggestion] = []
        for misspelt in (False, True):
            body = queries.suggestions(text, limit, misspelt=misspelt)
            with _missing():
                found = await self._client.search(body=body, index=self._index)
            shelves = [found["aggregations"]["everything"][shelf]["names"] for shelf in queries.SHELVES]
            names = dict.fromkeys(bucket["key"] for shelf in shelves for bucket in shelf["buckets"])
            suggestions = [Suggestion(name) for name in list(names)[:_CATEGORIES]]
            for hit in map(_hit, found["hits"]["hits"]):
                suggestions.append(Suggestion(hit.name, hit.product_id))
            if suggestions:
                break
        return suggestions[:limit]


class _View:
    """The index at a moment (a point in time), which the pages of a search are read from.

    To make one for each search would cost as much as the search, and the engine keeps a few hundred at most.
    So searches that begin within `view_seconds` share one.
    """

    def __init__(self, client: AsyncOpenSearch, settings: Settings) -> None:
        self._client = client
        self._index = settings.index
        self._lasts = settings.paging_seconds
        self._renewed_after = settings.view_seconds
        self._id = ""
        self._made_at = 0.0
        self._making: asyncio.Task[None] | None = None

    async def current(self) -> str:
        """Return the id of a view that is new enough to begin a search with. Raises IndexMissing."""
        if not self._id or time.monotonic() - self._made_at > self._renewed_after:
            if self._making is None:
                self._making = asyncio.create_task(self._make())
            try:
                await asyncio.shield(self._making)
            except EngineUnavailable:
                # It may have as many as it takes; then an older one does for a while.
                if not self._id or time.monotonic() - self._made_at > self._lasts / 2:
                    raise
        return self._id

    async def search(self, view: str, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """Search in a view; return what was found, and the view, another one if that one is gone.

        Who pages on after a long time, or over a rebuild, goes on at the same place in the index as it is
        now. Raises IndexMissing.
        """
        for again in (True, False):
            try:
                pit = {"id": view, "keep_alive": f"{self._lasts}s"}
                return await self._client.search(body={**body, "pit": pit}), view
            except NotFoundError:
                if not again:
                    raise
                if view == self._id:
                    self._id = ""
                view = await self.current()
        raise AssertionError

    async def _make(self) -> None:
        try:
            with _missing():
                made = await self._client.create_pit(
                    index=self._index, params={"keep_alive": f"{self._lasts}s"}
                )
            self._id, self._made_at = made["pit_id"], time.monotonic()
        finally:
            self._making = None


class Entries:
    """The entries of all indices that an alias stands for, or of one index."""

    def __init__(self, client: AsyncOpenSearch, *, alias: str = "", index: str = "") -> None:
        self._client = client
        self._alias = alias
        self._index = index

    async def read(self, product_ids: Collection[UUID]) -> Sequence[Stored]:
        """Read the entry of each product in each index, an empty one where there is none.

        Raises IndexMissing.
        """
        indices = [self._index]
        if self._alias:
            # Asked each time: an index that a rebuild has just made gets every event from then on.
            with _missing():
                indices = sorted(await self._client.indices.get_alias(name=self._alias))
        wanted = [{"_index": index, "_id": str(each)} for index in indices for each in product_ids]
        found = await self._client.mget(body={"docs": wanted}, params={"_source_includes": "entry"})
        return [_stored(document) for document in found["docs"]]

    async def write(self, entries: Iterable[Stored]) -> Collection[UUID]:
        """Write entries as they were read and then changed.

        Those that somebody else has written meanwhile stay as they are: their products are returned.
        """
        lines: list[Any] = []
        for each in entries:
            at = {"_index": each.index, "_id": str(each.entry.product_id)}
            if each.writing is None:
                lines.append({"create": at})
            else:
                number, term = each.writing
                lines.append({"index": {**at, "if_seq_no": number, "if_primary_term": term}})
            lines.append(_document(each.entry))
        answer = await self._client.bulk(body=lines, params={"request_timeout": _WRITE_SECONDS})
        lost = set()
        for item in answer["items"] if answer["errors"] else ():
            (outcome,) = item.values()
            if outcome["status"] == _CONFLICT:
                lost.add(UUID(outcome["_id"]))
            elif "error" in outcome:
                raise _refused(outcome)
        return lost


class Indices:
    """Making indices, and putting them into use."""

    def __init__(self, client: AsyncOpenSearch, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._alias = settings.index
        self.fed = Entries(client, alias=settings.index + _FED)

    async def ensure(self) -> bool:
        """Have an index in use; tell whether it is still to be filled, and by nobody else for sure."""
        try:
            (index,) = await self._client.indices.get_alias(name=self._alias)
        except NotFoundError:
            index = f"{self._alias}-0"
            try:
                await self._create(index, self._alias, self._alias + _FED)
            except RequestError as error:
                if error.error != "resource_already_exists_exception":
                    raise
        return not (await _meta(self._client, index)).get("filled", False)

    async def note_filled(self) -> None:
        """Note that the index in use was filled once."""
        for index in await self._client.indices.get_alias(name=self._alias):
            await _note_filled(self._client, index)

    async def new(self) -> "NewIndex":
        """Make a new index, to which events are written from now on as well.

        One that another rebuild has left, or is still filling, is deleted.
        """
        used = set(await self._client.indices.get_alias(name=self._alias))
        for index in await self._client.indices.get_alias(name=self._alias + _FED):
            if index not in used:
                await self._client.indices.delete(index=index)
        index = f"{self._alias}-{datetime.now(UTC):%Y%m%d%H%M%S%f}"
        await self._create(index, self._alias + _FED)
        await asyncio.sleep(self._settings.settle_seconds)
        return NewIndex(self._client, self._alias, index)

    async def _create(self, index: str, *aliases: str) -> None:
        definition = mapping.definition(self._settings.shards, self._settings.replicas)
        definition["aliases"] = {alias: {} for alias in aliases}
        definition["mappings"]["_meta"] = {"definition": mapping.fingerprint()}
        await self._client.indices.create(
            index=index, body=definition, params={"request_timeout": _WRITE_SECONDS}
        )
        _log.info("index made", index=index)


class NewIndex:
    """An index that is being filled, and that events are written to as well."""

    def __init__(self, client: AsyncOpenSearch, alias: str, index: str) -> None:
        self._client = client
        self._alias = alias
        self._index = index
        self.entries = Entries(client, index=index)

    async def known(self) -> AsyncIterator[Sequence[Entry]]:
        """Walk through what the index in use knows of products that it does not show."""
        query: dict[str, Any] = {
            "size": _BATCH,
            "query": {"term": {"on_sale": False}},
            "sort": [{"product_id": "asc"}],
            "_source": ["entry", "product_id"],
        }
        await self._client.indices.refresh(index=self._alias)
        while True:
            found = await self._client.search(index=self._alias, body=query)
            if not (hits := found["hits"]["hits"]):
                return
            yield [_entry(UUID(hit["_id"]), hit["_source"]["entry"]) for hit in hits]
            query["search_after"] = hits[-1]["sort"]

    async def use(self) -> None:
        """Answer searches from it from now on, and delete the one before."""
        await self._client.indices.refresh(index=self._index, params={"request_timeout": _WRITE_SECONDS})
        await _note_filled(self._client, self._index)
        before = list(await self._client.indices.get_alias(name=self._alias))
        actions: list[Mapping[str, Any]] = [{"add": {"index": self._index, "alias": self._alias}}]
        actions += [{"remove_index": {"index": index}} for index in before]
        await self._client.indices.update_aliases(body={"actions": actions})
        _log.info("index in use", index=self._index, before=before)


async def _meta(client: AsyncOpenSearch, index: str) -> Mapping[str, Any]:
    """Return what is noted in an index about itself."""
    found = await client.indices.get_mapping(index=index)
    meta: Mapping[str, Any] = found[index]["mappings"].get("_meta", {})
    if meta.get("definition") != mapping.fingerprint():
        _log.warning("the index was made by another version: `stoa reindex` makes it anew", index=index)
    return meta


async def _note_filled(client: AsyncOpenSearch, index: str) -> None:
    """Note in an index that it was filled once."""
    meta = {**await _meta(client, index), "filled": True}
    await client.indices.put_mapping(index=index, body={"_meta": meta})


@contextmanager
def _missing() -> Iterator[None]:
    """Turn what the engine says of an index that is not there into IndexMissing."""
    try:
        yield
    except NotFoundError as error:
        raise IndexMissing("there is no index to search in yet") from error


def _refused(outcome: Mapping[str, Any]) -> Exception:
    """Return the error for an entry that was not written, and not because somebody else was faster."""
    error = outcome["error"]
    if error["type"] == "index_not_found_exception":
        return IndexMissing("the index is gone")
    if outcome["status"] in OUTAGES:
        return EngineUnavailable("the search engine can't write now")
    return TransportError(outcome["status"], error["type"], outcome)


# ---------------------------------------------------------------------------------------------- documents


def _document(entry: Entry) -> dict[str, Any]:
    """Return how an entry is written: what is searched, what a hit shows, and the entry itself."""
    document: dict[str, Any] = {
        "product_id": str(entry.product_id),
        "on_sale": entry.details is not None,
        "entry": _entry_fields(entry),
    }
    details, price_from = entry.details, entry.price_from
    if details is None or price_from is None:
        return document
    traits = [value for variant in details.variants for value in variant.attributes.values()]
    return document | {
        "name": details.name,
        "description": details.description,
        "category": details.category,
        "subcategory": details.subcategory or None,
        "brand": details.brand or None,
        "tags": list(details.tags),
        "traits": list(dict.fromkeys([*traits, *details.specifications.values()])),
        "skus": [variant.sku for variant in details.variants],
        "variants": [
            {
                "price": variant.price.cents,
                "in_stock": entry.is_in_stock(variant.variant_id),
                "attributes": variant.pairs,
            }
            for variant in details.variants
        ],
        "price_from": price_from.cents,
        "in_stock": entry.in_stock,
        "rating": entry.rating.average,
        "ratings": entry.rating.count,
        "created_at": details.created_at.isoformat(),
        "hit": orjson.dumps(
            [
                str(entry.product_id), details.name, details.brand, details.category,
                price_from.cents, price_from.currency, entry.rating.average, entry.rating.count,
                details.image, entry.in_stock,
            ]
        ).decode(),
    }  # fmt: skip


def _hit(hit: Mapping[str, Any]) -> Hit:
    product_id, name, brand, category, price, currency, average, count, image, in_stock = orjson.loads(
        hit["fields"]["hit"][0]
    )
    return Hit(
        product_id=UUID(product_id),
        name=name,
        brand=brand,
        category=category,
        price_from=Money.of_cents(price, currency),
        rating=Rating(average, count),
        image=image,
        in_stock=in_stock,
        score=hit["_score"] or 0.0,
    )


def _entry_fields(entry: Entry) -> dict[str, Any]:
    details = entry.details
    return {
        "version": entry.version,
        "details": None
        if details is None
        else {
            "name": details.name,
            "description": details.description,
            "category": details.category,
            "subcategory": details.subcategory,
            "brand": details.brand,
            "tags": list(details.tags),
            # Pairs: a name may have a dot, which means something in the name of a field.
            "specifications": list(details.specifications.items()),
            "created_at": details.created_at.isoformat(),
            "variants": [
                {
                    "variant_id": str(variant.variant_id),
                    "sku": variant.sku,
                    "price": [variant.price.cents, variant.price.currency],
                    "attributes": list(variant.attributes.items()),
                    "images": list(variant.images),
                }
                for variant in details.variants
            ],
        },
        "rating": [entry.rating.average, entry.rating.count, entry.rating.version],
        "availability": [
            [str(variant_id), known.in_stock, known.version]
            for variant_id, known in entry.availability.items()
        ],
    }


def _stored(document: Mapping[str, Any]) -> Stored:
    product_id = UUID(document["_id"])
    if "error" in document:
        raise IndexMissing("the index is gone")
    if not document["found"]:
        return Stored(Entry(product_id), document["_index"])
    entry = _entry(product_id, document["_source"]["entry"])
    return Stored(entry, document["_index"], (document["_seq_no"], document["_primary_term"]))


def _entry(product_id: UUID, fields: Mapping[str, Any]) -> Entry:
    details = fields["details"]
    return Entry(
        product_id,
        version=fields["version"],
        details=None
        if details is None
        else Details(
            name=details["name"],
            description=details["description"],
            category=details["category"],
            subcategory=details["subcategory"],
            brand=details["brand"],
            tags=tuple(details["tags"]),
            specifications=dict(details["specifications"]),
            created_at=datetime.fromisoformat(details["created_at"]),
            variants=tuple(
                Variant(
                    UUID(variant["variant_id"]),
                    variant["sku"],
                    Money.of_cents(*variant["price"]),
                    dict(variant["attributes"]),
                    tuple(variant["images"]),
                )
                for variant in details["variants"]
            ),
        ),
        rating=Rating(*fields["rating"]),
        availability={
            UUID(variant_id): Availability(in_stock, version)
            for variant_id, in_stock, version in fields["availability"]
        },
    )


def _facets(aggregations: Mapping[str, Any], criteria: Criteria) -> list[Facet]:
    """Return the counts, in the order in which a shop shows them; what no product has is left out."""
    counted: dict[str, list[Bucket]] = {}
    for name, facet, counts in _counts(aggregations):
        if facet == "in_stock":
            found = {"true": counts["products"]["doc_count"]}
        else:
            found = {
                str(bucket["key"]): bucket.get("products", bucket)["doc_count"]
                for bucket in counts["buckets"]
            }
        for value, count in found.items():
            field, value = _named(facet, value)
            # Those of an attribute that has a filter are counted on their own, without it.
            filtered = field.removeprefix(ATTRIBUTE).lower() in criteria.attributes
            if count and not (facet == "attributes" and filtered and name == queries.OTHER_VARIANTS):
                counted.setdefault(field, []).append(Bucket(value, count))
    return [Facet(name, tuple(counted[name])) for name in sorted(counted, key=_facet_order)]


def _counts(aggregations: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for name, aggregation in aggregations.items():
        within = aggregation.get("variants", {}).get("matching", aggregation)
        for facet, counts in within.items():
            if isinstance(counts, dict):  # else how many documents there are
                yield name, facet, counts


def _named(facet: str, value: str) -> tuple[str, str]:
    """Return the facet and the value as a client knows them."""
    if facet == "attributes":
        name, _, value = value.partition(":")
        return ATTRIBUTE + name, value
    return facet, price_range(int(value)) if facet == "price" else value


_FACETS = ("category", "subcategory", "brand", "tag", "price", "min_rating", "in_stock")


def _facet_order(name: str) -> tuple[int, str]:
    return (_FACETS.index(name), "") if name in _FACETS else (len(_FACETS), name)
