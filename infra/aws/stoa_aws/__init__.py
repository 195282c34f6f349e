"""The shop on AWS: network, cluster, stores, identities and front door, as stacks of the CDK.

    environment.py    which shop: account, domain, size
    sizes.py          what each size has; capacity.py what it carries, estimate.py what it costs
    shop.py           its stacks in their order, each a ShopStack (stack.py) in the file of its name
    stores.py         what postgres, documents, cache, search and events have in common
    identities.py     a role and secrets for each service; rights.py what it may at Kafka
    handover.py       what the cluster is told: values of the charts, and objects for add-ons
    documentation.py  the tables of docs/aws.md
    nag.py            excuses of what cdk-nag finds, each with its reason

`python -m stoa_aws` writes templates and handover; `stoa infra` runs and checks it.
"""
