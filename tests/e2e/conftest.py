"""The running shop that the tests use, found by the state folder in STOA_STATE.

It may be one in a cluster (`stoa test-cluster e2e`, which sets STOA_TEST_ON=cluster): all that the tests ask
for is found by addresses. What needs the local stack itself is marked as `local`, and says why.
"""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from stoa_stack.carriers import Carriers
from stoa_stack.instance import Instance
from stoa_stack.mail import Mailbox
from tests.e2e.shop import Customer, Shop


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_cluster = os.environ.get("STOA_TEST_ON") == "cluster"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.stack)
            if on_cluster and (local := item.get_closest_marker("local")) is not None:
                item.add_marker(pytest.mark.skip(reason=local.args[0]))


@pytest.fixture(scope="session")
def state() -> Path:
    """The state folder of the running stack."""
    if "STOA_STATE" not in os.environ:
        pytest.fail("STOA_STATE is not set: run `make test`, or leave such tests out with -m 'not stack'")
    return Path(os.environ["STOA_STATE"])


@pytest.fixture(scope="session")
async def shop(state: Path) -> AsyncIterator[Shop]:
    """The shop, with its staff signed in."""
    access = json.loads((state / "access.json").read_text())
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=access["edge_url"], timeout=30, limits=limits) as http:
        yield Shop(http, await Customer(http).sign_in(**access["staff"]))


@pytest.fixture
async def carriers() -> AsyncIterator[Carriers]:
    """The carriers, whose parcels need not be waited for."""
    async with Carriers(Instance.current()) as carriers:
        yield carriers


@pytest.fixture
def mailbox() -> Mailbox:
    """The mail that the shop has sent."""
    return Mailbox(Instance.current())
