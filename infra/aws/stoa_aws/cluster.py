"""The cluster: EKS, the nodes that are always there, its add-ons, and who may do what with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_eks_v2 as eks
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from stoa_aws import managed, network
from stoa_aws.environment import Environment
from stoa_aws.log_groups import log_group
from stoa_aws.nag import excuse
from stoa_aws.pod_identity import pod_role
from stoa_aws.stack import ShopStack

_NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly")
_DISK_GB = 50

# Each pod has an address of the network; prefixes of sixteen let a node have more pods than interfaces.
_ADDRESSES = {"env": {"ENABLE_PREFIX_DELEGATION": "true"}, "enableNetworkPolicy": "true"}
_ADDONS: Mapping[str, Mapping[str, Any] | None] = {
    "vpc-cni": _ADDRESSES,
    "kube-proxy": None,
    "coredns": None,
    "eks-pod-identity-agent": None,
    "metrics-server": None,
}


class ClusterStack(ShopStack):
    """EKS with its control plane's logs, its secrets encrypted by a key of ours, and no public door by
    default.

    Whoever creates it has no rights in it; the role of `administrators` has.
    """

    def __init__(
        self, scope: Construct, at: Environment, *, vpc: ec2.IVpc, secrets_key: kms.IKey,
        logs_key: kms.IKey,
    ) -> None:  # fmt: skip
        super().__init__(scope, "cluster", at)
        nodes = ec2.SubnetSelection(subnet_group_name=network.NODES)
        log = log_group(self, "log", logs_key, name=f"/aws/eks/{at.named('cluster')}/cluster")
        self.cluster = eks.Cluster(
            self,
            "cluster",
            cluster_name=at.named("cluster"),
            version=eks.KubernetesVersion.V1_34,
            vpc=vpc,
            vpc_subnets=[nodes],
            endpoint_access=(
                eks.EndpointAccess.PUBLIC_AND_PRIVATE.only_from(*at.operators)
                if at.operators
                else eks.EndpointAccess.PRIVATE
            ),
            default_capacity_type=eks.DefaultCapacityType.NODEGROUP,
            default_capacity=0,
            bootstrap_cluster_creator_admin_permissions=False,
            secrets_encryption_key=secrets_key,
            cluster_logging=[
                eks.ClusterLoggingTypes.API,
                eks.ClusterLoggingTypes.AUDIT,
                eks.ClusterLoggingTypes.AUTHENTICATOR,
                eks.ClusterLoggingTypes.CONTROLLER_MANAGER,
                eks.ClusterLoggingTypes.SCHEDULER,
            ],
        )
        self.cluster.node.add_dependency(log)
        excuse(
            self.cluster,
            "IAM4",
            "EKS asks for exactly this policy of AWS for its control plane",
            of=["Policy::arn:<AWS::Partition>:iam::aws:policy/AmazonEKSClusterPolicy"],
        )
        if at.operators:
            excuse(self.cluster, "EKS1", "open to the operators' networks, which the shop's settings name")
        self.cluster.grant_access(
            "administrators",
            at.administrators,
            [
                eks.AccessPolicy.from_access_policy_name(
                    "AmazonEKSClusterAdminPolicy", access_scope_type=eks.AccessScopeType.CLUSTER
                )
            ],
        )
        self.node_role = self._node_role()
        self._nodes(at, nodes)
        self._addons()

    @property
    def guard(self) -> ec2.ISecurityGroup:
        """The security group of all nodes, by which stores and the load balancer know them."""
        return self.cluster.cluster_security_group

    def _node_role(self) -> iam.Role:
        role = iam.Role(
            self,
            "node-role",
            description="What a node may do: join, give pods addresses, pull images. Pods don't get it.",
            assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
        )
        managed.attach(role, *_NODE_POLICIES, because="EKS asks for exactly these of a node")
        return role

    def _nodes(self, at: Environment, subnets: ec2.SubnetSelection) -> None:
        template = ec2.LaunchTemplate(
            self,
            "node",
            block_devices=[
                ec2.BlockDevice(
                    device_name="/dev/xvda",
                    volume=ec2.BlockDeviceVolume.ebs(
                        _DISK_GB, encrypted=True, volume_type=ec2.EbsDeviceVolumeType.GP3
                    ),
                )
            ],
            # A pod is one hop further away than the node, so that it can't take the node's role.
            require_imdsv2=True,
            http_put_response_hop_limit=1,
        )
        self.cluster.add_nodegroup_capacity(
            "always",
            node_role=self.node_role,
            ami_type=eks.NodegroupAmiType.AL2023_X86_64_STANDARD,
            instance_types=[ec2.InstanceType(at.size.nodes.type)],
            min_size=at.size.nodes.always,
            desired_size=at.size.nodes.always,
            max_size=at.size.nodes.always + 3,  # room to replace them, zone by zone
            max_unavailable=1,
            subnets=subnets,
            launch_template_spec=eks.LaunchTemplateSpec(
                id=template.launch_template_id or "", version=template.latest_version_number
            ),
        )

    def _addons(self) -> None:
        for addon, values in _ADDONS.items():
            self._addon(addon, configuration_values=json.dumps(values) if values else None)
        disks = pod_role(self, self.cluster, "kube-system", "ebs-csi-controller-sa", associate=False)
        managed.attach(
            disks,
            "service-role/AmazonEBSCSIDriverPolicy",
            because="the driver asks for exactly this one, which is limited to volumes of its own",
        )
        self._addon(
            "aws-ebs-csi-driver",
            pod_identity_associations=[
                eks.CfnAddon.PodIdentityAssociationProperty(
                    role_arn=disks.role_arn, service_account="ebs-csi-controller-sa"
                )
            ],
        )

    def _addon(self, name: str, **properties: Any) -> None:
        eks.CfnAddon(
            self,
            f"addon-{name}",
            addon_name=name,
            cluster_name=self.cluster.cluster_name,
            resolve_conflicts="OVERWRITE",
            **properties,
        )
