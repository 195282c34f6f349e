"""The whole shop: its stacks, in the order in which they build on each other."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import App, Tags, Validations
from cdk_nag import AwsSolutionsChecks

from stoa_aws.accounts import AccountsStack
from stoa_aws.autoscaling import AutoscalingStack
from stoa_aws.backups import BackupsStack
from stoa_aws.cache import CacheStack
from stoa_aws.cluster import ClusterStack
from stoa_aws.documents import DocumentsStack
from stoa_aws.environment import Environment
from stoa_aws.events import EventsStack
from stoa_aws.front import FrontStack
from stoa_aws.identities import IdentitiesStack
from stoa_aws.images import ImagesStack
from stoa_aws.keys import KeysStack
from stoa_aws.network import NetworkStack
from stoa_aws.postgres import PostgresStack
from stoa_aws.search import SearchStack
from stoa_aws.stores import Place
from stoa_aws.watch import WatchStack

# What the CDK does by default only in apps that are new.
_FEATURES = {
    "@aws-cdk/aws-iam:minimizePolicies": True,
    "@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy": True,
}


def environment(app: App) -> Environment:
    """Which shop an app is of. Raises InvalidSetting."""
    return Environment.of({name: app.node.try_get_context(name) for name in Environment.settings()})


def build(settings: Mapping[str, str] | None = None, outdir: str | None = None) -> App:
    """Make all stacks of a shop, ready to be synthesised; cdk-nag looks at them then.

    What `settings` leave out is taken from the CDK's context, or is that of the example. Raises
    InvalidSetting.
    """
    app = App(outdir=outdir, analytics_reporting=False, context={**_FEATURES, **(settings or {})})
    at = environment(app)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))
    Tags.of(app).add("stoa:environment", at.name)

    keys = KeysStack(app, at)
    network = NetworkStack(app, at, key=keys.logs)
    ImagesStack(app, at)
    cluster = ClusterStack(app, at, vpc=network.vpc, secrets_key=keys.secrets, logs_key=keys.logs)
    AutoscalingStack(app, at, cluster=cluster.cluster, node_role=cluster.node_role)
    accounts = AccountsStack(app, at, key=keys.secrets)
    place = Place(network.vpc, cluster.guard, keys)
    postgres = PostgresStack(app, at, place)
    documents = DocumentsStack(app, at, place)
    events = EventsStack(app, at, place)
    cache = CacheStack(app, at, place, accounts=accounts)
    search = SearchStack(app, at, place, master=accounts.of_search)
    IdentitiesStack(
        app, at, cluster=cluster.cluster, key=keys.secrets, accounts=accounts,
        postgres=postgres, documents=documents, cache=cache, search=search, events=events,
    )  # fmt: skip
    front = FrontStack(app, at, vpc=network.vpc, cluster=cluster.cluster, nodes=cluster.guard)
    BackupsStack(app, at, key=keys.data)
    WatchStack(
        app, at, key=keys.logs, postgres=postgres, documents=documents, events=events,
        cache=cache, search=search, front=front,
    )  # fmt: skip
    return app
