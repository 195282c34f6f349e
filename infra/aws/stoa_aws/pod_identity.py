"""EKS Pod Identity: the role of what runs beside the shop, such as Karpenter."""

from __future__ import annotations

from aws_cdk import aws_eks as eks
from aws_cdk import aws_eks_v2
from aws_cdk import aws_iam as iam
from constructs import Construct


def pod_role(
    scope: Construct, cluster: aws_eks_v2.Cluster, namespace: str, account: str, *, associate: bool = True
) -> iam.Role:
    """Make a role that pods of one service account of one namespace take, and no other of the cluster.

    An add-on makes the association itself.
    """
    pods = iam.ServicePrincipal(
        "pods.eks.amazonaws.com",
        conditions={
            "StringEquals": {
                "aws:RequestTag/eks-cluster-name": cluster.cluster_name,
                "aws:RequestTag/kubernetes-namespace": namespace,
                "aws:RequestTag/kubernetes-service-account": account,
            }
        },
    )
    role = iam.Role(
        scope,
        f"role-{account}",
        description=f"Pods of {namespace}/{account}",
        assumed_by=pods.with_session_tags(),
    )
    if associate:
        eks.CfnPodIdentityAssociation(
            scope,
            f"identity-{account}",
            cluster_name=cluster.cluster_name,
            namespace=namespace,
            service_account=account,
            role_arn=role.role_arn,
        )
    return role
