"""Events: MSK in three zones, whose clients are known by their roles and speak TLS alone."""

from __future__ import annotations

from collections.abc import Iterable

from aws_cdk import Fn, RemovalPolicy
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_msk as msk
from constructs import Construct

from stoa_aws import stores
from stoa_aws.environment import Environment
from stoa_aws.log_groups import log_group
from stoa_aws.rights import EVERYTHING, Kind, Right
from stoa_aws.stack import ShopStack
from stoa_aws.stores import Place

PORT = 9098
"""Of clients that are known by their role."""
_VERSION = "3.9.x.kraft"
_SETTINGS = """\
auto.create.topics.enable=false
default.replication.factor=3
min.insync.replicas=2
unclean.leader.election.enable=false
group.min.session.timeout.ms=3000
"""
_FULL_PERCENT = 70


class EventsStack(ShopStack):
    """A cluster of brokers that keeps each message in three zones, two of which have acknowledged it."""

    def __init__(self, scope: Construct, at: Environment, place: Place) -> None:
        super().__init__(scope, "events", at)
        guard = stores.guard(self, place, PORT)
        # Brokers keep to each other under the same group.
        guard.connections.allow_internally(ec2.Port.all_traffic(), "brokers")
        group = log_group(self, "log", place.keys.logs)
        settings = msk.CfnConfiguration(
            self,
            "settings",
            name=at.named("events"),
            server_properties=_SETTINGS,
            kafka_versions_list=[_VERSION],
        )
        size = at.size.kafka
        self.name = at.named("events")
        self.cluster = msk.CfnCluster(
            self,
            "cluster",
            cluster_name=self.name,
            kafka_version=_VERSION,
            number_of_broker_nodes=size.brokers,
            broker_node_group_info=msk.CfnCluster.BrokerNodeGroupInfoProperty(
                client_subnets=place.subnet_ids,
                instance_type=size.type,
                security_groups=[guard.security_group_id],
                storage_info=msk.CfnCluster.StorageInfoProperty(
                    ebs_storage_info=msk.CfnCluster.EBSStorageInfoProperty(volume_size=size.storage_gb)
                ),
            ),
            configuration_info=msk.CfnCluster.ConfigurationInfoProperty(
                arn=settings.attr_arn, revision=settings.attr_latest_revision_revision
            ),
            client_authentication=msk.CfnCluster.ClientAuthenticationProperty(
                sasl=msk.CfnCluster.SaslProperty(iam=msk.CfnCluster.IamProperty(enabled=True)),
                unauthenticated=msk.CfnCluster.UnauthenticatedProperty(enabled=False),
            ),
            encryption_info=msk.CfnCluster.EncryptionInfoProperty(
                encryption_at_rest=msk.CfnCluster.EncryptionAtRestProperty(
                    data_volume_kms_key_id=place.keys.data.key_arn
                ),
                encryption_in_transit=msk.CfnCluster.EncryptionInTransitProperty(
                    client_broker="TLS", in_cluster=True
                ),
            ),
            logging_info=msk.CfnCluster.LoggingInfoProperty(
                broker_logs=msk.CfnCluster.BrokerLogsProperty(
                    cloud_watch_logs=msk.CfnCluster.CloudWatchLogsProperty(
                        enabled=True, log_group=group.log_group_name
                    )
                )
            ),
        )
        self.cluster.apply_removal_policy(RemovalPolicy.RETAIN)
        self._grow(size.storage_gb)

    def statements(self, rights: Iterable[Right]) -> list[iam.PolicyStatement]:
        """Rights as IAM has them, on this cluster's topics and groups."""
        return [
            iam.PolicyStatement(
                actions=[f"kafka-cluster:{action}" for action in right.actions], resources=self._arns(right)
            )
            for right in rights
        ]

    def _arns(self, right: Right) -> list[str]:
        if right.kind is Kind.CLUSTER:
            return [self.cluster.attr_arn]
        prefix = f"arn:aws:kafka:{self.region}:{self.account}:{right.kind}/{self.name}"
        if right.names == EVERYTHING:
            return [f"{prefix}/*"]
        # arn:aws:kafka:<region>:<account>:cluster/<name>/<id>
        unique = Fn.select(2, Fn.split("/", self.cluster.attr_arn))
        return [f"{prefix}/{unique}/{name}" for name in right.names]

    def _grow(self, storage_gb: int) -> None:
        """Give brokers more room when they are rather full; they never get less."""
        target = scaling.ScalableTarget(
            self,
            "storage",
            service_namespace=scaling.ServiceNamespace.KAFKA,
            resource_id=self.cluster.attr_arn,
            scalable_dimension="kafka:broker-storage:VolumeSize",
            min_capacity=1,
            max_capacity=storage_gb * 4,
        )
        target.scale_to_track_metric(
            "full",
            predefined_metric=scaling.PredefinedMetric.KAFKA_BROKER_STORAGE_UTILIZATION,
            target_value=_FULL_PERCENT,
            disable_scale_in=True,
        )
