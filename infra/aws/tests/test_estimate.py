"""The estimate in docs/aws.md is what the code says, and covers whatever the templates make."""

import itertools
from decimal import Decimal
from pathlib import Path

import pytest

from stoa_aws import documentation, estimate, prices
from stoa_aws.sizes import SIZES, SMALL, Size

from .conftest import Synthesise, Templates

DOCUMENT = Path(__file__).parents[3] / "docs" / "aws.md"


def test_the_document_has_the_estimate(synthesise: Synthesise) -> None:
    tables = documentation.tables({name: synthesise(name).values() for name in SIZES})
    assert tables in DOCUMENT.read_text(), "run `stoa infra --estimate`, which writes it there"


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_the_budget_leaves_a_quarter_above_the_estimate(size: Size, synthesise: Synthesise) -> None:
    total = sum(line.usd for line in estimate.bill(synthesise(size.name).values(), size, prices.load()))
    assert Decimal("1.1") <= size.budget_usd / total <= Decimal("1.4")


def test_a_larger_size_costs_more_in_every_group(synthesise: Synthesise) -> None:
    sums = [
        estimate.by_group(estimate.bill(synthesise(name).values(), size, prices.load()))
        for name, size in SIZES.items()
    ]
    for smaller, larger in itertools.pairwise(sums):
        assert all(smaller[group] < larger[group] for group in estimate.GROUPS)


def test_the_bill_counts_what_the_templates_make(synthesise: Synthesise) -> None:
    templates: Templates = synthesise("small")
    lines = estimate.bill(templates.values(), SMALL, prices.load())
    (brokers,) = [line for line in lines if line.what == SMALL.kafka.type]
    assert brokers.quantity == SMALL.kafka.brokers
    assert brokers.usd == 3 * Decimal("0.0456") * 730
    with_standby, replica = [
        line for line in lines if line.what == "db.t4g.medium" and line.group == estimate.POSTGRES
    ]
    assert [with_standby.quantity, replica.quantity] == [Decimal(2), Decimal(1)]


def test_what_has_no_price_is_an_error() -> None:
    template = {"Resources": {"surprise": {"Type": "AWS::Lambda::Function"}}}
    with pytest.raises(estimate.Unpriced, match="AWS::Lambda::Function"):
        estimate.bill([template], SMALL, prices.load())


def test_a_price_that_is_missing_is_named() -> None:
    with pytest.raises(prices.PriceMissing, match=r"ec2\.m1\.tiny"):
        prices.load().of("ec2", "m1.tiny")
