"""Every public method admits whom its policy names and nobody else; walked from the descriptors."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from stoa.auth.v1 import policy_pb2
from tests.e2e.shop import Customer, Shop

DESCRIPTORS = Path(__file__).parents[2] / "gen" / "descriptors" / "stoa.binpb"
ID = "01900000-0000-7000-8000-000000000000"


def methods() -> Iterator[tuple[str, str, str, policy_pb2.Policy]]:
    """Full name, HTTP method, path and policy of each public method."""
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    for file in files.file:
        for service in file.service:
            for method in service.method:
                http = method.options.Extensions[annotations_pb2.http]
                if kind := http.WhichOneof("pattern"):
                    policy = method.options.Extensions[policy_pb2.policy]
                    yield f"{service.name}.{method.name}", kind.upper(), getattr(http, kind), policy


METHODS = list(methods())


async def answer(client: Customer, method: str, path: str, user_id: str = ID) -> int:
    """The HTTP status of a call with an empty body and made-up ids."""
    filled = re.sub(r"\{(\w+)\}", lambda match: user_id if match[1] == "user_id" else ID, path)
    body: Any = {} if method in ("POST", "PUT", "PATCH") else None
    return (await client.send(method, filled, json=body)).status_code


@pytest.fixture(scope="module")
async def bob(shop: Shop) -> Customer:
    return await shop.shopper()


@pytest.mark.parametrize(("name", "method", "path", "policy"), METHODS, ids=[entry[0] for entry in METHODS])
async def test_the_policy_holds(
    shop: Shop, bob: Customer, name: str, method: str, path: str, policy: policy_pb2.Policy
) -> None:
    for_anyone = policy.HasField("anyone")
    if name == "PaymentService.ReceiveWebhook":
        return  # anyone may call it, and its signature, not a token, decides: tested with bad input
    if name.startswith("AuthService."):
        assert for_anyone
        return  # who signs in is nobody yet; what they may do is tested with purchases
    nobody = await answer(shop.nobody(), method, path)
    stranger = await answer(bob, method, path)
    staff = await answer(shop.staff, method, path)
    if for_anyone:
        assert nobody not in (401, 403)
        return
    assert nobody == 401
    if policy.HasField("customer"):
        assert stranger not in (401, 403)
    else:
        assert stranger == 403
    if policy.owner:
        assert await answer(bob, method, path, bob.user_id) not in (401, 403)
    if policy.HasField("staff"):
        assert staff not in (401, 403)
    elif not policy.HasField("customer"):
        assert staff == 403


def test_there_is_something_to_walk() -> None:
    assert len(METHODS) > 25
