"""The accounts at the stores: for each service one, for operators one that reads, and each server's own
master.

Passwords are made by Secrets Manager; nobody has typed one. Users of the cache are made of them by
CloudFormation; roles and databases of the other stores by a Job in the cluster (docs/aws.md).
"""

from __future__ import annotations

import json

from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from stoa_aws.environment import Environment
from stoa_aws.nag import excuse
from stoa_aws.stack import ShopStack
from stoa_services import SERVICES

READ_ONLY = "stoa_readonly"
"""The operators' account, as the local stack names it."""
REGISTRY = "registry"
"""The schema registry, which runs in the cluster and keeps its schemas in PostgreSQL."""
_LENGTH = 40


class AccountsStack(ShopStack):
    """A secret with `username` and `password` for each account: `stoa/<environment>/accounts/<name>`."""

    def __init__(self, scope: Construct, at: Environment, *, key: kms.IKey) -> None:
        super().__init__(scope, "accounts", at)
        self._key = key
        self.of_services = {
            service.name: self._account(service.name) for service in SERVICES.values() if service.stores
        }
        self.of_operators = self._account(READ_ONLY)
        self.of_search = self._account("search-master")
        self.of_registry = self._account(REGISTRY)

    def _account(self, name: str) -> secretsmanager.Secret:
        """Make an account, whose password has letters and digits alone, as it becomes a part of URLs."""
        secret = secretsmanager.Secret(
            self,
            name,
            secret_name=self._at.secret(f"accounts/{name}"),
            encryption_key=self._key,
            generate_secret_string=secretsmanager.SecretStringGenerator(
                secret_string_template=json.dumps({"username": name}),
                generate_string_key="password",
                password_length=_LENGTH,
                exclude_punctuation=True,
            ),
        )
        excuse(
            secret,
            "SMG4",
            "a new password has to reach store and pods together, which the Job that makes the accounts does "
            "when an operator starts it",
        )
        return secret
