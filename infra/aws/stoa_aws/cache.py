"""Carts: ElastiCache for Valkey, a primary with replicas, and a user for each service."""

from __future__ import annotations

from aws_cdk import RemovalPolicy
from aws_cdk import aws_elasticache as elasticache
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from stoa_aws import stores
from stoa_aws.accounts import READ_ONLY, AccountsStack
from stoa_aws.environment import Environment
from stoa_aws.log_groups import log_group
from stoa_aws.nag import excuse
from stoa_aws.stack import ShopStack
from stoa_aws.stores import Place
from stoa_contracts.declarations import Store
from stoa_services import SERVICES

PORT = 6379
_OF_A_SERVICE = "on ~* &* +@all -@admin -@dangerous +info"
_OF_OPERATORS = "on ~* &* -@all +@read +@connection +info"


class CacheStack(ShopStack):
    """A replication group, not a cluster: a script writes a cart and its events, which must be together."""

    def __init__(self, scope: Construct, at: Environment, place: Place, *, accounts: AccountsStack) -> None:
        super().__init__(scope, "carts", at)
        services = [service.name for service in SERVICES.values() if Store.REDIS in service.stores]
        users = [self._user(name, accounts.of_services[name], _OF_A_SERVICE) for name in services]
        users.append(self._user(READ_ONLY, accounts.of_operators, _OF_OPERATORS))
        group = elasticache.CfnUserGroup(
            self,
            "users",
            engine="valkey",
            user_group_id=at.named("carts"),
            user_ids=[user.user_id for user in users],
        )
        for user in users:
            group.node.add_dependency(user)
        subnets = elasticache.CfnSubnetGroup(
            self,
            "subnets",
            cache_subnet_group_name=at.named("carts"),
            description="Isolated subnets",
            subnet_ids=place.subnet_ids,
        )
        log = log_group(self, "log", place.keys.logs)
        settings = elasticache.CfnParameterGroup(
            self,
            "settings",
            cache_parameter_group_family="valkey8",
            description="A full server refuses writes, and forgets no cart",
            properties={"maxmemory-policy": "noeviction"},
        )
        self.group = elasticache.CfnReplicationGroup(
            self,
            "carts",
            replication_group_id=at.named("carts"),
            replication_group_description="Carts",
            engine="valkey",
            engine_version="8.0",
            cache_node_type=at.size.cache.type,
            num_cache_clusters=1 + at.size.cache.replicas,
            automatic_failover_enabled=True,
            multi_az_enabled=True,
            port=PORT,
            cache_subnet_group_name=subnets.ref,
            cache_parameter_group_name=settings.ref,
            security_group_ids=[stores.guard(self, place, PORT).security_group_id],
            user_group_ids=[group.ref],
            at_rest_encryption_enabled=True,
            kms_key_id=place.keys.data.key_arn,
            transit_encryption_enabled=True,
            transit_encryption_mode="required",
            snapshot_retention_limit=14,
            snapshot_window="04:00-05:00",
            auto_minor_version_upgrade=True,
            log_delivery_configurations=[
                elasticache.CfnReplicationGroup.LogDeliveryConfigurationRequestProperty(
                    destination_type="cloudwatch-logs",
                    destination_details=elasticache.CfnReplicationGroup.DestinationDetailsProperty(
                        cloud_watch_logs_details=elasticache.CfnReplicationGroup.CloudWatchLogsDestinationDetailsProperty(
                            log_group=log.log_group_name
                        )
                    ),
                    log_format="json",
                    log_type="engine-log",
                )
            ],
        )
        self.group.apply_removal_policy(RemovalPolicy.SNAPSHOT)
        excuse(self.group, "AEC5", stores.DEFAULT_PORT)
        excuse(self.group, "AEC6", "users have passwords of their own, which replace the one of all")

    def _user(self, name: str, account: secretsmanager.ISecret, rights: str) -> elasticache.CfnUser:
        return elasticache.CfnUser(
            self,
            f"user-{name}",
            engine="valkey",
            user_id=self._at.named(name.replace("_", "-")),
            user_name=name,
            access_string=rights,
            authentication_mode={
                "Type": "password",
                "Passwords": [account.secret_value_from_json("password").unsafe_unwrap()],
            },
        )
