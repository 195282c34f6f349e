"""What a month costs, read off the templates: whatever they make is priced, or known to be free.

So nothing that is added can be forgotten: a kind of resource that is in neither list is an error. What is
paid for by use comes from the size (`Usage`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from stoa_aws.prices import Prices
from stoa_aws.sizes import Size

Template = Mapping[str, Any]
_Properties = Mapping[str, Any]

NODES, POSTGRES, EVENTS, DOCUMENTS, CARTS, SEARCH, NETWORK, FRONT, KEEPING = (
    "cluster and its nodes", "PostgreSQL", "events", "documents", "carts", "search", "network", "front door",
    "keys, secrets, logs, alarms, backups, images",
)  # fmt: skip
GROUPS = (NODES, POSTGRES, EVENTS, DOCUMENTS, CARTS, SEARCH, NETWORK, FRONT, KEEPING)

_DISK_GB = 50  # of a node
_REPOSITORY_GB = 2  # of the images of one name, which share most layers
_FIRST_STEP_GB = 10_000  # of what CloudFront sends out at its first price


class Unpriced(Exception):
    """The templates make something of which it is not known what it costs."""


@dataclass(frozen=True)
class Line:
    """One line of the bill: so much of something, at a price for a month."""

    group: str
    what: str
    quantity: Decimal
    price: Decimal

    @property
    def usd(self) -> Decimal:
        """What it comes to in a month."""
        return self.quantity * self.price


def bill(templates: Iterable[Template], size: Size, prices: Prices) -> Sequence[Line]:
    """Every line of a month's bill. Raises Unpriced, PriceMissing."""
    pricing = _Pricing(size, prices)
    lines = list(pricing.usage())
    for template in templates:
        for resource in template["Resources"].values():
            kind = resource["Type"]
            if kind in _PRICED:
                lines.extend(_PRICED[kind](pricing, resource.get("Properties", {})))
            elif kind not in _FREE:
                raise Unpriced(f"{kind}: price it in stoa_aws.estimate, or say that it is free")
    return lines


def by_group(lines: Iterable[Line]) -> Mapping[str, Decimal]:
    """The sums of all groups."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for line in lines:
        sums[line.group] += line.usd
    return sums


def dollars(amount: Decimal) -> str:
    """An amount as people read it: 1,234."""
    return f"{int(amount.quantize(Decimal(1), ROUND_HALF_UP)):,}"


class _Pricing:
    """A price for each kind of resource that has one."""

    def __init__(self, size: Size, prices: Prices) -> None:
        self._size = size
        self._prices = prices

    def usage(self) -> Iterator[Line]:
        """What is paid for by use, and the nodes that Karpenter starts, which no template has."""
        use, prices = self._size.usage, self._prices
        nodes = self._size.nodes
        yield from self._machines(nodes.usual_type, nodes.usual)
        yield Line(
            NETWORK, "GB between zones", Decimal(use.between_zones_gb), prices.of("ec2", "between_zones_gb")
        )
        yield Line(NETWORK, "GB through NAT", Decimal(use.through_nat_gb), prices.of("vpc", "nat_gb"))
        first = min(use.out_gb, _FIRST_STEP_GB)
        requests = Decimal(use.requests_millions)
        yield Line(FRONT, "GB out", Decimal(first), prices.of("cloudfront", "out_gb"))
        yield Line(
            FRONT, "GB out, beyond", Decimal(use.out_gb - first), prices.of("cloudfront", "out_gb_beyond")
        )
        yield Line(FRONT, "million requests", requests, prices.of("cloudfront", "requests_million"))
        yield Line(FRONT, "million requests, firewall", requests, prices.of("waf", "requests_million"))
        yield Line(FRONT, "GB of pictures", Decimal(use.pictures_gb), prices.of("s3", "gb_month"))
        yield Line(
            DOCUMENTS,
            "GB of documents",
            Decimal(use.documents_gb),
            prices.of("documentdb", "storage_gb_month"),
        )
        yield Line(
            DOCUMENTS, "million reads and writes", Decimal(use.document_io_millions),
            prices.of("documentdb", "io_million"),
        )  # fmt: skip
        yield Line(KEEPING, "GB of logs", Decimal(use.logs_gb), prices.of("cloudwatch", "logs_gb"))
        yield Line(KEEPING, "GB of backups", Decimal(use.backups_gb), prices.of("backup", "gb_month"))

    def cluster(self, _: _Properties) -> Iterator[Line]:
        yield Line(NODES, "control plane", Decimal(1), self._prices.hourly("eks", "cluster_hour"))

    def node_group(self, properties: _Properties) -> Iterator[Line]:
        (kind,) = properties["InstanceTypes"]
        yield from self._machines(kind, int(properties["ScalingConfig"]["DesiredSize"]))

    def postgres(self, properties: _Properties) -> Iterator[Line]:
        kind = properties["DBInstanceClass"]
        copies = Decimal(2 if properties.get("MultiAZ") else 1)
        # A replica has as much room as its primary, which its template does not repeat.
        storage = Decimal(properties.get("AllocatedStorage", self._size.postgres.storage_gb))
        yield Line(POSTGRES, kind, copies, self._prices.hourly("rds", kind))
        yield Line(POSTGRES, "GB of disk", copies * storage, self._prices.of("rds", "gp3_gb_month"))

    def events(self, properties: _Properties) -> Iterator[Line]:
        brokers = Decimal(properties["NumberOfBrokerNodes"])
        group = properties["BrokerNodeGroupInfo"]
        storage = Decimal(group["StorageInfo"]["EBSStorageInfo"]["VolumeSize"])
        yield Line(EVENTS, group["InstanceType"], brokers, self._prices.hourly("msk", group["InstanceType"]))
        yield Line(EVENTS, "GB of disk", brokers * storage, self._prices.of("msk", "storage_gb_month"))

    def documents(self, properties: _Properties) -> Iterator[Line]:
        kind = properties["DBInstanceClass"]
        yield Line(DOCUMENTS, kind, Decimal(1), self._prices.hourly("documentdb", kind))

    def carts(self, properties: _Properties) -> Iterator[Line]:
        kind = properties["CacheNodeType"]
        nodes = Decimal(properties["NumCacheClusters"])
        yield Line(CARTS, kind, nodes, self._prices.hourly("elasticache", kind))

    def search(self, properties: _Properties) -> Iterator[Line]:
        cluster = properties["ClusterConfig"]
        nodes = Decimal(cluster["InstanceCount"])
        storage = Decimal(properties["EBSOptions"]["VolumeSize"])
        kind = cluster["InstanceType"]
        yield Line(SEARCH, kind, nodes, self._prices.hourly("opensearch", kind))
        yield Line(SEARCH, "GB of disk", nodes * storage, self._prices.of("opensearch", "gp3_gb_month"))
        if cluster.get("DedicatedMasterEnabled"):
            masters = Decimal(cluster["DedicatedMasterCount"])
            kind = cluster["DedicatedMasterType"]
            yield Line(SEARCH, f"{kind}, master", masters, self._prices.hourly("opensearch", kind))

    def nat(self, _: _Properties) -> Iterator[Line]:
        yield Line(NETWORK, "NAT gateway", Decimal(1), self._prices.hourly("vpc", "nat_hour"))

    def address(self, _: _Properties) -> Iterator[Line]:
        yield Line(NETWORK, "public address", Decimal(1), self._prices.hourly("vpc", "address_hour"))

    def endpoint(self, properties: _Properties) -> Iterator[Line]:
        if properties.get("VpcEndpointType") == "Interface":
            zones = Decimal(len(properties["SubnetIds"]))
            yield Line(NETWORK, "endpoint in a zone", zones, self._prices.hourly("vpc", "endpoint_hour"))

    def balancer(self, _: _Properties) -> Iterator[Line]:
        # A unit is a GB an hour, or 25 new connections a second; CloudFront keeps its connections.
        units = max(Decimal(1), Decimal(self._size.usage.out_gb) / self._prices.hours)
        yield Line(FRONT, "load balancer", Decimal(1), self._prices.hourly("elb", "balancer_hour"))
        yield Line(FRONT, "capacity units", units, self._prices.hourly("elb", "capacity_unit_hour"))

    def firewall(self, properties: _Properties) -> Iterator[Line]:
        rules = Decimal(len(properties["Rules"]))
        yield Line(FRONT, "firewall", Decimal(1), self._prices.of("waf", "acl_month"))
        yield Line(FRONT, "rules", rules, self._prices.of("waf", "rule_month"))

    def key(self, _: _Properties) -> Iterator[Line]:
        yield Line(KEEPING, "key", Decimal(1), self._prices.of("kms", "key_month"))

    def secret(self, _: _Properties) -> Iterator[Line]:
        yield Line(KEEPING, "secret", Decimal(1), self._prices.of("secrets_manager", "secret_month"))

    def alarm(self, _: _Properties) -> Iterator[Line]:
        yield Line(KEEPING, "alarm", Decimal(1), self._prices.of("cloudwatch", "alarm_month"))

    def repository(self, _: _Properties) -> Iterator[Line]:
        yield Line(KEEPING, "GB of images", Decimal(_REPOSITORY_GB), self._prices.of("ecr", "gb_month"))

    def _machines(self, kind: str, count: int) -> Iterator[Line]:
        yield Line(NODES, kind, Decimal(count), self._prices.hourly("ec2", kind))
        yield Line(
            NODES, "GB of nodes' disks", Decimal(count * _DISK_GB), self._prices.of("ec2", "gp3_gb_month")
        )


_PRICED: Mapping[str, Callable[[_Pricing, _Properties], Iterator[Line]]] = {
    "AWS::CloudWatch::Alarm": _Pricing.alarm,
    "AWS::DocDB::DBInstance": _Pricing.documents,
    "AWS::EC2::EIP": _Pricing.address,
    "AWS::EC2::NatGateway": _Pricing.nat,
    "AWS::EC2::VPCEndpoint": _Pricing.endpoint,
    "AWS::ECR::Repository": _Pricing.repository,
    "AWS::EKS::Cluster": _Pricing.cluster,
    "AWS::EKS::Nodegroup": _Pricing.node_group,
    "AWS::ElastiCache::ReplicationGroup": _Pricing.carts,
    "AWS::ElasticLoadBalancingV2::LoadBalancer": _Pricing.balancer,
    "AWS::KMS::Key": _Pricing.key,
    "AWS::MSK::Cluster": _Pricing.events,
    "AWS::OpenSearchService::Domain": _Pricing.search,
    "AWS::RDS::DBInstance": _Pricing.postgres,
    "AWS::SecretsManager::Secret": _Pricing.secret,
    "AWS::WAFv2::WebACL": _Pricing.firewall,
}
# Without a price, or with one that only use has: then it is in `usage`.
_FREE = frozenset({
    "AWS::ApplicationAutoScaling::ScalableTarget", "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::Backup::BackupPlan", "AWS::Backup::BackupSelection", "AWS::Backup::BackupVault",
    "AWS::Budgets::Budget",  # the first two of an account
    "AWS::CertificateManager::Certificate",
    "AWS::CloudFront::Distribution", "AWS::CloudFront::OriginAccessControl", "AWS::CloudFront::VpcOrigin",
    "AWS::DocDB::DBCluster", "AWS::DocDB::DBClusterParameterGroup", "AWS::DocDB::DBSubnetGroup",
    "AWS::EC2::FlowLog", "AWS::EC2::InternetGateway", "AWS::EC2::LaunchTemplate", "AWS::EC2::Route",
    "AWS::EC2::RouteTable", "AWS::EC2::SecurityGroup", "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress", "AWS::EC2::Subnet", "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPC", "AWS::EC2::VPCGatewayAttachment",
    "AWS::EKS::AccessEntry", "AWS::EKS::Addon", "AWS::EKS::PodIdentityAssociation",
    "AWS::ElastiCache::ParameterGroup", "AWS::ElastiCache::SubnetGroup", "AWS::ElastiCache::User",
    "AWS::ElastiCache::UserGroup",
    "AWS::ElasticLoadBalancingV2::Listener", "AWS::ElasticLoadBalancingV2::TargetGroup",
    "AWS::Events::Rule",
    "AWS::IAM::InstanceProfile", "AWS::IAM::OIDCProvider", "AWS::IAM::Policy", "AWS::IAM::Role",
    "AWS::KMS::Alias",
    "AWS::Logs::LogGroup", "AWS::Logs::ResourcePolicy",
    "AWS::MSK::Configuration",
    "AWS::RDS::DBParameterGroup", "AWS::RDS::DBSubnetGroup",
    "AWS::Route53::RecordSet",
    "AWS::S3::Bucket", "AWS::S3::BucketPolicy",
    "AWS::SNS::Subscription", "AWS::SNS::Topic", "AWS::SNS::TopicPolicy",
    "AWS::SQS::Queue", "AWS::SQS::QueuePolicy",  # a few notices a day
    "AWS::SSM::Parameter",
    "AWS::SecretsManager::SecretTargetAttachment",
    "AWS::WAFv2::LoggingConfiguration",
})  # fmt: skip
