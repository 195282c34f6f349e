"""Whom AWS calls: alarms on what the shop's own metrics don't see, and a budget.

The shop's services are watched from within the cluster (docs/operations.md); here is what stands around them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aws_cdk import Duration
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from stoa_aws.cache import CacheStack
from stoa_aws.documents import DocumentsStack
from stoa_aws.environment import Environment
from stoa_aws.events import EventsStack
from stoa_aws.front import FrontStack
from stoa_aws.postgres import PostgresStack
from stoa_aws.search import SearchStack
from stoa_aws.stack import ShopStack

_GB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """When a metric is worth a call: for `minutes` beyond `limit`, or below it if `below`."""

    limit: float
    minutes: int = 5
    below: bool = False
    statistic: str = "Average"


class WatchStack(ShopStack):
    """A topic that writes to the operators, the alarms that write to it, and a budget for the month."""

    def __init__(
        self, scope: Construct, at: Environment, *, key: kms.IKey, postgres: PostgresStack,
        documents: DocumentsStack, events: EventsStack, cache: CacheStack, search: SearchStack,
        front: FrontStack,
    ) -> None:  # fmt: skip
        super().__init__(scope, "watch", at, protected=False)
        self.topic = sns.Topic(
            self, "operators", topic_name=at.named("operators"), master_key=key, enforce_ssl=True
        )
        self.topic.add_subscription(subscriptions.EmailSubscription(at.mail))
        for service in ("budgets", "cloudwatch", "backup"):
            self.topic.add_to_resource_policy(
                iam.PolicyStatement(
                    principals=[iam.ServicePrincipal(f"{service}.amazonaws.com")],
                    actions=["sns:Publish"],
                    resources=[self.topic.topic_arn],
                    conditions={"StringEquals": {"aws:SourceAccount": at.account}},
                )
            )
        self._watch_postgres(postgres)
        self._watch_documents(documents)
        self._watch_events(events)
        self._watch_cache(cache)
        self._watch_search(search)
        self._watch_front(front)
        self._budget(at.size.budget_usd)

    def _watch_postgres(self, postgres: PostgresStack) -> None:
        for name, instance in postgres.instances.items():
            where = {"DBInstanceIdentifier": instance.primary.instance_identifier}
            self._alarm(
                f"postgres-{name}-cpu", "AWS/RDS", "CPUUtilization", where, Threshold(limit=80, minutes=15)
            )
            # Storage grows by itself, until its limit.
            self._alarm(
                f"postgres-{name}-storage",
                "AWS/RDS",
                "FreeStorageSpace",
                where,
                Threshold(limit=0.1 * self._at.size.postgres.storage_gb * _GB, below=True),
            )
            self._alarm(
                f"postgres-{name}-memory",
                "AWS/RDS",
                "FreeableMemory",
                where,
                Threshold(limit=0.25 * _GB, minutes=15, below=True),
            )
            for number, replica in enumerate(instance.replicas, start=1):
                self._alarm(
                    f"postgres-{name}-replica-{number}-lag",
                    "AWS/RDS",
                    "ReplicaLag",
                    {"DBInstanceIdentifier": replica.instance_identifier},
                    Threshold(limit=30, statistic="Maximum"),
                )

    def _watch_documents(self, documents: DocumentsStack) -> None:
        where = {"DBClusterIdentifier": documents.cluster.cluster_identifier}
        self._alarm("documents-cpu", "AWS/DocDB", "CPUUtilization", where, Threshold(limit=80, minutes=15))
        self._alarm(
            "documents-lag", "AWS/DocDB", "DBClusterReplicaLagMaximum", where, Threshold(limit=10_000)
        )

    def _watch_events(self, events: EventsStack) -> None:
        where = {"Cluster Name": events.name}
        some = Threshold(limit=0, statistic="Maximum")
        self._alarm("events-offline", "AWS/Kafka", "OfflinePartitionsCount", where, some)
        none = Threshold(limit=1, below=True, statistic="Maximum")
        self._alarm("events-controller", "AWS/Kafka", "ActiveControllerCount", where, none)
        for broker in range(1, self._at.size.kafka.brokers + 1):
            self._alarm(
                f"events-storage-{broker}",
                "AWS/Kafka",
                "KafkaDataLogsDiskUsed",
                {**where, "Broker ID": str(broker)},
                Threshold(limit=85),
            )

    def _watch_cache(self, cache: CacheStack) -> None:
        where = {"ReplicationGroupId": cache.group.ref}
        self._alarm(
            "carts-memory",
            "AWS/ElastiCache",
            "DatabaseMemoryUsagePercentage",
            where,
            Threshold(limit=80, statistic="Maximum"),
        )
        self._alarm(
            "carts-cpu",
            "AWS/ElastiCache",
            "EngineCPUUtilization",
            where,
            Threshold(limit=80, statistic="Maximum"),
        )

    def _watch_search(self, search: SearchStack) -> None:
        where = {"DomainName": search.domain.ref, "ClientId": self._at.account}
        some = Threshold(limit=0, minutes=1, statistic="Maximum")
        self._alarm("search-red", "AWS/ES", "ClusterStatus.red", where, some)
        self._alarm(
            "search-writes",
            "AWS/ES",
            "ClusterIndexWritesBlocked",
            where,
            Threshold(limit=0, statistic="Maximum"),
        )
        self._alarm(
            "search-storage",
            "AWS/ES",
            "FreeStorageSpace",  # in MB, of the fullest node
            where,
            Threshold(limit=0.2 * self._at.size.search.storage_gb * 1024, below=True, statistic="Minimum"),
        )

    def _watch_front(self, front: FrontStack) -> None:
        balancer = {"LoadBalancer": front.balancer.load_balancer_full_name}
        targets = {**balancer, "TargetGroup": front.targets.target_group_full_name}
        self._alarm(
            "front-no-gateway",
            "AWS/ApplicationELB",
            "HealthyHostCount",
            targets,
            Threshold(limit=1, minutes=2, below=True, statistic="Minimum"),
        )
        self._alarm(
            "front-slow",
            "AWS/ApplicationELB",
            "TargetResponseTime",
            balancer,
            Threshold(limit=1, statistic="p99"),
        )
        self._alarm(
            "front-errors",
            "AWS/CloudFront",
            "5xxErrorRate",  # per cent
            {"DistributionId": front.distribution.distribution_id, "Region": "Global"},
            Threshold(limit=1),
        )

    def _alarm(
        self, name: str, namespace: str, metric: str, where: Mapping[str, str], threshold: Threshold
    ) -> None:
        alarm = cloudwatch.Alarm(
            self,
            name,
            alarm_name=self._at.named(name),
            metric=cloudwatch.Metric(
                namespace=namespace,
                metric_name=metric,
                dimensions_map=dict(where),
                statistic=threshold.statistic,
                period=Duration.minutes(1),
            ),
            threshold=threshold.limit,
            evaluation_periods=threshold.minutes,
            comparison_operator=(
                cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
                if threshold.below
                else cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD
            ),
            treat_missing_data=cloudwatch.TreatMissingData.MISSING,
        )
        alarm.add_alarm_action(actions.SnsAction(self.topic))
        alarm.add_ok_action(actions.SnsAction(self.topic))

    def _budget(self, usd: int) -> None:
        def when(kind: str, percent: int) -> budgets.CfnBudget.NotificationWithSubscribersProperty:
            return budgets.CfnBudget.NotificationWithSubscribersProperty(
                notification=budgets.CfnBudget.NotificationProperty(
                    comparison_operator="GREATER_THAN",
                    notification_type=kind,
                    threshold=percent,
                    threshold_type="PERCENTAGE",
                ),
                subscribers=[
                    budgets.CfnBudget.SubscriberProperty(
                        subscription_type="SNS", address=self.topic.topic_arn
                    )
                ],
            )

        budgets.CfnBudget(
            self,
            "budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_name=self._at.named("month"),
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=usd, unit="USD"),
                # Of what has the shop's tag, once that is activated as a cost allocation tag.
                cost_filters={"TagKeyValue": [f"user:stoa:environment${self._at.name}"]},
            ),
            notifications_with_subscribers=[
                when("ACTUAL", 80), when("ACTUAL", 100), when("FORECASTED", 100),
            ],
        )  # fmt: skip
