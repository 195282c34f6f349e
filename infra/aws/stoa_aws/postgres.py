"""PostgreSQL: RDS with a standby in another zone, replicas to read from, and backups to any second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aws_cdk import Duration, RemovalPolicy, Tags
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from constructs import Construct

from stoa_aws import stores
from stoa_aws.environment import Environment
from stoa_aws.log_groups import log_group
from stoa_aws.nag import excuse
from stoa_aws.stack import ShopStack
from stoa_aws.stores import Place
from stoa_contracts.declarations import Store
from stoa_services import SERVICES

PORT = 5432
MASTER = "postgres"
_VERSION = "17.6"
_SHARED = "shared"

_SETTINGS = {
    "rds.force_ssl": "1",
    # Nothing of a row in the log: neither the details of an error nor the values of a statement.
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_statement": "ddl",
    "log_min_duration_statement": "1000",
    "jit": "0",  # compiling costs more than any query of a shop takes
}


@dataclass(frozen=True)
class Instance:
    """An instance and its replicas."""

    primary: rds.DatabaseInstance
    replicas: Sequence[rds.DatabaseInstanceReadReplica]


class PostgresStack(ShopStack):
    """One instance for all services that keep something in it, or one for each; each has its database."""

    def __init__(self, scope: Construct, at: Environment, place: Place) -> None:
        super().__init__(scope, "postgres", at)
        self._place = place
        self._guard = stores.guard(self, place, PORT)
        self._engine = rds.DatabaseInstanceEngine.postgres(
            version=rds.PostgresEngineVersion.of(_VERSION, _VERSION.split(".")[0])
        )
        self._parameters = rds.ParameterGroup(self, "settings", engine=self._engine, parameters=_SETTINGS)
        users = [service.name for service in SERVICES.values() if Store.POSTGRES in service.stores]
        wanted = users if at.size.postgres.per_service else [_SHARED]
        self.instances: Mapping[str, Instance] = {name: self._instance(name) for name in wanted}
        self._of = {user: self.instances.get(user) or self.instances[_SHARED] for user in users}

    def instance_of(self, service: str) -> Instance:
        """The instance that has the database of a service."""
        return self._of[service]

    @property
    def first(self) -> Instance:
        """The instance that has what is no service's, such as the schemas of events."""
        return next(iter(self.instances.values()))

    def _instance(self, name: str) -> Instance:
        size = self._at.size.postgres
        identifier = self._at.named(f"postgres-{name}")
        primary = rds.DatabaseInstance(
            self,
            name,
            engine=self._engine,
            multi_az=True,
            allocated_storage=size.storage_gb,
            storage_encrypted=True,
            storage_encryption_key=self._place.keys.data,
            credentials=rds.Credentials.from_generated_secret(
                MASTER,
                secret_name=self._at.secret(f"masters/postgres-{name}"),
                encryption_key=self._place.keys.secrets,
            ),
            backup_retention=Duration.days(14),
            deletion_protection=True,
            delete_automated_backups=False,
            removal_policy=RemovalPolicy.SNAPSHOT,
            **self._alike(identifier),
        )
        Tags.of(primary).add(stores.BACKUP_TAG, "daily")
        excuse(primary, "RDS11", stores.DEFAULT_PORT)
        excuse(primary, "SMG4", stores.USED_ONCE)
        primary.node.add_dependency(self._log_group(identifier))
        replicas = [
            self._replica(primary, f"{name}-replica-{number}") for number in range(1, size.replicas + 1)
        ]
        return Instance(primary, replicas)

    def _replica(self, primary: rds.DatabaseInstance, name: str) -> rds.DatabaseInstanceReadReplica:
        identifier = self._at.named(f"postgres-{name}")
        replica = rds.DatabaseInstanceReadReplica(
            self,
            name,
            source_database_instance=primary,
            deletion_protection=False,
            removal_policy=RemovalPolicy.DESTROY,
            **self._alike(identifier),
        )
        replica.node.add_dependency(self._log_group(identifier))
        excuse(replica, "RDS2", "a replica is encrypted as its primary is, with the same key")
        excuse(replica, "RDS3", "a replica is not what one fails over to: the primary has a standby for that")
        excuse(replica, "RDS10", "it holds nothing that its primary doesn't, which is protected")
        excuse(replica, "RDS11", stores.DEFAULT_PORT)
        return replica

    def _log_group(self, identifier: str) -> logs.LogGroup:
        name = f"/aws/rds/instance/{identifier}/postgresql"
        return log_group(self, f"log-{identifier}", self._place.keys.logs, name=name)

    def _alike(self, identifier: str) -> dict[str, Any]:
        """What a primary and its replicas have in common."""
        return {
            "instance_identifier": identifier,
            "instance_type": ec2.InstanceType(self._at.size.postgres.type),
            "max_allocated_storage": self._at.size.postgres.storage_limit_gb,
            "cloudwatch_logs_exports": ["postgresql"],
            "vpc": self._place.vpc,
            "vpc_subnets": stores.SUBNETS,
            "security_groups": [self._guard],
            "publicly_accessible": False,
            "port": PORT,
            "parameter_group": self._parameters,
            "storage_type": rds.StorageType.GP3,
            "ca_certificate": rds.CaCertificate.RDS_CA_RSA2048_G1,
            "auto_minor_version_upgrade": True,
            "iam_authentication": False,
            "enable_performance_insights": True,
            "performance_insight_encryption_key": self._place.keys.data,
        }
