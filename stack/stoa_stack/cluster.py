"""A shop in a Kubernetes cluster: where its parts are found, and its Secrets.

In a cluster for tests the servers of the stack run in pods, each by itself, instead of under a supervisor
(`stoa_stack.servers`, charts/infrastructure). To the code of the stack this is an instance like any other,
with other addresses: all that makes passwords, URLs and settings for one on this machine makes them here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stoa_services import SERVICES
from stoa_stack import ports
from stoa_stack.instance import Instance


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Where the shop is, and what it needs around it."""

    shop: str = "stoa"
    infrastructure: str = "stoa-infrastructure"

    def of(self, name: str) -> str:
        """The namespace of a service, of the edge, or of a server."""
        return self.shop if name == "edge" or name in SERVICES else self.infrastructure


def addresses(namespaces: Namespaces) -> dict[str, str]:
    """`host:port` of every part that others speak to, by its name in the table of ports.

    What only a server itself speaks to (a controller, a page for operators) is on the server's own host.
    """
    found = {}
    for name, port in ports.usual().items():
        host = _HOST_OF.get(name, name)
        found[name] = f"{ports.HOST if host is None else f'{host}.{namespaces.of(host)}'}:{port}"
    return found


def instance(state: Path, namespaces: Namespaces, listen_host: str = ports.HOST) -> Instance:
    """The shop in a cluster as an instance, with a folder for its secrets, or for the data of a server."""
    return Instance(state, listen_host=listen_host, addresses=addresses(namespaces))


# Names in the table of ports that are no names of hosts; None is for what no other host may speak to.
_HOST_OF: dict[str, str | None] = {
    **{f"{name}-metrics": name for name in SERVICES},
    "mail-page": "mail",
    "edge-admin": None,
    "kafka-controller": None,
    "registry-management": None,
    "opensearch-transport": None,
}
