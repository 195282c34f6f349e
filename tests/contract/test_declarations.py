"""What is granted and declared is what the services' code does, both ways."""

import importlib
import inspect
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from stoa_contracts.declarations import Service
from stoa_contracts.descriptors import Contracts
from stoa_events import PAYLOADS
from stoa_services import SERVICES
from stoa_stack.instance import CHECKOUT
from tests.contract.source import Methods, NotUnderstood, called, constructed

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


def package(service: Service) -> Path:
    return CHECKOUT / "services" / service.name / service.package


def stubs(contracts: Contracts) -> Methods:
    return {
        f"{service.name}Stub": {rpc.name: rpc.full_name for rpc in service.rpcs}
        for service in contracts.services
    }


def granted(contracts: Contracts, caller: str) -> set[str]:
    return {rpc.full_name for rpc in contracts.rpcs if rpc.policy and caller in rpc.policy.services}


def handled(service: Service) -> set[str]:
    if not (package(service) / "events.py").exists():
        return set()
    handlers = importlib.import_module(f"{service.package}.events").handlers
    use_cases = [MagicMock() for _ in inspect.signature(handlers).parameters]
    return {payload.TOPIC for payload in handlers(*use_cases)}


@every_service
def test_a_service_is_granted_what_it_calls_and_nothing_else(contracts: Contracts, service: Service) -> None:
    assert granted(contracts, service.name) == called(package(service), stubs(contracts))


@every_service
def test_a_service_declares_the_events_that_it_publishes(service: Service) -> None:
    topics = {payload.__name__: topic for topic, payload in PAYLOADS.items()}
    assert {topics[name] for name in constructed(package(service), topics)} == set(service.publishes)


@every_service
def test_a_service_declares_the_events_that_it_handles(service: Service) -> None:
    assert handled(service) == set(service.consumes)


PEERS = """
from stoa.cart.v1 import cart_pb2, cart_pb2_grpc
from stoa.user.v1.user_pb2_grpc import UserServiceStub
from stoa_events import OrderPlaced, OrderShipped

class Carts:
    def __init__(self, stub: cart_pb2_grpc.CartServiceStub) -> None:
        self._stub = stub

    async def empty(self, event: OrderShipped) -> None:
        await self._stub.ClearCart(cart_pb2.ClearCartRequest(user_id=event.user_id))

async def tell(channel) -> OrderPlaced:
    users = channel.stub(UserServiceStub)
    return OrderPlaced(user_id=(await users.GetUser(None)).user.user_id)
"""


def test_calls_and_events_that_a_service_adds_are_found(contracts: Contracts, tmp_path: Path) -> None:
    (tmp_path / "peers.py").write_text(PEERS)
    assert called(tmp_path, stubs(contracts)) == {
        "stoa.cart.v1.CartService.ClearCart",
        "stoa.user.v1.UserService.GetUser",
    }
    assert constructed(tmp_path, {"OrderPlaced", "OrderShipped"}) == {"OrderPlaced"}


@pytest.mark.parametrize("stub", ["anything", "self._stub"])
def test_a_call_that_no_known_stub_has_is_not_passed_over(
    contracts: Contracts, tmp_path: Path, stub: str
) -> None:
    (tmp_path / "peers.py").write_text(PEERS.replace("self._stub.ClearCart", f"{stub}.GetUser"))
    with pytest.raises(NotUnderstood, match="GetUser"):
        called(tmp_path, stubs(contracts))
