"""Rebuilds the read models of all running processes: `python -m stoa_catalog.replay`, while the shop runs.

Each process makes a new one from the document store, answers from it from then on, and reports in which
products the old one differed. The last line of the output is a JSON object:
{"replayed": n, "differed": [ids]}.
"""

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson

from stoa.catalog.v1.catalog_pb2 import RebuildReadModelRequest, RebuildReadModelResponse
from stoa.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from stoa_catalog.settings import Settings
from stoa_chassis.clients import ClientChannel
from stoa_chassis.ids import new_id
from stoa_chassis.tls import CertificateFolder

_SECONDS = 600.0  # a rebuild may take
_CONNECTIONS_PER_PROCESS = 30


class Unreachable(Exception):
    """Not all processes that share an address have answered."""


async def ask_every_process_by_chance(
    address: str, certificates: CertificateFolder | None
) -> list[RebuildReadModelResponse]:
    """Have every process at host:port rebuild; return the answer of each. Raises RemoteError, Unreachable.

    Processes that share a port can't be told apart from outside: the kernel gives each new connection to one
    of them. So connections are made until as many different processes have answered as there are, at most
    thirty for each. That is enough for an operator's command now and then. Not a pattern: what every process
    must know is published as an event, which each follows.
    """
    request = RebuildReadModelRequest(run_id=str(new_id()))
    answers: dict[str, RebuildReadModelResponse] = {}
    workers = tries = 1
    while len(answers) < workers:
        if tries > workers * _CONNECTIONS_PER_PROCESS:
            raise Unreachable(f"{len(answers)} of the {workers} processes at {address} answered")
        channel = ClientChannel("catalog", address, certificates)
        try:
            answer = await channel.stub(CatalogServiceStub).RebuildReadModel(request, timeout=_SECONDS)
        finally:
            await channel.close()
        answers[answer.instance] = answer
        workers, tries = answer.workers, tries + 1
    return list(answers.values())


def addresses(instances: str) -> Iterator[str]:
    """Return host:port of every instance; a name stands for all its addresses. Raises OSError."""
    for instance in instances.split(","):
        host, _, port = instance.strip().rpartition(":")
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        for *_, at in found:
            ip = str(at[0])
            yield f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


async def _main() -> None:
    settings = Settings.load("catalog")
    certificates = CertificateFolder(Path(settings.tls_dir)) if settings.tls_dir else None
    instances = settings.instances or f"{settings.host}:{settings.port}"
    rebuilt = [
        answer
        for address in addresses(instances)
        for answer in await ask_every_process_by_chance(address, certificates)
    ]
    report = {
        "replayed": max(answer.replayed for answer in rebuilt),
        "differed": sorted({product_id for answer in rebuilt for product_id in answer.differed}),
    }
    sys.stdout.write(orjson.dumps(report).decode() + "\n")


if __name__ == "__main__":
    asyncio.run(_main())
