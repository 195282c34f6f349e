from decimal import Decimal

import pytest
from google.type import money_pb2
from hypothesis import given
from hypothesis import strategies as st

from stoa_chassis.errors import InvalidArgument
from stoa_chassis.money_proto import from_proto, to_proto
from stoa_contracts.money import Money


@given(st.integers(-99_999_999_99, 99_999_999_99))
def test_survives_the_way_through_the_message_unchanged(cents: int) -> None:
    money = Money(Decimal(cents).scaleb(-2), "USD")
    assert from_proto(to_proto(money), "price") == money


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (money_pb2.Money(currency_code="USD", units=1, nanos=5_000_000), "price.nanos"),
        (money_pb2.Money(currency_code="USD", units=1, nanos=-10_000_000), "price.nanos"),
        (money_pb2.Money(currency_code="USD", units=-1, nanos=10_000_000), "price.nanos"),
        (money_pb2.Money(currency_code="USD", units=1, nanos=1_000_000_000), "price.nanos"),
        (money_pb2.Money(currency_code="USD", units=2**62), "price"),
        (money_pb2.Money(currency_code="", units=1), "price.currency_code"),
        (money_pb2.Money(currency_code="usd", units=1), "price.currency_code"),
    ],
)
def test_a_message_that_is_no_amount_is_refused_by_field(message: money_pb2.Money, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        from_proto(message, "price")
    assert [violation.field for violation in refused.value.violations] == [field]
