"""Who may call which method, as the chassis decides at home: every identity × every method of the contracts.

The mesh has to come to the same. tests/contract compares with what its policies are rendered from, and the
proof on a cluster sends each call and sees whether it is refused.
"""

import asyncio
import importlib
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from google.protobuf.descriptor_pool import Default as DefaultPool

from stoa_chassis.auth import Authorizer, Policy, ServiceNotAllowed, ServicesOnly
from stoa_chassis.errors import Unauthenticated
from stoa_chassis.tokens import StaticKeys, TokenVerifier
from stoa_contracts.declarations import EDGE
from stoa_contracts.descriptors import Rpc, read
from stoa_services import SERVICES

OPS, STRANGER = "ops", "stranger"
IDENTITIES = (EDGE, *SERVICES, OPS, STRANGER)
"""Those that pods of the shop have, by their ServiceAccounts, and one that nobody has heard of."""


class Call(NamedTuple):
    """A method, called with the certificate of an identity and with nobody's token."""

    identity: str
    service: str
    """Who answers it."""
    method: str
    """By its path: /stoa.order.v1.OrderService/GetOrder."""
    allowed: bool
    """Whether the identity may call it; whether the user may for whom the edge calls, is asked after that."""


@cache
def matrix() -> Sequence[Call]:
    """Every identity × every method."""
    calls = []
    for rpc in read().rpcs:
        policy = Policy.of(_descriptor(rpc))
        for identity in IDENTITIES:
            allowed = asyncio.run(_admits(policy, identity))
            calls.append(Call(identity, rpc.service, f"/{rpc.call_path}", allowed))
    return calls


async def _admits(policy: Policy, identity: str) -> bool:
    nobodys = TokenVerifier(StaticKeys({"keys": []}), "stoa", "stoa")
    authorizer = Authorizer(lambda *_: identity, nobodys)
    context: Any = SimpleNamespace()
    try:
        await authorizer.admit(policy, context, {})
    except (ServiceNotAllowed, ServicesOnly):
        return False
    except Unauthenticated:  # the identity may, and a user has to sign in
        return True
    return True


def _descriptor(rpc: Rpc) -> Any:
    importlib.import_module(f"{rpc.request.file.name.removesuffix('.proto').replace('/', '.')}_pb2")
    return DefaultPool().FindMethodByName(rpc.full_name)
