"""What it costs to send a parcel, by weight, zone and method."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from stoa_shipping.model import Method
from stoa_shipping.tariff import RATES, Origin, Tariff, TooHeavy, Zone, after_working_days

from .conftest import ADDRESS, NOW, TARIFF


@pytest.mark.parametrize(
    ("destination", "zone"),
    [
        ({"country": "US", "region": "NY"}, Zone.LOCAL),
        ({"country": "US", "region": "ny"}, Zone.LOCAL),
        ({"country": "US", "region": "TX"}, Zone.DOMESTIC),
        ({"country": "US", "region": ""}, Zone.DOMESTIC),
        ({"country": "US", "region": "Hawaii"}, Zone.NEIGHBOURING),
        ({"country": "US", "region": "AK"}, Zone.NEIGHBOURING),
        ({"country": "CA", "region": "NY"}, Zone.NEIGHBOURING),
        ({"country": "DE", "region": ""}, Zone.INTERNATIONAL),
    ],
)
def test_the_zone_is_how_far_it_is_from_the_warehouse(destination: dict[str, Any], zone: Zone) -> None:
    assert Origin("US", "NY").zone_of(replace(ADDRESS, **destination)) is zone


def test_an_operator_names_zones_by_these_words() -> None:
    assert [*Zone] == ["local", "domestic", "neighbouring", "international"]


def test_a_warehouse_without_a_region_has_no_local_zone() -> None:
    assert Origin("US").zone_of(replace(ADDRESS, region="")) is Zone.DOMESTIC


def test_europe_is_near_to_europe() -> None:
    assert Origin("DE", "BY").zone_of(replace(ADDRESS, country="FR")) is Zone.NEIGHBOURING
    assert Origin("DE", "BY").zone_of(ADDRESS) is Zone.INTERNATIONAL


@pytest.mark.parametrize(
    ("home", "near", "far"),
    [
        (
            "DE",
            "AT BE BG CH CY CZ DK EE ES FI FR GB GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK",
            "AU CA MX NZ US",
        ),
        ("US", "CA MX", "AU DE NZ"),
        ("NZ", "AU", "CA DE MX US"),
    ],
)
def test_a_continent_is_near_to_itself_and_far_from_the_others(home: str, near: str, far: str) -> None:
    def zones(countries: str) -> set[Zone]:
        return {
            Origin(home).zone_of(replace(ADDRESS, region="", country=country))
            for country in countries.split()
        }

    assert zones(near) == {Zone.NEIGHBOURING}
    assert zones(far) == {Zone.INTERNATIONAL}


@pytest.mark.parametrize(
    ("country", "region"),
    [
        *(("US", region) for region in ("AK", "Alaska", "HI", "Hawaii")),
        *(("ES", region) for region in ("Las Palmas", "Santa Cruz de Tenerife")),
    ],
)
def test_what_lies_off_the_land_is_as_far_as_a_neighbour(country: str, region: str) -> None:
    destination = replace(ADDRESS, country=country, region=region)
    assert Origin(country, region).zone_of(destination) is Zone.NEIGHBOURING


@pytest.mark.parametrize(
    ("method", "zone", "light", "heavy", "days", "carriers"),
    [
        (Method.STANDARD, Zone.LOCAL, "4.90", "5.30", 2, "ups fedex dhl"),
        (Method.STANDARD, Zone.DOMESTIC, "4.90", "5.50", 4, "ups fedex dhl"),
        (Method.STANDARD, Zone.NEIGHBOURING, "12.90", "14.70", 6, "dhl ups fedex"),
        (Method.STANDARD, Zone.INTERNATIONAL, "24.90", "29.40", 10, "dhl ups fedex"),
        (Method.EXPRESS, Zone.LOCAL, "14.90", "16.10", 1, "fedex ups dhl"),
        (Method.EXPRESS, Zone.DOMESTIC, "14.90", "16.80", 1, "fedex ups dhl"),
        (Method.EXPRESS, Zone.NEIGHBOURING, "29.90", "34.10", 2, "dhl fedex ups"),
        (Method.EXPRESS, Zone.INTERNATIONAL, "49.90", "58.80", 4, "dhl fedex ups"),
    ],
)
def test_an_operator_who_sets_no_rates_has_these(
    method: Method, zone: Zone, light: str, heavy: str, days: int, carriers: str
) -> None:
    (rate,) = [rate for rate in RATES if (rate.method, rate.zone) == (method, zone)]
    assert [rate.price(grams) for grams in (2000, 3000)] == [Decimal(light), Decimal(heavy)]
    assert (rate.days, rate.carriers) == (days, tuple(carriers.split()))


@pytest.mark.parametrize(
    ("grams", "price"),
    [(1, "4.90"), (2000, "4.90"), (2001, "5.50"), (3000, "5.50"), (3001, "6.10"), (1_000_000, "603.70")],
)
def test_each_kilogram_that_is_begun_beyond_those_that_are_included_is_paid_for(
    grams: int, price: str
) -> None:
    (standard, _) = TARIFF.quotes(grams, ADDRESS, NOW)
    assert (standard.method, standard.amount.amount) == (Method.STANDARD, Decimal(price))


def test_there_is_one_quote_for_each_method_the_cheapest_first() -> None:
    quotes = TARIFF.quotes(500, ADDRESS, NOW)
    assert [(each.method, str(each.amount), each.carrier) for each in quotes] == [
        (Method.STANDARD, "4.90 USD", "ups"),
        (Method.EXPRESS, "14.90 USD", "fedex"),
    ]
    assert quotes[1].estimated_delivery < quotes[0].estimated_delivery


def test_farther_is_dearer_and_so_is_faster() -> None:
    for zones in (RATES[:4], RATES[4:]):
        assert [rate.zone for rate in zones] == list(Zone)
        for grams in (500, 10_000):
            prices = [rate.price(grams) for rate in zones]
            assert prices == sorted(prices)
    for slow, fast in zip(RATES[:4], RATES[4:], strict=True):
        assert slow.price(500) < fast.price(500)
        assert slow.days > fast.days


def test_every_rate_has_another_carrier_that_can_take_over() -> None:
    assert all(len(set(rate.carriers)) >= 2 for rate in RATES)


def test_what_no_carrier_takes_is_refused() -> None:
    with pytest.raises(TooHeavy) as refused:
        TARIFF.quotes(1_000_001, ADDRESS, NOW)
    assert refused.value.message == "a parcel may weigh 1,000 kg at most"
    assert refused.value.metadata == {"heaviest_grams": "1000000"}
    assert refused.value.reason == "TOO_HEAVY"


@pytest.mark.parametrize(
    ("start", "days", "end"),
    [("2026-11-26", 1, "2026-11-27"), ("2026-11-27", 1, "2026-11-30"), ("2026-11-28", 2, "2026-12-01")],
)
def test_carriers_deliver_from_monday_to_friday(start: str, days: int, end: str) -> None:
    moment = datetime.fromisoformat(f"{start}T15:30:00").replace(tzinfo=UTC)
    assert after_working_days(moment, days) == datetime.fromisoformat(f"{end}T15:30:00").replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "rates", [RATES[1:], (*RATES, RATES[0]), (replace(RATES[0], carriers=()), *RATES[1:])]
)
def test_a_tariff_with_a_gap_is_none(rates: Any) -> None:
    with pytest.raises(ValueError, match=r"tariff needs one rate|needs a carrier"):
        Tariff(Origin("US"), "USD", rates, 1000)
