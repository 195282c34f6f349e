"""The gRPC servicer: messages to use cases and back."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from decimal import Decimal

from stoa.search.v1 import search_pb2, search_pb2_grpc
from stoa_chassis.money_proto import to_proto
from stoa_chassis.paging import decode_token, encode_token, page_size
from stoa_search.model import Criteria, Facet, Hit, Sort, Suggestion, price_words
from stoa_search.service import Search


class SearchServicer(search_pb2_grpc.SearchServiceServicer):
    """stoa.search.v1.SearchService."""

    def __init__(self, search: Search) -> None:
        self._search = search

    async def Search(self, request: search_pb2.SearchRequest, context: object) -> search_pb2.SearchResponse:
        """Find products."""
        criteria = _criteria(request)
        asked = asdict(criteria)
        after = decode_token(request.page_token, asked)
        size = page_size(request.page_size)
        # One more than asked for, to see if there is a next page.
        found = await self._search.search(criteria, after, size + 1, facets=not after)
        more = len(found.hits) > size
        return search_pb2.SearchResponse(
            hits=map(_hit, found.hits[:size]),
            total_size=found.total_size,
            facets=map(_facet, found.facets),
            next_page_token=encode_token(found.places[size - 1], asked) if more else "",
        )

    async def Suggest(
        self, request: search_pb2.SuggestRequest, context: object
    ) -> search_pb2.SuggestResponse:
        """Complete what somebody types."""
        found = await self._search.suggest(request.q)
        return search_pb2.SuggestResponse(suggestions=map(_suggestion, found))


def _criteria(request: search_pb2.SearchRequest) -> Criteria:
    said = price_words(request.q)
    if request.min_price or request.max_price:  # filters say it better than words
        said = replace(said, min_price=None, max_price=None)
    return Criteria(
        words=said.words,
        category=request.category,
        subcategory=request.subcategory,
        brand=request.brand,
        tag=request.tag,
        min_price=Decimal(request.min_price) if request.min_price else said.min_price,
        max_price=Decimal(request.max_price) if request.max_price else said.max_price,
        min_rating=request.min_rating,
        in_stock=request.in_stock,
        attributes=_attributes(request.attribute),
        cheapest_first=said.cheapest_first,
        sort=Sort(request.sort or Sort.RELEVANCE),
    )


def _attributes(pairs: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the values that will do, by the names; capitals make no difference."""
    attributes: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        name, _, value = pair.partition(":")
        attributes[name.lower()].append(value)
    return {name: tuple(values) for name, values in attributes.items()}


def _hit(hit: Hit) -> search_pb2.Hit:
    return search_pb2.Hit(
        product_id=str(hit.product_id),
        name=hit.name,
        brand=hit.brand,
        category=hit.category,
        price_from=to_proto(hit.price_from),
        rating=search_pb2.Hit.Rating(average=hit.rating.average, count=hit.rating.count),
        image=hit.image,
        score=hit.score,
        in_stock=hit.in_stock,
    )


def _facet(facet: Facet) -> search_pb2.Facet:
    return search_pb2.Facet(
        field=facet.field,
        buckets=[search_pb2.Facet.Bucket(value=each.value, count=each.count) for each in facet.buckets],
    )


def _suggestion(suggestion: Suggestion) -> search_pb2.Suggestion:
    if suggestion.product_id is None:
        return search_pb2.Suggestion(text=suggestion.text, category=suggestion.text)
    return search_pb2.Suggestion(text=suggestion.text, product_id=str(suggestion.product_id))
