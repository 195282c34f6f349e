"""How clients of Kafka connect: to brokers that ask nobody, and to such as want an account."""

import pytest

from stoa_chassis.kafka import connection


def account(bootstrap: str) -> dict[str, object]:
    return {
        name: value
        for name, value in connection(bootstrap).items()
        if name.startswith(("sasl", "sec", "ssl"))
    }


def test_plain_addresses_are_taken_as_they_are() -> None:
    assert connection("one:9092,two:9092")["bootstrap.servers"] == "one:9092,two:9092"
    assert account("one:9092,two:9092") == {}


def test_a_url_has_the_account_that_brokers_ask_for() -> None:
    url = "sasl_ssl://order:p%2Fw@one:9093,two:9093"
    assert connection(url)["bootstrap.servers"] == "one:9093,two:9093"
    assert account(url) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "order",
        "sasl.password": "p/w",
    }


def test_a_url_names_the_authority_of_certificates_that_the_system_does_not_know() -> None:
    assert account("sasl_ssl://order:pw@one:9093?ca=/run/ca.pem")["ssl.ca.location"] == "/run/ca.pem"


@pytest.mark.parametrize(
    "url", ["sasl_ssl://one:9093", "kafka://order:secret@one:9093", "sasl_ssl://a:secret@"]
)
def test_what_is_no_such_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="must be host:port") as refused:
        connection(url)
    assert "secret" not in str(refused.value)
