"""Policies that AWS writes and keeps, for roles of which AWS says that they need exactly these."""

from __future__ import annotations

from aws_cdk import aws_iam as iam

from stoa_aws.nag import excuse


def attach(role: iam.Role, *names: str, because: str) -> None:
    """Give a role policies of AWS, and say why it has no narrower ones."""
    for name in names:
        role.add_managed_policy(iam.ManagedPolicy.from_aws_managed_policy_name(name))
    excuse(
        role, "IAM4", because, of=[f"Policy::arn:<AWS::Partition>:iam::aws:policy/{name}" for name in names]
    )
