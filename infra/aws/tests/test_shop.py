"""What must hold of every size, whatever is added: read off the templates."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from aws_cdk import App, Stack, Validations, aws_s3
from aws_cdk.assertions import Match, Template
from cdk_nag import AwsSolutionsChecks
from jsii.errors import JSIIError

from stoa_aws.images import OTHER_IMAGES
from stoa_services import SERVICES

from .conftest import Templates

ANYWHERE = ("0.0.0.0/0", "::/0")
PRESENT = Match.any_value()
RESOURCE_EXHAUSTED = 8  # of google.rpc.Code
# What holds data, or can't be made again; and what becomes of it when its stack is deleted.
KEPT = {
    "AWS::Backup::BackupVault": "Retain",
    "AWS::DocDB::DBCluster": "Snapshot",
    "AWS::ECR::Repository": "Retain",
    "AWS::ElastiCache::ReplicationGroup": "Snapshot",
    "AWS::KMS::Key": "Retain",
    "AWS::MSK::Cluster": "Retain",
    "AWS::OpenSearchService::Domain": "Retain",
    "AWS::S3::Bucket": "Retain",
}


def of_kind(templates: Templates, kind: str) -> Iterator[Mapping[str, Any]]:
    for template in templates.values():
        yield from (resource for resource in template["Resources"].values() if resource["Type"] == kind)


def properties(templates: Templates, kind: str) -> list[Mapping[str, Any]]:
    found = [resource.get("Properties", {}) for resource in of_kind(templates, kind)]
    assert found, f"there is no {kind}"
    return found


def primaries(templates: Templates) -> list[Mapping[str, Any]]:
    return [
        each
        for each in properties(templates, "AWS::RDS::DBInstance")
        if "SourceDBInstanceIdentifier" not in each
    ]


class TestNothingIsPublicButCloudFront:
    def test_no_security_group_admits_the_internet(self, templates: Templates) -> None:
        for group in properties(templates, "AWS::EC2::SecurityGroup"):
            for rule in group.get("SecurityGroupIngress", []):
                assert rule.get("CidrIp") not in ANYWHERE
                assert rule.get("CidrIpv6") not in ANYWHERE
        for rule in properties(templates, "AWS::EC2::SecurityGroupIngress"):
            assert "CidrIp" not in rule
            assert "CidrIpv6" not in rule

    def test_the_load_balancer_is_within_the_network_and_admits_cloudfront_alone(
        self, templates: Templates
    ) -> None:
        (balancer,) = properties(templates, "AWS::ElasticLoadBalancingV2::LoadBalancer")
        assert balancer["Scheme"] == "internal"
        front = {"front": templates["stoa-production-front"]}
        into = [rule for rule in properties(front, "AWS::EC2::SecurityGroupIngress") if "CidrIp" not in rule]
        (from_outside,) = [rule for rule in into if "SourceSecurityGroupId" not in rule]
        assert from_outside["SourcePrefixListId"].startswith("pl-")
        (group,) = properties(front, "AWS::EC2::SecurityGroup")
        assert "SecurityGroupIngress" not in group

    def test_no_machine_and_no_store_has_a_public_address(self, shop: Template) -> None:
        shop.all_resources_properties("AWS::EC2::Subnet", {"MapPublicIpOnLaunch": False})
        shop.all_resources_properties("AWS::RDS::DBInstance", {"PubliclyAccessible": False})
        shop.all_resources_properties("AWS::OpenSearchService::Domain", {"VPCOptions": PRESENT})
        shop.all_resources_properties(
            "AWS::MSK::Cluster", {"BrokerNodeGroupInfo": {"ConnectivityInfo": Match.absent()}}
        )

    def test_the_api_of_the_cluster_is_reached_from_within_unless_operators_have_a_network(
        self, shop: Template
    ) -> None:
        access = {"EndpointPrivateAccess": True, "EndpointPublicAccess": False}
        shop.all_resources_properties("AWS::EKS::Cluster", {"ResourcesVpcConfig": Match.object_like(access)})

    def test_stores_have_no_way_out(self, templates: Templates) -> None:
        stores = [
            group
            for group in properties(templates, "AWS::EC2::SecurityGroup")
            if group["GroupDescription"].startswith("A store")
        ]
        assert len(stores) == 5
        for group in stores:  # the CDK says "nowhere" by an address that there is not
            assert all(
                rule["CidrIp"] == "255.255.255.255/32" for rule in group.get("SecurityGroupEgress", [])
            )
        brokers = {"events": templates["stoa-production-events"]}
        for rule in properties(brokers, "AWS::EC2::SecurityGroupEgress"):
            assert rule["DestinationSecurityGroupId"] == rule["GroupId"], "brokers reach each other"

    def test_buckets_are_closed(self, shop: Template) -> None:
        closed = {
            "BlockPublicAcls": True,
            "BlockPublicPolicy": True,
            "IgnorePublicAcls": True,
            "RestrictPublicBuckets": True,
        }
        shop.all_resources_properties("AWS::S3::Bucket", {"PublicAccessBlockConfiguration": closed})

    def test_a_firewall_stands_before_everything(self, shop: Template) -> None:
        shop.all_resources_properties(
            "AWS::CloudFront::Distribution",
            {
                "DistributionConfig": Match.object_like(
                    {
                        "WebACLId": PRESENT,
                        "DefaultCacheBehavior": Match.object_like(
                            {"ViewerProtocolPolicy": "redirect-to-https"}
                        ),
                        "ViewerCertificate": Match.object_like({"MinimumProtocolVersion": "TLSv1.2_2021"}),
                    }
                )
            },
        )

    def test_the_firewall_leaves_to_the_edge_what_the_edge_judges(self, templates: Templates) -> None:
        (firewall,) = properties(templates, "AWS::WAFv2::WebACL")
        (common,) = [
            rule["Statement"]["ManagedRuleGroupStatement"]
            for rule in firewall["Rules"]
            if rule["Name"] == "AWSManagedRulesCommonRuleSet"
        ]
        assert {rule["Name"] for rule in common["RuleActionOverrides"]} == {
            "NoUserAgent_HEADER",
            "SizeRestrictions_BODY",
            "SizeRestrictions_Cookie_HEADER",
            "SizeRestrictions_QUERYSTRING",
            "SizeRestrictions_URIPATH",
        }
        assert all(rule["ActionToUse"] == {"Count": {}} for rule in common["RuleActionOverrides"])

    def test_whom_the_firewall_slows_down_it_tells_as_the_edge_does(self, templates: Templates) -> None:
        (firewall,) = properties(templates, "AWS::WAFv2::WebACL")
        limits = [rule for rule in firewall["Rules"] if "RateBasedStatement" in rule["Statement"]]
        assert [rule["Name"] for rule in limits] == ["flood", "guessing"]
        for rule in limits:
            wait = rule["Statement"]["RateBasedStatement"]["EvaluationWindowSec"]
            answer = rule["Action"]["Block"]["CustomResponse"]
            assert answer["ResponseCode"] == 429
            assert answer["ResponseHeaders"] == [{"Name": "retry-after", "Value": str(wait)}]
            body = firewall["CustomResponseBodies"][answer["CustomResponseBodyKey"]]
            assert body["ContentType"] == "APPLICATION_JSON"
            status = json.loads(body["Content"])
            assert status["code"] == RESOURCE_EXHAUSTED
            info, retry = status["details"]
            assert (info["reason"], info["domain"]) == ("RATE_LIMITED", "stoa")
            assert retry["retry_delay"] == f"{wait}s"


class TestEverythingIsEncrypted:
    def test_stores_at_rest_by_a_key_of_ours(self, templates: Templates, shop: Template) -> None:
        for primary in primaries(templates):
            assert primary["StorageEncrypted"] is True
            assert primary["KmsKeyId"]
        shop.all_resources_properties(
            "AWS::DocDB::DBCluster", {"StorageEncrypted": True, "KmsKeyId": PRESENT}
        )
        shop.all_resources_properties(
            "AWS::ElastiCache::ReplicationGroup", {"AtRestEncryptionEnabled": True, "KmsKeyId": PRESENT}
        )
        shop.all_resources_properties(
            "AWS::MSK::Cluster",
            {"EncryptionInfo": Match.object_like({"EncryptionAtRest": {"DataVolumeKMSKeyId": PRESENT}})},
        )
        shop.all_resources_properties(
            "AWS::OpenSearchService::Domain",
            {"EncryptionAtRestOptions": {"Enabled": True, "KmsKeyId": PRESENT}},
        )
        shop.all_resources_properties("AWS::Backup::BackupVault", {"EncryptionKeyArn": PRESENT})

    def test_connections_to_stores(self, shop: Template) -> None:
        settings = {"Parameters": Match.object_like({"rds.force_ssl": "1"})}
        shop.all_resources_properties("AWS::RDS::DBParameterGroup", settings)
        settings = {"Parameters": Match.object_like({"tls": "tls1.2+"})}
        shop.all_resources_properties("AWS::DocDB::DBClusterParameterGroup", settings)
        shop.all_resources_properties(
            "AWS::ElastiCache::ReplicationGroup",
            {"TransitEncryptionEnabled": True, "TransitEncryptionMode": "required"},
        )
        shop.all_resources_properties(
            "AWS::MSK::Cluster",
            {
                "EncryptionInfo": Match.object_like(
                    {"EncryptionInTransit": {"ClientBroker": "TLS", "InCluster": True}}
                ),
                "ClientAuthentication": {
                    "Sasl": {"Iam": {"Enabled": True}},
                    "Unauthenticated": {"Enabled": False},
                },
            },
        )
        shop.all_resources_properties(
            "AWS::OpenSearchService::Domain",
            {
                "DomainEndpointOptions": Match.object_like({"EnforceHTTPS": True}),
                "NodeToNodeEncryptionOptions": {"Enabled": True},
            },
        )
        shop.all_resources_properties("AWS::ElasticLoadBalancingV2::TargetGroup", {"Protocol": "HTTPS"})
        shop.all_resources_properties("AWS::ElasticLoadBalancingV2::Listener", {"Protocol": "HTTPS"})

    def test_secrets_in_both_places(self, shop: Template) -> None:
        shop.all_resources_properties("AWS::SecretsManager::Secret", {"KmsKeyId": PRESENT})
        shop.all_resources_properties(
            "AWS::EKS::Cluster",
            {"EncryptionConfig": [{"Provider": {"KeyArn": PRESENT}, "Resources": ["secrets"]}]},
        )

    def test_disks_buckets_and_what_is_said_to_operators(self, templates: Templates, shop: Template) -> None:
        for template in properties(templates, "AWS::EC2::LaunchTemplate"):
            for disk in template["LaunchTemplateData"]["BlockDeviceMappings"]:
                assert disk["Ebs"]["Encrypted"] is True
        shop.all_resources_properties("AWS::S3::Bucket", {"BucketEncryption": PRESENT})
        shop.all_resources_properties("AWS::SNS::Topic", {"KmsMasterKeyId": PRESENT})
        shop.all_resources_properties("AWS::SQS::Queue", {"SqsManagedSseEnabled": True})

    def test_keys_are_renewed(self, shop: Template) -> None:
        shop.all_resources_properties("AWS::KMS::Key", {"EnableKeyRotation": True})

    def test_logs_end(self, shop: Template) -> None:
        shop.all_resources_properties("AWS::Logs::LogGroup", {"RetentionInDays": 30})

    def test_nothing_of_a_row_of_postgres_is_logged(self, shop: Template) -> None:
        settings = {
            "log_error_verbosity": "terse",
            "log_parameter_max_length": "0",
            "log_parameter_max_length_on_error": "0",
            "log_statement": "ddl",
        }
        shop.all_resources_properties(
            "AWS::RDS::DBParameterGroup", {"Parameters": Match.object_like(settings)}
        )


class TestAZoneMayFail:
    def test_the_network_has_three(self, templates: Templates) -> None:
        zones = [subnet["AvailabilityZone"] for subnet in properties(templates, "AWS::EC2::Subnet")]
        assert {zone: zones.count(zone) for zone in zones} == dict.fromkeys(
            ("us-east-1a", "us-east-1b", "us-east-1c"), 3
        )

    def test_stores_go_on_in_another(self, templates: Templates, shop: Template) -> None:
        assert all(primary["MultiAZ"] for primary in primaries(templates))
        shop.all_resources_properties(
            "AWS::ElastiCache::ReplicationGroup", {"MultiAZEnabled": True, "AutomaticFailoverEnabled": True}
        )
        three = Match.object_like(
            {"ZoneAwarenessEnabled": True, "ZoneAwarenessConfig": {"AvailabilityZoneCount": 3}}
        )
        shop.all_resources_properties("AWS::OpenSearchService::Domain", {"ClusterConfig": three})
        assert len(properties(templates, "AWS::DocDB::DBInstance")) >= 2
        (brokers,) = properties(templates, "AWS::MSK::Cluster")
        assert len(brokers["BrokerNodeGroupInfo"]["ClientSubnets"]) == 3
        assert brokers["NumberOfBrokerNodes"] % 3 == 0

    def test_a_message_is_in_two_zones_before_it_counts(self, templates: Templates) -> None:
        (settings,) = properties(templates, "AWS::MSK::Configuration")
        lines = settings["ServerProperties"].split()
        assert "min.insync.replicas=2" in lines
        assert "default.replication.factor=3" in lines
        assert "auto.create.topics.enable=false" in lines

    def test_nodes_are_in_all(self, templates: Templates) -> None:
        (group,) = properties(templates, "AWS::EKS::Nodegroup")
        assert len(group["Subnets"]) == 3
        assert group["ScalingConfig"]["MinSize"] >= 3


class TestNothingIsLost:
    def test_databases_are_protected_and_can_go_back_two_weeks(
        self, templates: Templates, shop: Template
    ) -> None:
        for primary in primaries(templates):
            assert primary["DeletionProtection"] is True
            assert primary["BackupRetentionPeriod"] == 14
        shop.all_resources_properties(
            "AWS::DocDB::DBCluster", {"DeletionProtection": True, "BackupRetentionPeriod": 14}
        )
        shop.all_resources_properties("AWS::ElastiCache::ReplicationGroup", {"SnapshotRetentionLimit": 14})

    @pytest.mark.parametrize("kind", KEPT)
    def test_what_holds_data_outlives_its_stack(self, kind: str, templates: Templates) -> None:
        for resource in of_kind(templates, kind):
            assert resource["DeletionPolicy"] == KEPT[kind]
            assert resource["UpdateReplacePolicy"] == KEPT[kind]

    def test_primaries_outlive_their_stack_as_snapshots(self, templates: Templates) -> None:
        for resource in of_kind(templates, "AWS::RDS::DBInstance"):
            replica = "SourceDBInstanceIdentifier" in resource["Properties"]
            assert resource["DeletionPolicy"] == ("Delete" if replica else "Snapshot")

    def test_what_has_data_is_in_the_plan_of_backups(self, templates: Templates) -> None:
        (selection,) = properties(templates, "AWS::Backup::BackupSelection")
        (condition,) = selection["BackupSelection"]["ListOfTags"]
        tag = {"Key": condition["ConditionKey"], "Value": condition["ConditionValue"]}
        for each in (*primaries(templates), *properties(templates, "AWS::DocDB::DBCluster")):
            assert tag in each["Tags"]
        assert any(tag in bucket["Tags"] for bucket in properties(templates, "AWS::S3::Bucket"))


def statements(role: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for policy in role["Policies"]:
        yield from policy["PolicyDocument"]["Statement"]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def role_of(templates: Templates, account: str) -> Mapping[str, Any]:
    (role,) = [
        each
        for each in properties(templates, "AWS::IAM::Role")
        if each.get("RoleName") == f"stoa-production-{account}"
    ]
    return role


every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


@every_service
class TestAService:
    def test_has_an_image(self, service: Any, shop: Template) -> None:
        shop.has_resource_properties(
            "AWS::ECR::Repository",
            {"RepositoryName": f"stoa-production/{service.name}", "ImageTagMutability": "IMMUTABLE"},
        )

    def test_alone_takes_its_role(self, service: Any, templates: Templates) -> None:
        trust, _ = role_of(templates, service.name)["AssumeRolePolicyDocument"]["Fn::Sub"]
        (statement,) = json.loads(trust)["Statement"]
        assert statement["Condition"] == {
            "StringEquals": {
                "${issuer}:aud": "sts.amazonaws.com",
                "${issuer}:sub": [
                    f"system:serviceaccount:stoa:{service.name}",
                    f"system:serviceaccount:stoa:{service.name}-secrets",
                ],
            }
        }

    def test_reads_its_own_secrets_and_no_others(self, service: Any, templates: Templates) -> None:
        own = {f"stoa/production/{service.name}", f"stoa/production/{service.name}/stores"}
        names = {
            name: resource["Properties"]["Name"]
            for name, resource in templates["stoa-production-identities"]["Resources"].items()
            if resource["Type"] == "AWS::SecretsManager::Secret"
        }
        read = [
            names[arn["Ref"]]
            for statement in statements(role_of(templates, service.name))
            if any(action.startswith("secretsmanager:") for action in listed(statement["Action"]))
            for arn in listed(statement["Resource"])
        ]
        assert {name for name in names.values() if name in own} | {"stoa/production/authorities"} == set(read)

    def test_reads_and_writes_the_topics_of_its_declaration(self, service: Any, templates: Templates) -> None:
        topics: dict[str, set[str]] = {"ReadData": set(), "WriteData": set()}
        for statement in statements(role_of(templates, service.name)):
            for action in topics:
                if f"kafka-cluster:{action}" in listed(statement["Action"]):
                    found = (arn["Fn::Join"][1] for arn in listed(statement["Resource"]))
                    assert all("*" not in str(parts) for parts in found)
                    topics[action] |= {
                        arn["Fn::Join"][1][-1].removeprefix("/") for arn in listed(statement["Resource"])
                    }
        assert topics["ReadData"] == set(service.consumes)
        assert topics["WriteData"] == {*service.publishes, *filter(None, [service.dead_letters])}

    def test_its_role_fits(self, service: Any, templates: Templates) -> None:
        """IAM takes 10,240 characters of a role."""
        role = role_of(templates, service.name)
        topic = (
            "arn:aws:kafka:us-east-1:123456789012:topic/stoa-production-events/" + "x" * 40 + "/" + "x" * 40
        )
        resources = sum(len(listed(statement.get("Resource", []))) for statement in statements(role))
        assert resources * (len(topic) + 4) + 2000 < 10_240


def test_there_is_an_image_for_the_edge_and_for_operators(shop: Template) -> None:
    shop.resource_count_is("AWS::ECR::Repository", len(SERVICES) + len(OTHER_IMAGES))


def test_nobody_may_do_everything(templates: Templates) -> None:
    documents = [
        *(policy["PolicyDocument"] for policy in properties(templates, "AWS::IAM::Policy")),
        *(
            policy["PolicyDocument"]
            for role in properties(templates, "AWS::IAM::Role")
            for policy in role.get("Policies", [])
        ),
    ]
    for document in documents:
        for statement in document["Statement"]:
            assert not any(action.endswith(":*") or action == "*" for action in listed(statement["Action"]))


def test_alarms_and_the_budget_reach_somebody(templates: Templates, shop: Template) -> None:
    shop.all_resources_properties("AWS::CloudWatch::Alarm", {"AlarmActions": Match.any_value()})
    shop.has_resource_properties(
        "AWS::SNS::Subscription", {"Protocol": "email", "Endpoint": "operators@example.com"}
    )
    (budget,) = properties(templates, "AWS::Budgets::Budget")
    kinds = [each["Notification"]["NotificationType"] for each in budget["NotificationsWithSubscribers"]]
    assert "FORECASTED" in kinds


def test_cdk_nag_looks(tmp_path_factory: pytest.TempPathFactory) -> None:
    """That the shop's templates could be made proves something only if these can't."""
    app = App(outdir=str(tmp_path_factory.mktemp("open")))
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    aws_s3.Bucket(Stack(app, "open"), "open")
    with pytest.raises((JSIIError, RuntimeError), match="ValidationFailed"):
        app.synth()
