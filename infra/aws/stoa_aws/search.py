"""The search engine: OpenSearch Service over three zones, with users of its own."""

from __future__ import annotations

from aws_cdk import RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_opensearchservice as opensearch
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from stoa_aws import stores
from stoa_aws.environment import Environment
from stoa_aws.log_groups import log_group
from stoa_aws.nag import excuse
from stoa_aws.stack import ShopStack
from stoa_aws.stores import Place

PORT = 443
_VERSION = "OpenSearch_3.1"


class SearchStack(ShopStack):
    """A domain within the network: HTTPS alone, encrypted, and a user with a password for whoever asks."""

    def __init__(
        self, scope: Construct, at: Environment, place: Place, *, master: secretsmanager.ISecret
    ) -> None:
        super().__init__(scope, "search", at)
        size = at.size.search
        log = log_group(self, "log", place.keys.logs)
        writes = logs.CfnResourcePolicy(
            self,
            "log-policy",
            policy_name=at.named("search"),
            policy_document=self.to_json_string(
                {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"Service": "es.amazonaws.com"},
                            "Action": ["logs:PutLogEvents", "logs:CreateLogStream"],
                            "Resource": log.log_group_arn,
                            "Condition": {"StringEquals": {"aws:SourceAccount": at.account}},
                        }
                    ],
                }
            ),
        )
        domain = at.named("search")
        self.domain = opensearch.CfnDomain(
            self,
            "domain",
            domain_name=domain,
            engine_version=_VERSION,
            cluster_config=opensearch.CfnDomain.ClusterConfigProperty(
                instance_type=size.type,
                instance_count=size.nodes,
                dedicated_master_enabled=size.master_type is not None,
                dedicated_master_type=size.master_type,
                dedicated_master_count=3 if size.master_type else None,
                zone_awareness_enabled=True,
                zone_awareness_config=opensearch.CfnDomain.ZoneAwarenessConfigProperty(
                    availability_zone_count=3
                ),
            ),
            ebs_options=opensearch.CfnDomain.EBSOptionsProperty(
                ebs_enabled=True, volume_type="gp3", volume_size=size.storage_gb
            ),
            vpc_options=opensearch.CfnDomain.VPCOptionsProperty(
                subnet_ids=place.subnet_ids,
                security_group_ids=[stores.guard(self, place, PORT).security_group_id],
            ),
            encryption_at_rest_options=opensearch.CfnDomain.EncryptionAtRestOptionsProperty(
                enabled=True, kms_key_id=place.keys.data.key_id
            ),
            node_to_node_encryption_options=opensearch.CfnDomain.NodeToNodeEncryptionOptionsProperty(
                enabled=True
            ),
            domain_endpoint_options=opensearch.CfnDomain.DomainEndpointOptionsProperty(
                enforce_https=True, tls_security_policy="Policy-Min-TLS-1-2-PFS-2023-10"
            ),
            advanced_security_options=opensearch.CfnDomain.AdvancedSecurityOptionsInputProperty(
                enabled=True,
                internal_user_database_enabled=True,
                master_user_options=opensearch.CfnDomain.MasterUserOptionsProperty(
                    master_user_name=master.secret_value_from_json("username").unsafe_unwrap(),
                    master_user_password=master.secret_value_from_json("password").unsafe_unwrap(),
                ),
            ),
            access_policies=iam.PolicyDocument(
                statements=[
                    iam.PolicyStatement(
                        principals=[iam.AnyPrincipal()],
                        actions=["es:ESHttp*"],
                        resources=[f"arn:aws:es:{at.region}:{at.account}:domain/{domain}/*"],
                    )
                ]
            ),
            log_publishing_options={
                kind: opensearch.CfnDomain.LogPublishingOptionProperty(
                    enabled=True, cloud_watch_logs_log_group_arn=log.log_group_arn
                )
                for kind in ("ES_APPLICATION_LOGS", "AUDIT_LOGS")
            },
        )
        self.domain.node.add_dependency(writes)
        # What is indexed can be made anew (`stoa reindex`), but not within an outage.
        self.domain.apply_removal_policy(RemovalPolicy.RETAIN)
        excuse(
            self.domain, "OS3", "who asks is known by a user and a password of the domain, within the network"
        )
        excuse(
            self.domain, "OS5", "who asks is known by a user and a password of the domain, within the network"
        )
        excuse(
            self.domain,
            "OS9",
            "slow logs have what people searched for in them, which is personal",
            of=["LogExport::SEARCH_SLOW_LOGS", "LogExport::INDEX_SLOW_LOGS"],
        )
        if size.master_type is None:
            excuse(
                self.domain,
                "OS4",
                "three nodes in three zones elect a master among themselves; larger sizes have some",
            )
