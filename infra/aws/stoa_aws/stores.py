"""What all stores have in common: where they stand, and that only nodes reach them."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from stoa_aws.keys import KeysStack

SUBNETS = ec2.SubnetSelection(subnet_group_name="stores")
"""Without a way to the internet, in either direction."""

BACKUP_TAG = "stoa:backup"
"""What has it is in the backup plan."""

DEFAULT_PORT = (
    "another port hides nothing from who is in the network; the security group admits the nodes alone"
)
USED_ONCE = "it is used once, to make the services' accounts; an operator renews it then"


@dataclass(frozen=True, slots=True)
class Place:
    """Where stores stand, the nodes that reach them, and the keys that encrypt what they keep and log."""

    vpc: ec2.IVpc
    nodes: ec2.ISecurityGroup
    keys: KeysStack

    @property
    def subnet_ids(self) -> list[str]:
        """Of their subnets, one in each zone."""
        return list(self.vpc.select_subnets(subnet_group_name=SUBNETS.subnet_group_name).subnet_ids)


def guard(scope: Construct, place: Place, *ports: int) -> ec2.SecurityGroup:
    """Make a store's security group, which admits the nodes at these ports and lets nothing out."""
    group = ec2.SecurityGroup(
        scope,
        "guard",
        vpc=place.vpc,
        description="A store: nodes come in, nothing goes out",
        allow_all_outbound=False,
    )
    for port in ports:
        group.add_ingress_rule(place.nodes, ec2.Port.tcp(port), "nodes")
    return group
