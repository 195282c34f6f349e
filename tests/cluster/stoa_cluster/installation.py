"""The shop in the cluster: where it is, and how one speaks to it.

To the programs of the stack it is an instance like any other (`stoa_stack.cluster`), with a state folder and
addresses. What only an operator reaches, such as the companies outside that are played by others, has its
port brought to this machine for as long as it is needed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from stoa_cluster.kubernetes import Cluster
from stoa_services import SERVICES
from stoa_stack import access, cluster_secrets, shopping
from stoa_stack.cluster import Namespaces
from stoa_stack.instance import CHECKOUT, Instance
from stoa_stack.rest import Client
from stoa_stack.throwaway import port_base

GRPC_PORT, METRICS_PORT = 9000, 9100
STATE = CHECKOUT / ".stoa-cluster"
_INGRESS = ("--all-namespaces", "--selector", "istio=ingressgateway")
# What programs ask beside the shop itself: the companies' pages, and what says that orders were delivered.
_FORWARDED = {"carriers": ("carriers", 8080), "gateway": ("gateway", 8080), "mail-page": ("mail", 8080)}
_FORWARDED |= {"postgres": ("postgres", 5432), "registry": ("registry", 8080)}


@dataclass(frozen=True)
class Installation:
    """The shop, and what it is installed from: `registry`/<name>:`tag` are the images.

    `load` is a command that hands an image to the cluster's nodes, with {image} in it; empty where nodes can
    pull. `url` is where shoppers reach the ingress.
    """

    console: Console
    namespaces: Namespaces
    url: str
    registry: str
    tag: str
    load: str = ""
    state: Path = STATE

    @property
    def cluster(self) -> Cluster:
        """The cluster, seen from the shop's namespace."""
        return Cluster(self.namespaces.shop)

    @property
    def infrastructure(self) -> Cluster:
        """The cluster, seen from the namespace of what the shop needs around it."""
        return Cluster(self.namespaces.infrastructure)

    @property
    def deployments(self) -> tuple[str, ...]:
        """What the shop consists of: its services and the edge."""
        return (*SERVICES, "edge")

    def image(self, name: str) -> str:
        """The image of a service, of the edge, or of one of the tools."""
        return f"{self.registry}/{name}:{self.tag}"

    def host(self, service: str) -> str:
        """How a service is called from any namespace."""
        return f"{service}.{self.namespaces.shop}"

    def http(self, **options: Any) -> httpx.AsyncClient:
        """A connection to the shop through the ingress."""
        return httpx.AsyncClient(base_url=self.url, timeout=30, trust_env=False, **options)

    async def staff(self, http: httpx.AsyncClient) -> Client:
        """The first member of staff, signed in."""
        return await Client(http).sign_in(**shopping.access(self.instance())["staff"])

    def instance(self) -> Instance:
        """The shop as an instance of the stack, of which only the edge and the secrets can be asked for."""
        url = httpx.URL(self.url)
        return Instance(self.state, addresses={"edge": f"{url.host}:{url.port or 80}"})

    async def sign_in_as_operator(self) -> None:
        """Have the secrets of the shop, and who may sign in, in its state folder. Raises KubectlFailed."""
        at = self.instance()
        await asyncio.to_thread(cluster_secrets.fetch, at, self.namespaces)
        access.write(at)

    async def outside(self, *, in_mesh: bool) -> Cluster:
        """A namespace beside the shop's, made if it is not there."""
        name = f"{self.namespaces.shop}-{'elsewhere' if in_mesh else 'outside'}"
        await self.cluster.apply(namespace(name, in_mesh=in_mesh))
        return self.cluster.elsewhere(name)

    @asynccontextmanager
    async def at_hand(self) -> AsyncIterator[Instance]:
        """The shop as an instance of which programs on this machine reach all that they ask, in the block.

        The instance is written down in its state folder, so that STOA_STATE names it for other processes.
        """
        async with AsyncExitStack() as open_ports:
            base = open_ports.enter_context(port_base())
            here = replace(self.instance(), port_base=base)
            addresses = dict(here.addresses)
            for name, (service, port) in _FORWARDED.items():
                addresses[name] = here.address(name)
                forwarded = self.infrastructure.forwarded(service, port, here.port(name))
                await open_ports.enter_async_context(forwarded)
            at = replace(here, addresses=addresses)
            at.record()
            yield at


def namespace(name: str, *, in_mesh: bool) -> Mapping[str, Any]:
    """A namespace in which pods get sidecars, or none."""
    labels = {"istio-injection": "enabled" if in_mesh else "disabled"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


async def ingress_url() -> str:
    """Where the ingress gateway's load balancer is reached. Raises LookupError if it has no address."""
    if url := os.environ.get("STOA_CLUSTER_URL"):
        return url.rstrip("/")
    for service in await Cluster("default").list("services", *_INGRESS):
        for address in service["status"].get("loadBalancer", {}).get("ingress", ()):
            return f"http://{address.get('ip') or address['hostname']}"
    raise LookupError("no service with the label istio=ingressgateway has an address: set STOA_CLUSTER_URL")
