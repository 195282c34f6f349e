"""The keys that encrypt what is stored: one for each kind of thing, so that each can be granted alone."""

from __future__ import annotations

from aws_cdk import RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from stoa_aws.environment import Environment
from stoa_aws.stack import ShopStack


class KeysStack(ShopStack):
    """Keys of ours at KMS, renewed every year and never deleted with the stack.

    `data` is for stores and their backups, `secrets` for Secrets Manager and the secrets in the cluster,
    `logs` for what is logged and said to operators.
    """

    def __init__(self, scope: Construct, at: Environment) -> None:
        super().__init__(scope, "keys", at)
        self.data = self._key(at, "data", "stores and their backups")
        self.secrets = self._key(at, "secrets", "Secrets Manager, and secrets in the cluster")
        self.logs = self._key(at, "logs", "logs and alarms")
        self.logs.grant_encrypt_decrypt(
            iam.ServicePrincipal(
                f"logs.{at.region}.amazonaws.com",
                conditions={
                    "ArnLike": {
                        "kms:EncryptionContext:aws:logs:arn": (
                            f"arn:aws:logs:{at.region}:{at.account}:log-group:*"
                        )
                    }
                },
            )
        )
        for service in ("cloudwatch", "events", "budgets", "backup"):
            self.logs.grant(
                iam.ServicePrincipal(
                    f"{service}.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": at.account}}
                ),
                "kms:Decrypt",
                "kms:GenerateDataKey*",
            )

    def _key(self, at: Environment, name: str, what: str) -> kms.Key:
        return kms.Key(
            self,
            name,
            alias=at.named(name),
            description=f"Stoa, {at.name}: {what}",
            enable_key_rotation=True,
            removal_policy=RemovalPolicy.RETAIN,
        )
