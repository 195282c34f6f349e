"""The front door: CloudFront with a firewall; pictures from S3, all else from a load balancer within."""

from __future__ import annotations

from typing import Any

from aws_cdk import Duration, RemovalPolicy, Tags
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_eks_v2 as eks
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_route53_targets as route53_targets
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stoa_aws import network, stores
from stoa_aws.environment import Environment
from stoa_aws.firewall import Firewall
from stoa_aws.nag import excuse
from stoa_aws.pod_identity import pod_role
from stoa_aws.stack import ShopStack

# The networks that CloudFront calls origins from (com.amazonaws.global.cloudfront.origin-facing),
# in us-east-1.
_CLOUDFRONT = "pl-3b927c52"
_GATEWAY_PORT = 443
"""Of the mesh's ingress gateway in its pods; TLS, as everywhere."""
_GATEWAY_HEALTH_PORT = 15021
_CONTROLLER = ("kube-system", "aws-load-balancer-controller")


class FrontStack(ShopStack):
    """What visitors reach, and nothing else of the shop has a public address."""

    def __init__(
        self, scope: Construct, at: Environment, *, vpc: ec2.IVpc, cluster: eks.Cluster,
        nodes: ec2.ISecurityGroup,
    ) -> None:  # fmt: skip
        super().__init__(scope, "front", at)
        zone = route53.HostedZone.from_hosted_zone_attributes(
            self, "zone", hosted_zone_id=at.zone, zone_name=at.domain
        )
        certificate = acm.Certificate(
            self, "certificate", domain_name=at.domain, validation=acm.CertificateValidation.from_dns(zone)
        )
        self.logs = self._log_bucket()
        self.pictures = self._picture_bucket()
        self.balancer = self._balancer(vpc)
        self.targets = self._targets(vpc, certificate)
        nodes_guard = ec2.SecurityGroup.from_security_group_id(self, "nodes", nodes.security_group_id)
        for port in (_GATEWAY_PORT, _GATEWAY_HEALTH_PORT):
            self.balancer.connections.allow_to(nodes_guard, ec2.Port.tcp(port), "the mesh's ingress gateway")
        self._register(cluster)
        self.firewall = Firewall(self, "firewall", at)
        self.distribution = self._distribution(certificate)
        for record in (route53.ARecord, route53.AaaaRecord):
            record(
                self,
                record.__name__,
                zone=zone,
                target=route53.RecordTarget.from_alias(route53_targets.CloudFrontTarget(self.distribution)),
            )

    def _log_bucket(self) -> s3.Bucket:
        bucket = self._bucket(
            "logs",
            s3.ObjectOwnership.BUCKET_OWNER_PREFERRED,  # CloudFront writes with an ACL
            # They have addresses of visitors.
            s3.LifecycleRule(expiration=Duration.days(30)),
        )
        excuse(bucket, "S1", "it is where logs go; logging them would log the logging")
        return bucket

    def _picture_bucket(self) -> s3.Bucket:
        bucket = self._bucket(
            "pictures",
            s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            s3.LifecycleRule(
                noncurrent_version_expiration=Duration.days(30),
                abort_incomplete_multipart_upload_after=Duration.days(1),
            ),
            versioned=True,
            server_access_logs_bucket=self.logs,
            server_access_logs_prefix="pictures/",
        )
        Tags.of(bucket).add(stores.BACKUP_TAG, "daily")
        return bucket

    def _bucket(
        self, name: str, ownership: s3.ObjectOwnership, lifecycle: s3.LifecycleRule, **more: Any
    ) -> s3.Bucket:
        """A bucket that is read over TLS alone, by nobody in public, and outlives the stack."""
        return s3.Bucket(
            self,
            name,
            # Neither the load balancer nor CloudFront writes to a bucket with a key of ours, or reads one.
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            object_ownership=ownership,
            lifecycle_rules=[lifecycle],
            removal_policy=RemovalPolicy.RETAIN,
            **more,
        )

    def _balancer(self, vpc: ec2.IVpc) -> elb.ApplicationLoadBalancer:
        guard = ec2.SecurityGroup(
            self,
            "guard",
            vpc=vpc,
            description="The load balancer: CloudFront comes in",
            allow_all_outbound=False,
        )
        guard.add_ingress_rule(ec2.Peer.prefix_list(_CLOUDFRONT), ec2.Port.tcp(443), "CloudFront")
        balancer = elb.ApplicationLoadBalancer(
            self,
            "balancer",
            load_balancer_name=self._at.named("front"),
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_group_name=network.NODES),
            internet_facing=False,
            security_group=guard,
            deletion_protection=True,
            drop_invalid_header_fields=True,
            desync_mitigation_mode=elb.DesyncMitigationMode.DEFENSIVE,
            idle_timeout=Duration.seconds(60),
        )
        balancer.log_access_logs(self.logs, "balancer")
        return balancer

    def _targets(self, vpc: ec2.IVpc, certificate: acm.ICertificate) -> elb.ApplicationTargetGroup:
        targets = elb.ApplicationTargetGroup(
            self,
            "gateway",
            target_group_name=self._at.named("gateway"),
            vpc=vpc,
            target_type=elb.TargetType.IP,
            protocol=elb.ApplicationProtocol.HTTPS,
            port=_GATEWAY_PORT,
            deregistration_delay=Duration.seconds(30),
            health_check=elb.HealthCheck(
                protocol=elb.Protocol.HTTP,
                port=str(_GATEWAY_HEALTH_PORT),
                path="/healthz/ready",
                interval=Duration.seconds(10),
                timeout=Duration.seconds(5),
                healthy_threshold_count=2,
                unhealthy_threshold_count=2,
            ),
        )
        self.balancer.add_listener(
            "https",
            protocol=elb.ApplicationProtocol.HTTPS,
            port=443,
            open=False,
            certificates=[certificate],
            ssl_policy=elb.SslPolicy.RECOMMENDED_TLS,
            default_target_groups=[targets],
        )
        return targets

    def _register(self, cluster: eks.Cluster) -> None:
        """Let the load balancer's controller put the gateway's pods into the target group, and do no more."""
        role = pod_role(self, cluster, *_CONTROLLER)
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets"],
                resources=[self.targets.target_group_arn],
            )
        )
        role.add_to_policy(
            iam.PolicyStatement(
                actions=[
                    "elasticloadbalancing:DescribeTargetGroups",
                    "elasticloadbalancing:DescribeTargetHealth",
                    "ec2:DescribeAvailabilityZones",
                    "ec2:DescribeInstances",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:DescribeSecurityGroups",
                    "ec2:DescribeSubnets",
                    "ec2:DescribeVpcs",
                ],
                resources=["*"],
            )
        )
        excuse(
            role,
            "IAM5",
            "AWS tells which machines and groups there are to whom may see all",
            of=["Resource::*"],
        )

    def _distribution(self, certificate: acm.ICertificate) -> cloudfront.Distribution:
        shop = origins.VpcOrigin.with_application_load_balancer(
            self.balancer,
            protocol_policy=cloudfront.OriginProtocolPolicy.HTTPS_ONLY,
            origin_ssl_protocols=[cloudfront.OriginSslPolicy.TLS_V1_2],
            read_timeout=Duration.seconds(30),
            keepalive_timeout=Duration.seconds(30),
        )
        distribution = cloudfront.Distribution(
            self,
            "distribution",
            comment=self._at.named("front"),
            domain_names=[self._at.domain],
            certificate=certificate,
            minimum_protocol_version=cloudfront.SecurityPolicyProtocol.TLS_V1_2_2021,
            http_version=cloudfront.HttpVersion.HTTP2_AND_3,
            price_class=cloudfront.PriceClass.PRICE_CLASS_100,
            web_acl_id=self.firewall.acl.attr_arn,
            enable_logging=True,
            log_bucket=self.logs,
            log_file_prefix="distribution/",
            log_includes_cookies=False,
            default_behavior=cloudfront.BehaviorOptions(
                origin=shop,
                viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
                allowed_methods=cloudfront.AllowedMethods.ALLOW_ALL,
                # What the shop says is about this minute and this person.
                cache_policy=cloudfront.CachePolicy.CACHING_DISABLED,
                origin_request_policy=cloudfront.OriginRequestPolicy.ALL_VIEWER,
                response_headers_policy=cloudfront.ResponseHeadersPolicy.SECURITY_HEADERS,
            ),
            additional_behaviors={
                "/pictures/*": cloudfront.BehaviorOptions(
                    origin=origins.S3BucketOrigin.with_origin_access_control(self.pictures),
                    viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
                    cache_policy=cloudfront.CachePolicy.CACHING_OPTIMIZED,
                    response_headers_policy=cloudfront.ResponseHeadersPolicy.SECURITY_HEADERS,
                )
            },
        )
        excuse(
            distribution,
            "CFR1",
            "a shop sells wherever somebody wants to buy; where it doesn't, it says so itself",
        )
        return distribution
