"""How products are written into the index: its fields, and how texts become words."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from importlib.resources import files
from typing import Any

import orjson

_SYNONYMS = "synonyms.txt"
_LONGEST_PREFIX = 15


def definition(shards: int, replicas: str) -> dict[str, Any]:
    """Return the settings and the mapping of a new index."""
    return {
        "settings": {
            "number_of_shards": shards,
            "auto_expand_replicas": replicas,
            "refresh_interval": "1s",
            "analysis": _analysis(),
        },
        "mappings": {"dynamic": False, "properties": _PROPERTIES},
    }


def synonyms() -> list[str]:
    """Read the groups of words that mean the same."""
    lines = files(__package__).joinpath(_SYNONYMS).read_text("utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _analysis() -> dict[str, Any]:
    stemmed = ["english_stop", "english_stems"]
    return {
        "filter": {
            "english_possessive": {"type": "stemmer", "language": "possessive_english"},
            "english_stop": {"type": "stop", "stopwords": "_english_"},
            "english_stems": {"type": "stemmer", "language": "english"},
            "synonyms": {"type": "synonym_graph", "synonyms": synonyms(), "lenient": True},
            "beginnings": {"type": "edge_ngram", "min_gram": 1, "max_gram": _LONGEST_PREFIX},
            "shortened": {"type": "truncate", "length": _LONGEST_PREFIX},
        },
        "analyzer": {
            # What is written and what is looked for become the same words: accents folded, english stems.
            "words": _analyzer("english_possessive", *stemmed),
            "looked_for": _analyzer("english_possessive", "synonyms", *stemmed),
            "written": _analyzer("english_stop"),
            "beginnings": _analyzer("beginnings"),
            "typed": _analyzer("shortened"),
        },
        "normalizer": {
            "folded": {"type": "custom", "filter": ["lowercase", "asciifolding"]},
        },
    }


def _analyzer(*filters: str) -> dict[str, Any]:
    return {"type": "custom", "tokenizer": "standard", "filter": ["lowercase", "asciifolding", *filters]}


def _text(**more: Any) -> dict[str, Any]:
    return {"type": "text", "analyzer": "words", "search_analyzer": "looked_for", **more}


def _typed() -> dict[str, Any]:
    """Return a text that is found by the beginnings of its words."""
    return {
        "type": "text",
        "analyzer": "beginnings",
        "search_analyzer": "typed",
        "index_options": "docs",
        "norms": True,
    }


def _name(copy_to: Sequence[str] = ("everything",), **more: Any) -> dict[str, Any]:
    """Return the field of a name that can be counted, filtered by, and found by its words."""
    fields = {"folded": {"type": "keyword", "normalizer": "folded"}, "words": _text(), **more}
    return {"type": "keyword", "ignore_above": 256, "copy_to": list(copy_to), "fields": fields}


_PROPERTIES: Mapping[str, Any] = {
    "product_id": {"type": "keyword"},
    "on_sale": {"type": "boolean"},
    "name": _text(copy_to=["everything", "typed"]),
    "description": _text(copy_to="everything"),
    "category": _name(typed=_typed()),
    "subcategory": _name(typed=_typed()),
    "brand": _name(copy_to=("everything", "typed")),
    "tags": _name(),
    # The values of attributes and specifications.
    "traits": _text(copy_to="everything"),
    "skus": {"type": "keyword", "normalizer": "folded"},
    # As it is written, too: a slip is found by how words look, and stems look otherwise.
    "everything": _text(fields={"written": {"type": "text", "analyzer": "written"}}),
    "typed": _typed(),
    "variants": {
        "type": "nested",
        "properties": {
            # In cents.
            "price": {"type": "long"},
            "in_stock": {"type": "boolean"},
            # As in the filter: `color:blue`.
            "attributes": {
                "type": "keyword",
                "fields": {"folded": {"type": "keyword", "normalizer": "folded"}},
            },
        },
    },
    "price_from": {"type": "long"},
    "in_stock": {"type": "boolean"},
    "rating": {"type": "float"},
    "ratings": {"type": "integer"},
    "created_at": {"type": "date_nanos"},
    # What a hit shows, in one piece that is read without the rest.
    "hit": {"type": "keyword", "index": False, "doc_values": False, "store": True},
    # What the entry is made of.
    "entry": {"type": "object", "enabled": False},
}


def fingerprint() -> str:
    """Return what tells whether an index has this definition; it is kept in the index."""
    text = orjson.dumps([_analysis(), _PROPERTIES], option=orjson.OPT_SORT_KEYS)
    return blake2b(text, digest_size=8).hexdigest()
