"""The shop on AWS: its network, cluster, stores, identities and front door, as CloudFormation by way of the CDK."""
