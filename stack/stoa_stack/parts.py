"""The whole stack: the servers, the companies outside, the services that are declared, and the edge.

Arrows point from a part to what it needs:

    catalogue → edge → services → contracts → kafka, registry
                                → the server of its store
                                → the companies that it calls
                                → the fork server, with Python's libraries
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from stoa_contracts.declarations import Store
from stoa_services import SERVICES
from stoa_stack import deploy, fork_server, services
from stoa_stack.companies import COMPANIES
from stoa_stack.fetch import Cache
from stoa_stack.instance import Instance
from stoa_stack.part import Part, with_needs
from stoa_stack.servers import edge, kafka, mongo, opensearch, postgres, registry, valkey
from stoa_stack.stores import STORES, users_of

SERVERS: Mapping[str, Callable[[Instance], Part]] = {
    "postgres": lambda at: postgres.part(at, databases=users_of(Store.POSTGRES)),
    "valkey": lambda at: valkey.part(at, users=users_of(Store.REDIS)),
    "mongo": lambda at: mongo.part(at, Cache.of_user()),
    "opensearch": lambda at: opensearch.part(at, Cache.of_user()),
    "kafka": lambda at: kafka.part(at, Cache.of_user()),
    "registry": lambda at: registry.part(at, Cache.of_user()),
    **{company.part: company.fake for company in COMPANIES.values()},
}
"""What services need around them, each with its part of an instance."""


def parts(at: Instance) -> list[Part]:
    """All parts of an instance."""
    elsewhere = {store.part for store in STORES.values() if store.elsewhere(at)}
    servers = [part(at) for name, part in SERVERS.items() if name not in elsewhere]
    contracts = Part(
        name="contracts",  # topics and event schemas
        command=[sys.executable, "-m", "stoa_stack.deploy"],
        needs=("kafka", "registry"),
        env={"STOA_KAFKA_BOOTSTRAP": at.address("kafka"), "STOA_SCHEMA_REGISTRY_URL": at.registry_url},
        packages=["stoa_events", "stoa_services"],
        reads=[Path(deploy.__file__)],
    )
    declared = [services.part(at, service, contracts=contracts.name) for service in SERVICES.values()]
    forking = fork_server.part(at)
    front = edge.part(at, services=list(SERVICES))
    catalogue = Part(
        name="catalogue",  # of the demo shop, loaded once
        command=[sys.executable, "-m", "stoa_stack.demo_catalogue"],
        needs=(front.name,),
        env={"STOA_STATE": str(at.state)},
        ready_within_seconds=300,
    )
    return [*servers, contracts, forking, *declared, front, catalogue]


def chosen(at: Instance) -> list[Part]:
    """The parts that the instance was asked for, with what they need; all if none was named."""
    every = parts(at)
    names = [part.name for part in every]
    return with_needs(every, [name for name in at.only if name in names] or names)
