"""The whole stack: the servers, the companies outside, the services that are declared, and the edge.

Arrows point from a part to what it needs:

    catalogue → edge → services → contracts → kafka, registry
                                → the server of its store
                                → the companies that it calls
                                → the fork server, with Python's libraries
"""

from __future__ import annotations

import sys

from stoa_services import SERVICES
from stoa_stack import fork_server, services
from stoa_stack.files import package_folder
from stoa_stack.instance import Instance
from stoa_stack.part import Part, with_needs
from stoa_stack.servers import edge
from stoa_stack.servers.table import SERVERS
from stoa_stack.stores import STORES


def parts(at: Instance) -> list[Part]:
    """All parts of an instance."""
    elsewhere = {store.part for store in STORES.values() if store.elsewhere(at)}
    servers = [part(at) for name, part in SERVERS.items() if name not in elsewhere]
    contracts = Part(
        name="contracts",  # topics and event schemas
        command=[sys.executable, "-m", "stoa_ops", "deploy"],
        needs=("kafka", "registry"),
        env={"STOA_OPS_DIR": str(at.folder("operator"))},
        packages=["stoa_events", "stoa_services"],
        reads=[package_folder("stoa_ops") / "deploy.py"],
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
