"""`stoa charts`: what can be known of the charts without a cluster.

releases.py   what is installed where: charts with the values of each environment
helm.py       Helm and its unit tests
schemas.py    rendered objects against the schemas of Kubernetes and of custom resources
policy.py     what no pod of the shop may be
"""
