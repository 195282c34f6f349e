"""Every public method admits whom its policy names and nobody else; walked from the descriptors."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from stoa_contracts.descriptors import Policy, read
from stoa_contracts.roles import STAFF_ROLES
from tests.e2e.shop import Customer, Shop

ID = "01900000-0000-7000-8000-000000000000"


METHODS = [
    (rpc.full_name.split(".", 3)[3], rpc.route.verb, rpc.route.path, rpc.policy)
    for rpc in read().rpcs
    if rpc.route and rpc.policy
]


async def answer(client: Customer, method: str, path: str, user_id: str = ID) -> int:
    """The HTTP status of a call with an empty body and made-up ids."""
    filled = re.sub(r"\{(\w+)\}", lambda match: user_id if match[1] == "user_id" else ID, path)
    body: Any = {} if method in ("POST", "PUT", "PATCH") else None
    return (await client.send(method, filled, json=body)).status_code


@pytest.fixture(scope="module")
async def bob(shop: Shop) -> Customer:
    return await shop.shopper()


@pytest.fixture(scope="module")
async def guest(shop: Shop) -> Customer:
    return await shop.guest()


@pytest.fixture(scope="module")
async def workers(shop: Shop) -> Mapping[str, Customer]:
    """Somebody of staff for each role."""
    return {role: await shop.worker(role) for role in sorted(STAFF_ROLES)}


@pytest.mark.parametrize(("name", "method", "path", "policy"), METHODS, ids=[entry[0] for entry in METHODS])
async def test_the_policy_holds(
    shop: Shop,
    bob: Customer,
    guest: Customer,
    workers: Mapping[str, Customer],
    name: str,
    method: str,
    path: str,
    policy: Policy,
) -> None:
    for_anyone = policy.anyone
    if name == "PaymentService.ReceiveWebhook":
        return  # anyone may call it, and its signature, not a token, decides: tested with bad input
    if name.startswith("AuthService."):
        assert for_anyone
        return  # who signs in is nobody yet; what they may do is tested with purchases
    nobody = await answer(shop.nobody(), method, path)
    stranger = await answer(bob, method, path)
    visitor = await answer(guest, method, path)
    if for_anyone:
        assert nobody not in (401, 403)
        assert visitor not in (401, 403)
        return
    assert nobody == 401
    if policy.customer:
        assert stranger not in (401, 403)
    else:
        assert stranger == 403
    if policy.owner:
        assert await answer(bob, method, path, bob.user_id) not in (401, 403)
        assert await answer(bob, method, path, bob.user_id.upper()) not in (401, 403)
    if policy.guests:
        assert visitor not in (401, 403) if policy.customer else visitor == 403
        if policy.owner:
            assert await answer(guest, method, path, guest.user_id) not in (401, 403)
    else:
        assert visitor == 403
        assert await answer(guest, method, path, guest.user_id) == 403
    for role, worker in workers.items():
        got = await answer(worker, method, path)
        if policy.customer or policy.admits_staff(role):
            assert got not in (401, 403), role
        else:
            assert got == 403, role


def test_there_is_something_to_walk() -> None:
    assert len(METHODS) > 25
