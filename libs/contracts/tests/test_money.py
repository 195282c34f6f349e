from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_contracts.money import CurrencyMismatch, Money

cents = st.integers(-99_999_999_99, 99_999_999_99)


def usd(amount: str | int) -> Money:
    return Money(Decimal(amount), "USD")


def of_cents(value: int) -> Money:
    return Money(Decimal(value).scaleb(-2), "USD")


@given(cents, cents)
def test_adds_and_subtracts_exactly(a: int, b: int) -> None:
    assert of_cents(a) + of_cents(b) - of_cents(b) == of_cents(a)
    assert (of_cents(a) < of_cents(b)) == (a < b)


@given(cents)
def test_is_made_of_cents_and_gives_them_back(value: int) -> None:
    made = Money.of_cents(value, "USD")
    assert made == of_cents(value)
    assert made.cents == value


@given(st.integers(-9999, 9999), st.integers(0, 999))
def test_multiplying_by_a_quantity_is_repeated_addition(value: int, quantity: int) -> None:
    total = Money.zero("USD")
    for _ in range(quantity):
        total += of_cents(value)
    assert of_cents(value) * quantity == total == quantity * of_cents(value)


@given(st.decimals(-(10**9), 10**9, places=6))
def test_is_rounded_to_cents_half_away_from_zero(amount: Decimal) -> None:
    rounded = Money(amount, "USD").amount
    assert rounded.as_tuple().exponent == -2
    assert abs(rounded - amount) <= Decimal("0.005")
    if abs(rounded - amount) == Decimal("0.005"):
        assert abs(rounded) > abs(amount)


@pytest.mark.parametrize(
    ("amount", "rounded"),
    [("0.004", "0.00"), ("0.005", "0.01"), ("0.015", "0.02"), ("0.025", "0.03"), ("-0.005", "-0.01")],
)
def test_half_a_cent_is_rounded_away_from_zero(amount: str, rounded: str) -> None:
    assert str(usd(amount)) == f"{rounded} USD"


def test_a_rate_gives_rounded_cents() -> None:
    assert usd("19.99") * Decimal("0.0825") == usd("1.65")
    assert usd("0.50") * Decimal("0.01") == usd("0.01")


def test_amounts_are_ordered_as_numbers_are() -> None:
    one, two = usd(1), usd(2)
    assert (one < two, one <= two, one > two, one >= two) == (True, True, False, False)
    assert (two < one, two <= one, two > one, two >= one) == (False, False, True, True)
    assert (one < one, one <= one, one > one, one >= one) == (False, True, False, True)
    assert usd("0.01")
    assert not usd(0)


@pytest.mark.parametrize("amount", ["9999999999.99", "-9999999999.99", "9999999999.994"])
def test_takes_the_greatest_amounts_that_a_store_holds(amount: str) -> None:
    assert abs(usd(amount).amount) == Decimal("9999999999.99")


@pytest.mark.parametrize("amount", ["-0.00", "-0.001", "-0", "0E+5"])
def test_minus_nothing_is_nothing(amount: str) -> None:
    assert str(-usd(0)) == str(usd(amount)) == "0.00 USD"
    assert not -usd(0)


@given(cents)
def test_survives_the_way_through_the_record_of_events(value: int) -> None:
    record = of_cents(value).to_dict()
    assert list(record) == ["currency_code", "amount"]
    assert Money.from_dict(record) == of_cents(value)


@pytest.mark.parametrize("amount", [1.5, True, "1.50"])
def test_refuses_what_is_not_a_decimal(amount: object) -> None:
    with pytest.raises(TypeError, match="amount of money"):
        Money(amount, "USD")  # type: ignore[arg-type]


def test_whole_units_may_be_an_int() -> None:
    assert Money(5, "USD") == usd("5.00")  # type: ignore[arg-type]


@pytest.mark.parametrize("factor", [1.5, True])
def test_refuses_to_be_multiplied_by_what_is_not_exact(factor: object) -> None:
    with pytest.raises(TypeError, match="operand"):
        usd(1) * factor  # type: ignore[operator]


@pytest.mark.parametrize(
    "amount",
    [
        *("NaN", "Infinity", "10000000000", "-10000000000", "10000000000.00", "-10000000000.00"),
        *("9999999999.995", "-9999999999.995"),
    ],
)
def test_refuses_an_amount_that_no_store_holds(amount: str) -> None:
    with pytest.raises(ValueError, match="out of range"):
        usd(amount)


@pytest.mark.parametrize("currency", ["", "usd", "US", "USDX", "USD\n"])
def test_refuses_what_is_no_currency_code(currency: str) -> None:
    with pytest.raises(ValueError, match="currency"):
        Money(Decimal(1), currency)


def test_refuses_to_mix_currencies_but_compares_them_as_different() -> None:
    euro = Money(Decimal(1), "EUR")
    assert usd(1) != euro
    with pytest.raises(CurrencyMismatch):
        usd(1) + euro
    with pytest.raises(CurrencyMismatch):
        assert usd(1) < euro
    with pytest.raises(TypeError, match="int"):
        usd(1) + 1  # type: ignore[operator]
