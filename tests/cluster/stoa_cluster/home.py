"""The calls of the matrix at home: to what the chassis serves, by certificate, with no mesh in between.

The servicers behind it implement nothing: whom the chassis admits learns that, whom it does not is refused
before.
"""

from __future__ import annotations

import asyncio
import importlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from stoa_chassis.breaker import Breaker
from stoa_chassis.clients import ClientChannel, RemoteError
from stoa_chassis.testing import serve_in_process
from stoa_contracts.descriptors import Rpc

_BY_IDENTITY = frozenset({"SERVICE_NOT_ALLOWED", "SERVICES_ONLY"})
_NEVER_OPEN = 1_000_000


async def refused(identities: Iterable[str], rpcs: Iterable[Rpc]) -> frozenset[tuple[str, str]]:
    """Send every call as every identity; return those, identity and method, that are refused for who calls."""
    by_grpc_service: Mapping[str, list[Rpc]] = defaultdict(list)
    for rpc in rpcs:
        by_grpc_service[rpc.full_name.rpartition(".")[0]].append(rpc)
    found: set[tuple[str, str]] = set()
    for name, own in by_grpc_service.items():
        found |= await _refused(tuple(identities), name, own)
    return frozenset(found)


async def _refused(identities: Sequence[str], name: str, rpcs: Sequence[Rpc]) -> set[tuple[str, str]]:
    package, _, short = name.rpartition(".")
    code = importlib.import_module(f"{package}.{rpcs[0].service}_pb2_grpc")
    servicer = getattr(code, f"{short}Servicer")()
    async with serve_in_process(getattr(code, f"add_{short}Servicer_to_server"), servicer) as server:

        async def ask(identity: str) -> set[tuple[str, str]]:
            breaker = Breaker(server.name, threshold=_NEVER_OPEN)
            channel = ClientChannel(server.name, server.target, server.certificates(identity), breaker=breaker)
            methods = {rpc.call_path: channel.unary_unary(f"/{rpc.call_path}") for rpc in rpcs}
            found = set()
            for path, method in methods.items():
                try:
                    await method(b"")
                except RemoteError as error:
                    if error.reason in _BY_IDENTITY:
                        found.add((identity, path))
            await channel.close()
            return found

        return set().union(*await asyncio.gather(*map(ask, identities)))
