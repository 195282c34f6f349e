"""Karpenter's side of AWS: what it may do with machines, and how it learns that one will be taken away.

Karpenter itself, and what it may choose from, is installed in the cluster: see docs/aws.md. Every right is
limited to machines that it tags as this cluster's (https://karpenter.sh/docs/reference/cloudformation/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import Duration
from aws_cdk import aws_eks_v2 as eks
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stoa_aws.environment import Environment
from stoa_aws.nag import excuse
from stoa_aws.pod_identity import pod_role
from stoa_aws.stack import ShopStack

NAMESPACE = ACCOUNT = "karpenter"

_NEWS = {
    "spot": ("aws.ec2", "EC2 Spot Instance Interruption Warning"),
    "rebalance": ("aws.ec2", "EC2 Instance Rebalance Recommendation"),
    "state": ("aws.ec2", "EC2 Instance State-change Notification"),
    "health": ("aws.health", "AWS Health Event"),
}
_STARTED_FROM = ("image", "snapshot", "security-group", "subnet", "capacity-reservation")
_STARTED = ("fleet", "instance", "volume", "network-interface", "launch-template", "spot-instances-request")
_LOOKED_AT = (
    "CapacityReservations", "Images", "Instances", "InstanceStatus", "InstanceTypeOfferings", "InstanceTypes",
    "LaunchTemplates", "SecurityGroups", "SpotPriceHistory", "Subnets",
)  # fmt: skip


class AutoscalingStack(ShopStack):
    """Karpenter's role, the profile of the nodes that it starts, and its queue of interruptions."""

    def __init__(
        self, scope: Construct, at: Environment, *, cluster: eks.Cluster, node_role: iam.IRole
    ) -> None:
        super().__init__(scope, "autoscaling", at, protected=False)
        self._cluster_name = at.named("cluster")  # in the keys of conditions, where no reference can stand
        self.profile = iam.CfnInstanceProfile(
            self, "profile", instance_profile_name=at.named("node"), roles=[node_role.role_name]
        )
        self.queue = self._queue()
        role = pod_role(self, cluster, NAMESPACE, ACCOUNT)
        rights = self._rights(cluster, node_role)
        for statement in rights:
            role.add_to_policy(statement)
        excuse(
            role,
            "IAM5",
            "it starts machines that have no ARN yet: conditions on tags keep each right to this cluster, "
            "and EC2's questions and prices know no resources",
            of=sorted(
                {f"Resource::{arn}" for right in rights for arn in right.resources if arn.endswith("*")}
            ),
        )

    def _queue(self) -> sqs.Queue:
        queue = sqs.Queue(
            self,
            "interruptions",
            queue_name=self._at.named("interruptions"),
            retention_period=Duration.minutes(5),
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
        )
        excuse(queue, "SQS3", "a notice counts for minutes; one that can't be read is worth nothing later")
        for name, (source, kind) in _NEWS.items():
            events.Rule(
                self,
                name,
                event_pattern=events.EventPattern(source=[source], detail_type=[kind]),
                targets=[targets.SqsQueue(queue)],
            )
        return queue

    def _rights(self, cluster: eks.Cluster, node_role: iam.IRole) -> Sequence[iam.PolicyStatement]:
        owned = f"kubernetes.io/cluster/{self._cluster_name}"
        asked = {
            "StringEquals": {
                f"aws:RequestTag/{owned}": "owned",
                "aws:RequestTag/eks:eks-cluster-name": self._cluster_name,
            },
            "StringLike": {"aws:RequestTag/karpenter.sh/nodepool": "*"},
        }
        ours = {
            "StringEquals": {f"aws:ResourceTag/{owned}": "owned"},
            "StringLike": {"aws:ResourceTag/karpenter.sh/nodepool": "*"},
        }
        here = {"StringEquals": {"aws:RequestedRegion": self._at.region}}
        return (
            _allow(["ec2:RunInstances", "ec2:CreateFleet"], self._ec2(*_STARTED_FROM)),
            _allow(["ec2:RunInstances", "ec2:CreateFleet"], self._ec2("launch-template"), ours),
            _allow(
                ["ec2:RunInstances", "ec2:CreateFleet", "ec2:CreateLaunchTemplate"],
                self._ec2(*_STARTED),
                asked,
            ),
            _allow(
                ["ec2:CreateTags"],
                self._ec2(*_STARTED),
                {
                    **asked,
                    "StringEquals": {
                        **asked["StringEquals"],
                        "ec2:CreateAction": ["RunInstances", "CreateFleet", "CreateLaunchTemplate"],
                    },
                },
            ),
            _allow(
                ["ec2:CreateTags"],
                self._ec2("instance"),
                {
                    **ours,
                    "ForAllValues:StringEquals": {
                        "aws:TagKeys": ["eks:eks-cluster-name", "karpenter.sh/nodeclaim", "Name"]
                    },
                },
            ),
            _allow(
                ["ec2:TerminateInstances", "ec2:DeleteLaunchTemplate"],
                self._ec2("instance", "launch-template"),
                ours,
            ),
            _allow([f"ec2:Describe{what}" for what in _LOOKED_AT], ["*"], here),
            _allow(["ssm:GetParameter"], [f"arn:aws:ssm:{self._at.region}::parameter/aws/service/*"]),
            _allow(["pricing:GetProducts"], ["*"]),
            _allow(["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"], [self.queue.queue_arn]),
            _allow(
                ["iam:PassRole"],
                [node_role.role_arn],
                {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
            ),
            _allow(["iam:GetInstanceProfile"], [self.profile.attr_arn]),
            _allow(["eks:DescribeCluster"], [cluster.cluster_arn]),
        )

    def _ec2(self, *kinds: str) -> list[str]:
        """The ARNs of all of these kinds; images and snapshots have no account in theirs."""
        return [f"arn:aws:ec2:{self._at.region}:*:{kind}/*" for kind in kinds]


def _allow(
    actions: Sequence[str], resources: Sequence[str], conditions: Mapping[str, Any] | None = None
) -> iam.PolicyStatement:
    return iam.PolicyStatement(actions=list(actions), resources=list(resources), conditions=conditions)
