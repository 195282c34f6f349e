"""The network: three zones, of which only load balancers and gateways have public addresses."""

from __future__ import annotations

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from constructs import Construct

from stoa_aws.environment import Environment
from stoa_aws.log_groups import log_group
from stoa_aws.stack import ShopStack

ADDRESSES = "10.40.0.0/16"
NODES = "nodes"
"""The subnets of nodes and pods."""

# What nodes and pods ask of AWS all the time: images, secrets, keys, identities, logs.
_ENDPOINTS = {
    "ecr": ec2.InterfaceVpcEndpointAwsService.ECR,
    "images": ec2.InterfaceVpcEndpointAwsService.ECR_DOCKER,
    "secrets": ec2.InterfaceVpcEndpointAwsService.SECRETS_MANAGER,
    "keys": ec2.InterfaceVpcEndpointAwsService.KMS,
    "identities": ec2.InterfaceVpcEndpointAwsService.STS,
    "pod-identities": ec2.InterfaceVpcEndpointAwsService.EKS_AUTH,
    "logs": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
}


class NetworkStack(ShopStack):
    """A VPC with public, private and isolated subnets, flow logs and endpoints.

    Nodes live in the private subnets, which reach the internet through NAT; stores in the isolated ones,
    which don't.
    """

    def __init__(self, scope: Construct, at: Environment, *, key: kms.IKey) -> None:
        super().__init__(scope, "network", at)
        self.vpc = ec2.Vpc(
            self,
            "network",
            ip_addresses=ec2.IpAddresses.cidr(ADDRESSES),
            availability_zones=list(at.zones),
            nat_gateways=at.size.nat_gateways,
            restrict_default_security_group=False,  # nothing is in it; emptying it would take a Lambda
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="public",
                    subnet_type=ec2.SubnetType.PUBLIC,
                    cidr_mask=24,
                    map_public_ip_on_launch=False,
                ),
                # Each pod has an address of its own.
                ec2.SubnetConfiguration(
                    name=NODES, subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS, cidr_mask=19
                ),
                ec2.SubnetConfiguration(
                    name="stores", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24
                ),
            ],
        )
        self._log_flows(key)
        self._open_endpoints(at)

    def _log_flows(self, key: kms.IKey) -> None:
        group = log_group(self, "flows", key)
        # What was refused is what one looks for; all of it would cost more than the network.
        self.vpc.add_flow_log(
            "refused",
            destination=ec2.FlowLogDestination.to_cloud_watch_logs(group),
            traffic_type=ec2.FlowLogTrafficType.REJECT,
        )

    def _open_endpoints(self, at: Environment) -> None:
        self.vpc.add_gateway_endpoint("s3", service=ec2.GatewayVpcEndpointAwsService.S3)
        guard = ec2.SecurityGroup(
            self,
            "endpoints",
            vpc=self.vpc,
            description="Services of AWS, to all of the network",
            allow_all_outbound=False,
        )
        guard.add_ingress_rule(ec2.Peer.ipv4(ADDRESSES), ec2.Port.tcp(443), "HTTPS from the network")
        for name, service in _ENDPOINTS.items():
            self.vpc.add_interface_endpoint(
                f"endpoint-{name}",
                service=service,
                open=False,
                security_groups=[guard],
                subnets=ec2.SubnetSelection(
                    subnet_group_name=NODES,
                    availability_zones=list(at.zones[: at.size.endpoint_zones]),
                ),
            )
