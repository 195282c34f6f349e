"""The contracts as the tests see them: read from the committed descriptor set."""

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from stoa_stack.instance import CHECKOUT
from stoa_tools.gen.contracts import Contracts, Method

CONTRACTS = Contracts(
    FileDescriptorSet.FromString((CHECKOUT / "gen/descriptors/stoa.binpb").read_bytes()).file
)


def is_public(method: Method) -> bool:
    return CONTRACTS.option(method.proto, "google.api.http") is not None


def has_owner(method: Method) -> bool:
    policy = CONTRACTS.option(method.proto, "stoa.auth.v1.policy")
    return policy is not None and policy.owner != ""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `rpc` runs for every RPC, one that takes another of these for those alone."""
    methods = [method for service in CONTRACTS.services for method in service.methods]
    for name, chosen in {
        "rpc": methods,
        "public_rpc": [method for method in methods if is_public(method)],
        "internal_rpc": [method for method in methods if not is_public(method)],
        "owned_rpc": [method for method in methods if has_owner(method)],
    }.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, chosen, ids=lambda method: method.full_name.removeprefix("stoa."))


@pytest.fixture
def contracts() -> Contracts:
    return CONTRACTS
