"""Which shop is meant: a name, an account, a domain and a size, as `cdk -c name=value` gives them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

import aws_cdk

from stoa_aws.sizes import SIZES, Size

_FORMS = {
    "environment": re.compile(r"[a-z][a-z0-9-]{1,15}\Z"),
    "account": re.compile(r"[0-9]{12}\Z"),
    "region": re.compile(r"us-east-1\Z"),
    "domain": re.compile(r"([a-z0-9-]+\.)+[a-z]{2,}\Z"),
    "zone": re.compile(r"Z[A-Z0-9]+\Z"),
    "mail": re.compile(r"[^@\s]+@[^@\s]+\Z"),
    "administrators": re.compile(r"arn:aws:iam::[0-9]{12}:role/\S+\Z"),
}
# Where nothing is said: a shop that is only synthesised, to look at and to test. It can't be deployed.
_EXAMPLE = {
    "environment": "production",
    "account": "123456789012",
    "region": "us-east-1",
    "domain": "shop.example.com",
    "zone": "Z0123456789EXAMPLE",
    "mail": "operators@example.com",
    "administrators": "arn:aws:iam::123456789012:role/operators",
    "size": "small",
    "operators": "",
}


class InvalidSetting(ValueError):
    """A setting is not of its form; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One shop in one account.

    `zone` is the hosted zone of `domain` at Route 53, `mail` whom alarms and budgets write to. Whoever takes
    the role `administrators` administers the cluster. Its API is reached from within the network alone,
    unless `operators` names networks outside.
    """

    name: str
    account: str
    region: str
    domain: str
    zone: str
    mail: str
    administrators: str
    operators: tuple[str, ...]
    size: Size

    @classmethod
    def of(cls, given: Mapping[str, str | None]) -> Environment:
        """Read the settings that were given, the rest as in the example. Raises InvalidSetting."""
        values = _EXAMPLE | {name: value for name, value in given.items() if value is not None}
        for name, form in _FORMS.items():
            if not form.match(values[name]):
                raise InvalidSetting(f"{name}={values[name]} is not of the form {form.pattern}")
        if values["size"] not in SIZES:
            raise InvalidSetting(f"size={values['size']} is none of {', '.join(SIZES)}")
        return cls(
            name=values["environment"],
            account=values["account"],
            region=values["region"],
            domain=values["domain"],
            zone=values["zone"],
            mail=values["mail"],
            administrators=values["administrators"],
            operators=_networks(values["operators"]),
            size=SIZES[values["size"]],
        )

    @staticmethod
    def settings() -> tuple[str, ...]:
        """The names of what may be given."""
        return tuple(_EXAMPLE)

    @property
    def aws(self) -> aws_cdk.Environment:
        """Account and region, as a stack takes them."""
        return aws_cdk.Environment(account=self.account, region=self.region)

    @property
    def zones(self) -> tuple[str, ...]:
        """The three availability zones; named, since nothing asks AWS for them."""
        return tuple(f"{self.region}{letter}" for letter in "abc")

    @property
    def repository(self) -> str:
        """What the names of this shop's images begin with in the account's registry."""
        return f"stoa-{self.name}"

    def named(self, what: str) -> str:
        """A name that is this shop's in the account: stoa-production-orders."""
        return f"stoa-{self.name}-{what}"

    def secret(self, what: str) -> str:
        """The name of a secret of this shop."""
        return f"stoa/{self.name}/{what}"


def _networks(text: str) -> tuple[str, ...]:
    networks = tuple(filter(None, text.split(",")))
    for network in networks:
        try:
            prefix = ipaddress.ip_network(network).prefixlen
        except ValueError as error:
            raise InvalidSetting(f"operators: {error}") from None
        if not prefix:
            raise InvalidSetting("operators names the whole internet")
    return networks
