"""The document store: DocumentDB, a primary with replicas in other zones."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy, Tags
from aws_cdk import aws_docdb as docdb
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from stoa_aws import stores
from stoa_aws.environment import Environment
from stoa_aws.log_groups import log_group
from stoa_aws.nag import excuse
from stoa_aws.stack import ShopStack
from stoa_aws.stores import Place

PORT = 27017
MASTER = "master"
# What would have to be written otherwise in a URL.
_NOT_IN_PASSWORDS = " %+~`#$&*()|[]{}:;<>?!'/@\"\\^,="


class DocumentsStack(ShopStack):
    """A cluster that speaks TLS alone, and logs who did what and not what statements said."""

    def __init__(self, scope: Construct, at: Environment, place: Place) -> None:
        super().__init__(scope, "documents", at)
        name = at.named("documents")
        log = log_group(self, "log", place.keys.logs, name=f"/aws/docdb/{name}/audit")
        self.cluster = docdb.DatabaseCluster(
            self,
            "cluster",
            db_cluster_name=name,
            engine_version="5.0.0",
            instances=at.size.documents.instances,
            instance_type=ec2.InstanceType(at.size.documents.type),
            master_user=docdb.Login(
                username=MASTER,
                secret_name=at.secret("masters/documents"),
                kms_key=place.keys.secrets,
                exclude_characters=_NOT_IN_PASSWORDS,
            ),
            vpc=place.vpc,
            vpc_subnets=stores.SUBNETS,
            security_group=stores.guard(self, place, PORT),
            port=PORT,
            storage_encrypted=True,
            kms_key=place.keys.data,
            parameter_group=docdb.ClusterParameterGroup(
                self, "settings", family="docdb5.0", parameters={"tls": "tls1.2+", "audit_logs": "enabled"}
            ),
            backup=docdb.BackupProps(retention=Duration.days(14)),
            deletion_protection=True,
            removal_policy=RemovalPolicy.SNAPSHOT,
            export_audit_logs_to_cloud_watch=True,
        )
        self.cluster.node.add_dependency(log)
        Tags.of(self.cluster).add(stores.BACKUP_TAG, "daily")
        excuse(self.cluster, "DOC2", stores.DEFAULT_PORT)
        excuse(self.cluster, "SMG4", stores.USED_ONCE)
        excuse(
            self.cluster, "DOC3", "the password is a reference to Secrets Manager, which the rule can't read"
        )
        excuse(
            self.cluster,
            "DOC5",
            "audit logs are exported, and these are what is in them",
            of=["LogExport::authenticate", "LogExport::createIndex", "LogExport::dropCollection"],
        )
