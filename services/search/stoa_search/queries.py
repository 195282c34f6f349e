"""What is asked of OpenSearch.

A search is words and filters. Each filter is of one *facet*; the counts of a facet leave its own filter out,
and those of the others in, so that its other values stay to choose from. Conditions on a variant (price,
stock, attributes) must be met by one and the same, so they are together in one nested query.

Words are looked for strictly first: each must be in the product somewhere, as it is written or a synonym of
it. Only if nothing is found, they may be misspelt, and if that does not help, some may be missing.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any

from stoa_search.model import PRICE_STEPS, RATING_STEPS, Criteria, Sort

Query = dict[str, Any]

ATTRIBUTE = "attribute:"
OTHER_VARIANTS = "other variants"
_FIELDS = {
    "name": 8.0,
    "subcategory.words": 5.0,
    "category.words": 3.0,
    "brand.words": 5.0,
    "tags.words": 3.0,
    "traits": 3.0,
    "description": 1.0,
}
_ROOTS = {"category": "category", "subcategory": "subcategory", "brand": "brand", "tag": "tags"}
SHELVES = ("category", "subcategory")
_MOST_VALUES = 30
_MOST_ATTRIBUTES = 200
_ON_SALE: Query = {"term": {"on_sale": True}}
_STOCKED = 0.5  # what it counts that something can be bought: about as much as a word in the description
_LOW_PRICE = 0.0002  # of cents: how soon a price is low, where the cheapest come first


class Strictness(StrEnum):
    """How well words have to match."""

    EXACT = "exact"
    MISSPELT = "misspelt"
    SOME = "some"


_SORTS: Mapping[Sort, Sequence[Mapping[str, str]]] = {
    Sort.RELEVANCE: ({"_score": "desc"}, {"product_id": "asc"}),
    Sort.PRICE_ASC: ({"price_from": "asc"}, {"product_id": "asc"}),
    Sort.PRICE_DESC: ({"price_from": "desc"}, {"product_id": "asc"}),
    Sort.NEWEST: ({"created_at": "desc"}, {"product_id": "asc"}),
    Sort.RATING: ({"rating": "desc"}, {"ratings": "desc"}, {"product_id": "asc"}),
}


def search(criteria: Criteria, strictness: Strictness, limit: int, *, facets: bool) -> Query:
    """Return the body of a search, without where it goes on."""
    filters = Filters(criteria)
    narrowed = filters.without()
    query: Query = {
        "size": limit,
        "sort": list(_SORTS[criteria.sort]),
        "track_total_hits": True,
        "_source": False,
        "stored_fields": ["hit"],
    }
    if facets and narrowed:
        # Filters after the counts, which leave out some of them.
        query["query"] = _matching(criteria, strictness, [_ON_SALE])
        query["post_filter"] = _all(narrowed)
    else:
        query["query"] = _matching(criteria, strictness, [_ON_SALE, *narrowed])
    if facets:
        query["aggs"] = filters.counts()
    return query


def suggestions(text: str, limit: int, *, misspelt: bool) -> Query:
    """Return the body of a search for what may be about to be typed."""
    fuzzy = {"fuzziness": "AUTO", "prefix_length": 1, "max_expansions": 20} if misspelt else {}
    match = {"query": text, "operator": "and", **fuzzy}
    return {
        "size": limit,
        "track_total_hits": False,
        "_source": False,
        "stored_fields": ["hit"],
        "sort": ["_score", {"product_id": "asc"}],
        "query": {
            "bool": {
                "must": {"match": {"typed": match}},
                "filter": _ON_SALE,
                "should": {"term": {"in_stock": {"value": True, "boost": _STOCKED}}},
            }
        },
        "aggs": {
            "everything": {
                "global": {},
                "aggs": {shelf: _shelves(shelf, match) for shelf in SHELVES},
            }
        },
    }


def _shelves(shelf: str, match: Query) -> Query:
    """Count the categories, or subcategories, whose names match."""
    return {
        "filter": {"bool": {"filter": [_ON_SALE, {"match": {f"{shelf}.typed": match}}]}},
        "aggs": {"names": {"terms": {"field": shelf, "size": _MOST_VALUES}}},
    }


class Filters:
    """The filters of a search, each by its facet; those on a variant apart."""

    def __init__(self, criteria: Criteria) -> None:
        self._roots: dict[str, Query] = {
            facet: {"term": {f"{field}.folded": getattr(criteria, facet)}}
            for facet, field in _ROOTS.items()
            if getattr(criteria, facet)
        }
        if criteria.min_rating:
            self._roots["min_rating"] = {"range": {"rating": {"gte": criteria.min_rating}}}
        self._variants: dict[str, Query] = {}
        bounds = {"gte": criteria.min_price, "lte": criteria.max_price}
        if cents := {key: _cents(bound) for key, bound in bounds.items() if bound is not None}:
            self._variants["price"] = {"range": {"variants.price": cents}}
        if criteria.in_stock:
            self._variants["in_stock"] = {"term": {"variants.in_stock": True}}
        for name, values in criteria.attributes.items():
            pairs = [f"{name}:{value}" for value in values]
            self._variants[ATTRIBUTE + name] = {"terms": {"variants.attributes.folded": pairs}}

    def without(self, facet: str = "") -> list[Query]:
        """Return what must hold of a product, with all filters but one."""
        variants = _but(facet, self._variants)
        nested = [{"nested": {"path": "variants", "query": _all(variants)}}] if variants else []
        return [*_but(facet, self._roots), *nested]

    def counts(self) -> dict[str, Query]:
        """Return the aggregations: of each facet that has a filter its own, of all others one together."""
        free = {**_ROOT_COUNTS}
        free_of_variants = {**_VARIANT_COUNTS}
        aggregations: dict[str, Query] = {}
        for facet in self._roots:
            free.pop(facet)
            aggregations[f"own {len(aggregations)}"] = {
                "filter": _all(self.without(facet)),
                "aggs": {facet: _ROOT_COUNTS[facet]},
            }
        for facet in self._variants:
            if facet.startswith(ATTRIBUTE):
                counting = {"attributes": _attributes_of(facet.removeprefix(ATTRIBUTE))}
            else:
                free_of_variants.pop(facet)
                counting = {facet: _VARIANT_COUNTS[facet]}
            aggregations[f"own {len(aggregations)}"] = self._nested(facet, counting)
        aggregations["others"] = {"filter": _all(self.without()), "aggs": free}
        aggregations[OTHER_VARIANTS] = self._nested("", free_of_variants)
        return aggregations

    def _nested(self, without: str, counting: Mapping[str, Query]) -> Query:
        """Count what variants have, of products that pass the filters."""
        matching = {"filter": _all(_but(without, self._variants)), "aggs": dict(counting)}
        variants = {"nested": {"path": "variants"}, "aggs": {"matching": matching}}
        return {"filter": _all(_but(without, self._roots)), "aggs": {"variants": variants}}


def _but(facet: str, filters: Mapping[str, Query]) -> list[Query]:
    return [query for name, query in filters.items() if name != facet]


_PRODUCTS: Query = {"products": {"reverse_nested": {}}}
_ROOT_COUNTS: Mapping[str, Query] = {
    **{facet: {"terms": {"field": field, "size": _MOST_VALUES}} for facet, field in _ROOTS.items()},
    "min_rating": {
        "range": {
            "field": "rating",
            "ranges": [{"key": str(step), "from": step} for step in RATING_STEPS],
        }
    },
}
_VARIANT_COUNTS: Mapping[str, Query] = {
    "price": {
        "range": {
            "field": "variants.price",
            "ranges": [
                {"key": str(start), "from": start * 100} | ({"to": end * 100} if end else {})
                for start, end in zip(PRICE_STEPS, [*PRICE_STEPS[1:], None], strict=True)
            ],
        },
        "aggs": _PRODUCTS,
    },
    "in_stock": {"filter": {"term": {"variants.in_stock": True}}, "aggs": _PRODUCTS},
    "attributes": {
        "terms": {"field": "variants.attributes", "size": _MOST_ATTRIBUTES},
        "aggs": _PRODUCTS,
    },
}


def _attributes_of(name: str) -> Query:
    """Count the values of one attribute, whose name is written in any case."""
    pattern = "".join(
        f"[{char.lower()}{char.upper()}]" if char.isascii() and char.isalpha() else _literally(char)
        for char in name
    )
    return {
        "terms": {"field": "variants.attributes", "size": _MOST_ATTRIBUTES, "include": f"{pattern}:.*"},
        "aggs": _PRODUCTS,
    }


def _literally(char: str) -> str:
    """Write a character so that it means itself in a regular expression of Lucene."""
    return f"\\{char}" if char in '.?+*|{}[]()"\\#@&<>~^$-' else char


def _matching(criteria: Criteria, strictness: Strictness, filters: Sequence[Query]) -> Query:
    query: Query = {"filter": list(filters)}
    if criteria.words:
        query["should"] = [{"term": {"in_stock": {"value": True, "boost": _STOCKED}}}]
        query["must"] = _words(criteria.words, strictness)
    elif criteria.sort is Sort.RELEVANCE:
        query["should"] = [{"term": {"in_stock": True}}]
    if not criteria.cheapest_first:
        return {"bool": query}
    return {
        "function_score": {
            "query": {"bool": query},
            "field_value_factor": {
                "field": "price_from", "factor": _LOW_PRICE, "modifier": "reciprocal", "missing": 1,
            },
            "boost_mode": "multiply",
        }
    }  # fmt: skip


def _words(words: str, strictness: Strictness) -> Query:
    fields = [f"{field}^{boost:g}" for field, boost in _FIELDS.items()]
    if strictness is Strictness.EXACT:
        each = {
            "multi_match": {
                "query": words, "type": "cross_fields", "operator": "and", "fields": fields,
            }
        }  # fmt: skip
        as_named = {"match_phrase": {"name": {"query": words, "slop": 3, "boost": 3}}}
        return {
            "dis_max": {
                "queries": [
                    {"bool": {"must": each, "should": as_named}},
                    {"term": {"skus": {"value": words, "boost": 100}}},
                ]
            }
        }
    required = "100%" if strictness is Strictness.MISSPELT else "2<67%"
    fuzzy = {"query": words, "fuzziness": "AUTO", "prefix_length": 1, "max_expansions": 30}
    return {
        "bool": {
            "must": {
                "dis_max": {
                    "queries": [
                        {"match": {field: {**fuzzy, "minimum_should_match": required, "boost": boost}}}
                        for field, boost in (("everything", 0.1), ("everything.written", 1.0))
                    ]
                }
            },
            "should": {"multi_match": {**fuzzy, "type": "most_fields", "fields": fields}},
        }
    }


def _all(queries: Sequence[Query]) -> Query:
    return {"bool": {"filter": list(queries)}} if queries else {"match_all": {}}


def _cents(amount: Decimal) -> int:
    return int(amount * 100)
