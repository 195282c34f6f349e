"""The contracts as programs read them."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from stoa.auth.v1 import policy_pb2
from stoa_contracts.descriptors import (
    DESCRIPTORS,
    OPENAPI,
    Contracts,
    InvalidContract,
    Policy,
    Route,
    Rpc,
    read,
)


@pytest.fixture
def files() -> FileDescriptorSet:
    return FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())


def rpc(contracts: Contracts, name: str) -> Rpc:
    (found,) = [each for each in contracts.rpcs if each.full_name.endswith(f".{name}")]
    return found


def test_an_rpc_says_who_may_call_it_and_where_it_is_found() -> None:
    get = rpc(read(), "OrderService.GetOrder")
    assert get.call_path == "stoa.order.v1.OrderService/GetOrder"
    assert (get.service, get.idempotent) == ("order", True)
    assert get.route == Route("GET", "/api/v1/orders/{order_id}", "", "order")
    assert get.policy is not None
    assert get.policy.alternatives == {"customer", "staff"}
    assert set(get.request.fields_by_name) == {"order_id"}


def test_an_internal_rpc_has_no_route() -> None:
    get = rpc(read(), "PaymentService.ProcessPayment")
    assert (get.route, get.routes) == (None, ())
    assert get.policy == Policy(services=("order",))


def test_who_calls_whom_follows_from_the_policies() -> None:
    contracts = read()
    assert contracts.calls()["cart"] == {"catalog", "inventory"}
    assert "payment" not in contracts.calls()


def test_a_path_is_known_by_its_variables() -> None:
    route = Route("GET", "/v1/{order.name=orders/*}/lines/{line_id}", "", "")
    assert route.plain_path == "/v1/{order.name}/lines/{line_id}"
    assert route.variables == ("order.name", "line_id")
    assert route.bound == {"order", "line_id"}


def test_a_binding_that_no_http_client_could_use_is_refused(files: FileDescriptorSet) -> None:
    (file,) = [file for file in files.file if file.name == "stoa/order/v1/order.proto"]
    method = file.service[0].method[0]
    method.options.Extensions[annotations_pb2.http].custom.kind = "BREW"
    with pytest.raises(InvalidContract, match=method.name):
        Contracts(files.file)


def test_a_policy_says_which_staff_and_whether_guests_are_meant() -> None:
    get = rpc(read(), "OrderService.GetOrder").policy
    assert get is not None
    assert get.roles == {"support"}
    assert get.guests
    assert [get.admits_staff(role) for role in ("support", "admin", "warehouse")] == [True, True, False]
    assert Policy(staff=True).admits_staff()
    assert not Policy(customer=True).admits_staff("admin")


def test_a_role_that_there_is_not_is_refused(files: FileDescriptorSet) -> None:
    (file,) = [file for file in files.file if file.name == "stoa/order/v1/order.proto"]
    (method,) = [method for method in file.service[0].method if method.name == "ListOrders"]
    method.options.Extensions[policy_pb2.policy].staff.roles.append("janitor")
    with pytest.raises(InvalidContract, match="ListOrders admits staff with the role 'janitor'; there are"):
        Contracts(files.file)


def test_the_contracts_are_read_without_the_code_generated_from_them() -> None:
    """A generator must not need what it is about to replace."""
    code = "import sys; from stoa_contracts.descriptors import read; read(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    generated = [name for name in loaded.split() if name.endswith("_pb2")]
    assert [name for name in generated if not name.startswith("google.protobuf.")] == []


def test_descriptors_and_openapi_come_with_the_package() -> None:
    package = Path(sys.modules[Contracts.__module__].__file__ or "").parent
    assert {DESCRIPTORS.parent, OPENAPI.parent} == {package}
    assert "openapi" in OPENAPI.read_text()[:200]
