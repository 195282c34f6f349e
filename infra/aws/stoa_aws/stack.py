"""What every stack of a shop is."""

from __future__ import annotations

from aws_cdk import Stack
from constructs import Construct

from stoa_aws.environment import Environment


class ShopStack(Stack):
    """A stack named stoa-<environment>-<what>; one that is protected is not deleted by mistake."""

    def __init__(self, scope: Construct, what: str, at: Environment, *, protected: bool = True) -> None:
        super().__init__(scope, at.named(what), env=at.aws, termination_protection=protected)
        self._at = at
