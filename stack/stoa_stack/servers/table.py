"""The servers that services need around them, and the companies outside, each as a part of an instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stoa_contracts.declarations import Store
from stoa_stack.companies import COMPANIES
from stoa_stack.fetch import Cache
from stoa_stack.instance import Instance
from stoa_stack.part import Part
from stoa_stack.servers import kafka, mongo, opensearch, postgres, registry, valkey
from stoa_stack.stores import users_of

SERVERS: Mapping[str, Callable[[Instance], Part]] = {
    "postgres": lambda at: postgres.part(at, databases=users_of(Store.POSTGRES)),
    "valkey": lambda at: valkey.part(at, users=users_of(Store.REDIS)),
    "mongo": lambda at: mongo.part(at, Cache.of_user()),
    "opensearch": lambda at: opensearch.part(at, Cache.of_user()),
    "kafka": lambda at: kafka.part(at, Cache.of_user()),
    "registry": lambda at: registry.part(at, Cache.of_user()),
    **{company.part: company.fake for company in COMPANIES.values()},
}
"""By name."""
