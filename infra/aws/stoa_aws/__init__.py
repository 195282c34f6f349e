"""The shop on AWS: network, cluster, stores, identities and front door, as stacks of the CDK."""
