"""Backups beside the stores' own: daily for a month, monthly for a year, in a vault that keeps them."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_backup as backup
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from stoa_aws import managed, stores
from stoa_aws.environment import Environment
from stoa_aws.stack import ShopStack

_POLICIES = (
    "service-role/AWSBackupServiceRolePolicyForBackup",
    "service-role/AWSBackupServiceRolePolicyForRestores",
    "AWSBackupServiceRolePolicyForS3Backup",
    "AWSBackupServiceRolePolicyForS3Restore",
)


class BackupsStack(ShopStack):
    """Whatever has the tag is in the plan, so that a store that is added needs no line here."""

    def __init__(self, scope: Construct, at: Environment, *, key: kms.IKey) -> None:
        super().__init__(scope, "backups", at)
        self.vault = backup.BackupVault(
            self,
            "vault",
            backup_vault_name=at.named("backups"),
            encryption_key=key,
            # For a week nobody deletes a backup, whatever rights she has got hold of.
            lock_configuration=backup.LockConfiguration(min_retention=Duration.days(7)),
            removal_policy=RemovalPolicy.RETAIN,
        )
        plan = backup.BackupPlan(self, "plan", backup_plan_name=at.named("backups"), backup_vault=self.vault)
        plan.add_rule(
            backup.BackupPlanRule(
                rule_name="daily",
                schedule_expression=events.Schedule.cron(hour="3", minute="0"),
                start_window=Duration.hours(1),
                completion_window=Duration.hours(6),
                delete_after=Duration.days(35),
            )
        )
        plan.add_rule(
            backup.BackupPlanRule(
                rule_name="monthly",
                schedule_expression=events.Schedule.cron(day="1", hour="5", minute="0"),
                start_window=Duration.hours(1),
                completion_window=Duration.hours(12),
                delete_after=Duration.days(365),
            )
        )
        role = iam.Role(
            self,
            "role",
            description="Takes backups and restores them",
            assumed_by=iam.ServicePrincipal("backup.amazonaws.com"),
        )
        managed.attach(role, *_POLICIES, because="AWS Backup asks for exactly these")
        plan.add_selection(
            "tagged",
            resources=[backup.BackupResource.from_tag(stores.BACKUP_TAG, "daily")],
            role=role,
            disable_default_backup_policy=True,
        )
