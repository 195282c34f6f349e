"""The contracts as the tests see them: read from the committed descriptor set."""

import pytest

from stoa_contracts.descriptors import Contracts, read

CONTRACTS = read()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `rpc` runs for every RPC, one that takes another of these for those alone."""
    rpcs = CONTRACTS.rpcs
    for name, chosen in {
        "rpc": rpcs,
        "public_rpc": [rpc for rpc in rpcs if rpc.routes],
        "internal_rpc": [rpc for rpc in rpcs if not rpc.routes],
        "owned_rpc": [rpc for rpc in rpcs if rpc.policy is not None and rpc.policy.owner],
    }.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, chosen, ids=lambda rpc: rpc.full_name.removeprefix("stoa."))


@pytest.fixture
def contracts() -> Contracts:
    return CONTRACTS
