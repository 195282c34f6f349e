"""What is generated is what the contracts say now, and others can use it."""

import re
from typing import Any

import pytest
import yaml
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from openapi_spec_validator import validate
from protovalidate._gen.buf.validate import validate_pb

from stoa_contracts.descriptors import OPENAPI, Contracts, Rpc, Type
from stoa_stack.instance import CHECKOUT
from stoa_tools.gen import run
from stoa_tools.gen.json_schema import OUTPUT_ONLY
from stoa_tools.gen.tools import buf

VERBS = ("get", "put", "post", "delete", "patch")


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(OPENAPI.read_text())
    return document


def operations(openapi: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: operation
        for path in openapi["paths"].values()
        for verb, operation in path.items()
        if verb in VERBS
    }


def fields_of(message: Type) -> dict[str, int]:
    assert isinstance(message.proto, DescriptorProto)
    return {field.name: field.number for field in message.proto.field}


def operation_id(rpc: Rpc) -> str:
    return rpc.name[0].lower() + rpc.name[1:]


def test_what_is_committed_is_what_the_contracts_generate() -> None:
    assert run(check=True) == []


def test_the_protos_follow_the_style_guide() -> None:
    buf("lint")


def test_no_path_of_a_machine_is_in_the_generated_code() -> None:
    texts = {
        path: path.read_bytes() for path in (CHECKOUT / "gen").rglob("*") if path.suffix in (".py", ".yaml")
    }
    assert [path for path, text in texts.items() if re.search(rb"(/home/|/root/|/tmp/|/Users/)", text)] == []


def test_the_rules_in_third_party_are_those_that_protovalidate_enforces(contracts: Contracts) -> None:
    enforced = FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary())
    ours = contracts.types
    theirs = {f"buf.validate.{message.name}": message for message in enforced.message_type}
    for name, message in theirs.items():
        assert fields_of(ours[name]) == {field.name: field.number for field in message.field}


def test_the_openapi_document_is_valid(openapi: dict[str, Any]) -> None:
    validate(openapi)


def test_every_public_rpc_is_an_operation(openapi: dict[str, Any], public_rpc: Rpc) -> None:
    assert operation_id(public_rpc) in operations(openapi)


def test_no_internal_rpc_is_an_operation(openapi: dict[str, Any], internal_rpc: Rpc) -> None:
    assert operation_id(internal_rpc) not in operations(openapi)


def test_an_operation_asks_for_a_token_unless_anyone_may_call_it(
    openapi: dict[str, Any], public_rpc: Rpc
) -> None:
    assert public_rpc.policy is not None
    anyone = public_rpc.policy.anyone
    assert operations(openapi)[operation_id(public_rpc)]["security"] == ([] if anyone else [{"bearer": []}])


def test_every_operation_documents_its_errors(openapi: dict[str, Any]) -> None:
    error = openapi["components"]["responses"]["Error"]["content"]["application/json"]["schema"]
    assert error == {"$ref": "#/components/schemas/Status"}
    for operation in operations(openapi).values():
        assert operation["responses"]["default"] == {"$ref": "#/components/responses/Error"}


def test_what_the_shop_computes_is_read_only(openapi: dict[str, Any], contracts: Contracts) -> None:
    schemas = openapi["components"]["schemas"]
    for name in ("User", "Product"):
        (type_,) = [t for t in contracts.types.values() if t.short_name == name]
        assert isinstance(type_.proto, DescriptorProto)
        for field in type_.proto.field:
            computed = OUTPUT_ONLY in contracts.option(field, "google.api.field_behavior")
            assert schemas[name]["properties"][field.name].get("readOnly", False) is computed


def test_a_resource_stands_in_an_answer_without_a_wrapper(openapi: dict[str, Any]) -> None:
    answer = operations(openapi)["getProduct"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/Product"}
