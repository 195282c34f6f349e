import pytest

from stoa_aws.environment import Environment, InvalidSetting


def test_settings_that_are_left_out_are_those_of_an_example() -> None:
    at = Environment.of({"environment": "staging", "size": "medium", "operators": None})
    assert (at.name, at.size.name, at.account) == ("staging", "medium", "123456789012")
    assert at.named("events") == "stoa-staging-events"
    assert at.secret("order") == "stoa/staging/order"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("environment", "Production"),
        ("account", "12345"),
        ("region", "eu-central-1"),  # the certificate and the firewall of CloudFront live in us-east-1
        ("domain", "shop"),
        ("mail", "nobody"),
        ("size", "huge"),
        ("operators", "0.0.0.0/0"),
        ("operators", "203.0.113.0/24,::/0"),
        ("operators", "203.0.113.7/24"),
    ],
)
def test_a_setting_that_is_wrong_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=name):
        Environment.of({name: value})


def test_operators_may_have_several_networks() -> None:
    at = Environment.of({"operators": "203.0.113.0/24,2001:db8::/32"})
    assert at.operators == ("203.0.113.0/24", "2001:db8::/32")
