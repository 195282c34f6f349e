"""The contracts as programs read them."""

import subprocess
import sys
from pathlib import Path

import grpc_tools  # type: ignore[import-untyped]  # no types
import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet
from grpc_tools import protoc

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

ROOT = Path(__file__).parents[3]
SHELVES = """
syntax = "proto3";
package stoa.shelf.v1;
import "google/api/annotations.proto";
import "google/api/field_behavior.proto";
import "stoa/auth/v1/policy.proto";

service ForgottenService {
  rpc Forget(GetShelfRequest) returns (Shelf);
}

// Keeps shelves
//   in their order.
service ShelfService {
  // Finds one.
  rpc GetShelf(GetShelfRequest) returns (Shelf) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {
      get: "/v1/shelves/{shelf_id}"
      response_body: "boards"
      additional_bindings {patch: "/v1/owners/{owner_id}/shelf" body: "view"}
    };
    option (stoa.auth.v1.policy) = {owner: "owner_id" services: "order" services: "cart"};
  }
  // Throws one away.
  rpc DeleteShelf(GetShelfRequest) returns (Shelf) {
    option (google.api.http) = {delete: "/v1/shelves/{shelf_id}"};
    option (stoa.auth.v1.policy) = {customer: {} guests: true};
  }
  // Builds one.
  rpc BuildShelf(GetShelfRequest) returns (Shelf) {
    option (stoa.auth.v1.policy) = {services: "order" services: "shelf"};
  }
}

message GetShelfRequest {
  string shelf_id = 1 [(google.api.field_behavior) = REQUIRED];
  string owner_id = 2;
  // How much of it is wanted.
  View view = 3;
}

// What things stand on.
message Shelf {
  message Bracket {}
  // A part of it.
  message Board {
    enum Colour {
      COLOUR_UNSPECIFIED = 0;
    }
    // What it is made of.
    enum Material {
      MATERIAL_UNSPECIFIED = 0;
      // From a tree.
      MATERIAL_OAK = 1;
    }
    string name = 1;
    // In cm.
    int32 width = 2;
  }
  repeated Board boards = 1;
}

enum Mood {
  MOOD_UNSPECIFIED = 0;
}

// How much is shown.
enum View {
  VIEW_UNSPECIFIED = 0;
  // All.
  VIEW_FULL = 1;
}
"""


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Contracts:
    """Contracts with comments, as a plugin of buf gets them."""
    folder = tmp_path_factory.mktemp("shelves")
    (folder / "shelf.proto").write_text(SHELVES)
    google = Path(grpc_tools.__file__).parent / "_proto"
    status = protoc.main(
        [
            "protoc",
            *(f"-I{path}" for path in (folder, ROOT / "proto", ROOT / "third_party", google)),
            f"--descriptor_set_out={folder / 'shelf.binpb'}",
            *("--include_imports", "--include_source_info", "shelf.proto"),
        ]
    )
    assert status == 0, "the example contract does not compile"
    return read(folder / "shelf.binpb")


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


def test_a_service_is_called_by_whom_a_policy_lists_and_by_the_edge_where_users_are_admitted(
    shelves: Contracts,
) -> None:
    get, delete, build = (f"/stoa.shelf.v1.ShelfService/{name}Shelf" for name in ("Get", "Delete", "Build"))
    callers = shelves.callers("shelf")
    assert list(callers.items()) == [
        ("cart", [get]),
        ("edge", [delete, get]),
        ("order", [build, get]),
        ("shelf", [build]),
    ]
    assert shelves.callers("order") == {}
    assert shelves.calls() == {"order": {"shelf"}, "cart": {"shelf"}}


def test_an_rpc_admits_nobody_unless_it_says_whom(shelves: Contracts) -> None:
    assert rpc(shelves, "ForgottenService.Forget").policy is None
    owner = rpc(shelves, "GetShelf").policy
    assert owner == Policy(owner="owner_id", services=("order", "cart"))
    assert owner.alternatives == {"owner", "services"}
    assert rpc(shelves, "DeleteShelf").policy == Policy(customer=True, guests=True)
    assert not Policy().alternatives
    assert (Policy().admits_users, Policy(services=("order",)).admits_users) == (False, False)
    assert Policy(anyone=True).admits_users
    assert Policy(staff=True, services=("order",)).admits_users


def test_an_rpc_is_routed_by_the_first_of_its_bindings_and_says_what_is_sent_again(
    shelves: Contracts,
) -> None:
    get, delete, build = (rpc(shelves, f"{name}Shelf") for name in ("Get", "Delete", "Build"))
    assert (get.name, get.doc, get.response.name) == ("GetShelf", "Finds one.", "Shelf")
    assert get.routes == (
        Route("GET", "/v1/shelves/{shelf_id}", "", "boards"),
        Route("PATCH", "/v1/owners/{owner_id}/shelf", "view", ""),
    )
    assert get.route == get.routes[0]
    assert (delete.route, build.route) == (Route("DELETE", "/v1/shelves/{shelf_id}", "", ""), None)
    assert [each.idempotent for each in (get, delete, build)] == [True, False, False]


def test_what_comments_say_is_known_of_all_that_they_stand_at(shelves: Contracts) -> None:
    forgotten, service = shelves.services
    assert (service.name, service.full_name) == ("ShelfService", "stoa.shelf.v1.ShelfService")
    assert (forgotten.doc, service.doc) == ("", "Keeps shelves\nin their order.")
    assert [each.doc for each in service.rpcs] == ["Finds one.", "Throws one away.", "Builds one."]
    ours = [each for each in shelves.types.values() if each.package == "stoa.shelf.v1"]
    assert {each.short_name: (each.doc, each.docs) for each in ours} == {
        "GetShelfRequest": ("", {"shelf_id": "", "owner_id": "", "view": "How much of it is wanted."}),
        "Shelf": ("What things stand on.", {"boards": ""}),
        "ShelfBracket": ("", {}),
        "ShelfBoard": ("A part of it.", {"name": "", "width": "In cm."}),
        "ShelfBoardColour": ("", {"COLOUR_UNSPECIFIED": ""}),
        "ShelfBoardMaterial": (
            "What it is made of.",
            {"MATERIAL_UNSPECIFIED": "", "MATERIAL_OAK": "From a tree."},
        ),
        "Mood": ("", {"MOOD_UNSPECIFIED": ""}),
        "View": ("How much is shown.", {"VIEW_UNSPECIFIED": "", "VIEW_FULL": "All."}),
    }
    assert shelves.types["stoa.shelf.v1.Shelf.Board"].proto.name == "Board"


def test_an_option_is_read_as_it_is_declared_and_none_where_it_is_not_given(shelves: Contracts) -> None:
    request = shelves.types["stoa.shelf.v1.GetShelfRequest"].proto
    assert isinstance(request, DescriptorProto)
    required, free, _ = request.field
    assert list(shelves.option(required, "google.api.field_behavior")) == [2]
    assert list(shelves.option(free, "google.api.field_behavior")) == []
    get, build = (rpc(shelves, f"{name}Shelf").proto for name in ("Get", "Build"))
    assert shelves.option(get, "google.api.http").response_body == "boards"
    assert shelves.option(build, "google.api.http") is None
    assert shelves.option(get, "stoa.of.no.file") is None


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
