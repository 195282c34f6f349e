"""What addresses need and look like in their countries."""

import tracemalloc
from dataclasses import dataclass, replace

import pytest

from stoa_chassis import postal


@dataclass(frozen=True)
class Address:
    city: str = ""
    region: str = ""
    postal_code: str = ""
    country: str = ""


US = Address("Portland", "ME", "04101", "US")
DE = Address("Berlin", "", "10115", "DE")


@pytest.mark.parametrize(
    "address",
    [
        US,
        replace(US, region="Maine"),
        replace(US, region="maine", postal_code="04101-1234"),
        DE,
        replace(DE, region="Prenzlauer Berg"),
        Address("London", "", "N1 9GU", "GB"),
        Address("London", "Greater London", "n1 9gu", "GB"),
        Address("", "Kowloon", "", "HK"),
        Address("Tsim Sha Tsui", "Kowloon", "999077", "HK"),
        Address("", "", "546080", "SG"),
        Address("Dublin", "", "", "IE"),
        Address("Dublin", "Dublin", "D02 AF30", "IE"),
        Address("Montr\u00e9al", "Quebec", "H2Y 1C6", "CA"),
        Address("Montr\u00e9al", "qu\u00e9bec", "H2Y1C6", "CA"),
        Address("S\u00e3o Paulo", "SP", "01310-100", "BR"),
        Address("S\u00e3o Paulo", "Sao Paulo", "01310100", "BR"),
        Address("", "Tokyo", "154-0023", "JP"),
        Address("Roma", "Rome", "00118", "IT"),
        Address("Stockholm", "", "11455", "SE"),
        Address("Stockholm", "", "SE-114 55", "SE"),
        Address("Pristina", "", "10000", "XK"),
    ],
    ids=lambda address: " ".join(filter(None, vars(address).values())),
)
def test_an_address_as_people_write_it_is_taken(address: Address) -> None:
    assert list(postal.complaints(address)) == []


@pytest.mark.parametrize(
    ("address", "complaints"),
    [
        (replace(DE, country="XX"), {"country": "is not the code of a country; examples are DE and US"}),
        (replace(DE, country="ZZ"), {"country": "is not the code of a country; examples are DE and US"}),
        (
            replace(DE, postal_code="1011"),
            {"postal_code": "is not a postal code of Germany; an example is 26133"},
        ),
        (
            replace(DE, postal_code="\u0661\u0660\u0661\u0661\u0665"),  # digits, and not those of Germany
            {"postal_code": "is not a postal code of Germany; an example is 26133"},
        ),
        (
            replace(DE, city="", postal_code=""),
            {
                "city": "must not be empty in an address of Germany",
                "postal_code": "must not be empty in an address of Germany",
            },
        ),
        (
            replace(US, region=""),
            {"region": "must not be empty in an address of the United States"},
        ),
        (
            replace(US, region="XX", postal_code="0410"),
            {
                "region": "is not a state of the United States; an example is AL or Alabama",
                "postal_code": "is not a postal code of the United States; an example is 95014",
            },
        ),
        (
            Address("Vancouver", "Washington", "V5K 0A1", "CA"),
            {"region": "is not a province of Canada; an example is AB or Alberta"},
        ),
        (
            Address("London", "", "GIR 0AA and more", "GB"),
            {"postal_code": "is not a postal code of the United Kingdom; an example is EC1Y 8SY"},
        ),
        (
            Address("Sydney", "Tasmanien", "2000", "AU"),
            {"region": "is not a state of Australia; an example is ACT or Australian Capital Territory"},
        ),
        (
            Address("Lisboa", "Lisboa", "01310-100", "BR"),
            {"region": "is not a state of Brazil; an example is AC or Acre"},
        ),
        (Address(country="HK"), {"region": "must not be empty in an address of Hong Kong"}),
    ],
)
def test_what_an_address_lacks_or_cannot_be_is_said(address: Address, complaints: dict[str, str]) -> None:
    assert dict(postal.complaints(address)) == complaints


@pytest.mark.parametrize("country", ["", "D", "de", "DEU", "Germany", "D\u00cb", "../x"])
def test_what_is_no_code_at_all_is_left_to_the_constraint_of_its_field(country: str) -> None:
    assert list(postal.complaints(Address(country=country))) == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("DE", "Germany"),
        ("NL", "the Netherlands"),
        ("GB", "the United Kingdom"),
        ("CZ", "the Czech Republic"),
        ("CI", "Cote D'Ivoire"),
        ("GW", "Guinea-Bissau"),
        ("BA", "Bosnia and Herzegovina"),
        ("MD", "Moldova"),
        ("SG", "Singapore"),
        ("FK", "the Falkland Islands"),
        ("LA", "Lao"),
        ("BS", "the Bahamas"),
        ("KM", "the Comoros"),
        ("GM", "the Gambia"),
        ("IM", "the Isle of Man"),
        ("MV", "the Maldives"),
        ("PH", "the Philippines"),
        ("SC", "the Seychelles"),
    ],
)
def test_a_country_is_named_as_one_says_it(code: str, name: str) -> None:
    (city, *_) = (complaint for part, complaint in postal.complaints(Address(country=code)))
    assert city.endswith(f"in an address of {name}")


CODES = [f"{one}{two}" for one in map(chr, range(65, 91)) for two in map(chr, range(65, 91))]


def test_who_is_told_that_a_postal_code_is_none_of_its_country_is_told_one_that_is() -> None:
    refused = [
        (code, complaint)
        for code in CODES
        for part, complaint in postal.complaints(Address(postal_code="?", country=code))
        if part == "postal_code"
    ]
    assert len(refused) > 150
    for code, complaint in refused:
        _, example = complaint.split("; an example is ")
        told = dict(postal.complaints(Address(postal_code=example, country=code)))
        assert "postal_code" not in told, complaint


def test_the_rules_of_all_countries_take_little_memory() -> None:
    postal._country.cache_clear()
    tracemalloc.start()
    try:
        countries = [
            code for code in CODES if "country" not in dict(postal.complaints(Address(country=code)))
        ]
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(countries) > 240
    assert kept < 2_000_000
