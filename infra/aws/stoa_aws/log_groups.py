"""Log groups: encrypted, kept for a month, and made before their writers would make others."""

from __future__ import annotations

from aws_cdk import RemovalPolicy
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct


def log_group(
    scope: Construct, construct_id: str, key: kms.IKey, *, name: str | None = None
) -> logs.LogGroup:
    """Make a log group, by a name that a service of AWS expects if there is one."""
    return logs.LogGroup(
        scope,
        construct_id,
        log_group_name=name,
        encryption_key=key,
        retention=logs.RetentionDays.ONE_MONTH,
        removal_policy=RemovalPolicy.DESTROY,
    )
