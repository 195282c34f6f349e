"""What every RPC must declare, so that nobody has to remember it."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from stoa_chassis.errors import InvalidArgument
from stoa_chassis.validation import RequestCheck
from stoa_contracts.descriptors import Contracts, Rpc
from stoa_services import SERVICES
from stoa_stack.instance import CHECKOUT

OPTIONAL, REQUIRED, OUTPUT_ONLY = (
    field_behavior_pb2.OPTIONAL,
    field_behavior_pb2.REQUIRED,
    field_behavior_pb2.OUTPUT_ONLY,
)
MESSAGE = FieldDescriptor.CPPTYPE_MESSAGE

NUMBERS = ("int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "float", "double")
NUMBER_RULES = {getattr(FieldDescriptorProto, f"TYPE_{name.upper()}"): name for name in NUMBERS}
CARD = re.compile(r"(^|_)(pan|cvv2?|cvc2?|csc|card_?(no|num|number|code)|security_code)(_|$)", re.IGNORECASE)

KEY = re.compile(r"request_id|idempotency")
# Which test proves of an RPC that a key which its client chose is refused when it comes with another request,
# and that the refusal names what differs.
PROVEN_BY = {
    "stoa.inventory.v1.InventoryService.AdjustInventory": (
        "services/inventory/tests/test_api.py::"
        "test_an_adjustment_answers_with_the_stock_after_it_and_counts_once"
    ),
    "stoa.order.v1.OrderService.CreateReturn": (
        "services/order/tests/test_api.py::"
        "test_a_request_id_that_comes_again_with_another_return_is_a_conflict_that_names_the_difference"
    ),
    "stoa.order.v1.OrderService.PlaceOrder": (
        "tests/e2e/test_purchase.py::test_the_same_request_for_something_else_is_refused_naming_it"
    ),
    "stoa.payment.v1.PaymentService.RefundPayment": (
        "services/payment/tests/test_api.py::"
        "test_a_request_id_that_comes_again_with_another_refund_is_a_conflict_that_names_the_difference"
    ),
}


def alternatives(rpc: Rpc) -> frozenset[str]:
    return rpc.policy.alternatives if rpc.policy else frozenset()


def test_every_rpc_says_who_may_call_it(rpc: Rpc) -> None:
    assert rpc.policy is not None, "an RPC without a policy keeps its server from starting"
    assert alternatives(rpc), "a policy without an alternative admits nobody"


def test_a_policy_names_only_services_that_exist(rpc: Rpc) -> None:
    assert rpc.policy is not None
    assert set(rpc.policy.services) <= SERVICES.keys()


def test_guests_are_only_those_whom_customer_or_owner_means(rpc: Rpc) -> None:
    assert rpc.policy is not None
    if rpc.policy.guests:
        assert {"customer", "owner"} & alternatives(rpc), "nobody is admitted whom `guests` could widen"


def test_a_policy_says_whose_work_among_staff_it_is(rpc: Rpc) -> None:
    assert rpc.policy is not None
    assert rpc.policy.roles or not rpc.policy.staff, "name the roles of the staff whose work this is"


def test_an_rpc_is_defined_by_the_servicer_of_its_service(rpc: Rpc) -> None:
    api = importlib.import_module(f"stoa_{rpc.service}.api")
    servicers = {
        servicer: mro[: mro.index(base)]
        for _, servicer in inspect.getmembers(api, inspect.isclass)
        for mro in [inspect.getmro(servicer)]
        for base in mro[1:]
        if is_generated_for(rpc, base)
    }
    assert servicers, f"{api.__name__} has no servicer for {rpc.full_name}"
    for servicer, own in servicers.items():
        assert any(rpc.name in vars(each) for each in own), f"{servicer.__name__} does not define {rpc.name}"


def is_generated_for(rpc: Rpc, base: type) -> bool:
    package, service, _ = rpc.full_name.rsplit(".", 2)
    return base.__name__ == f"{service}Servicer" and base.__module__.startswith(f"{package}.")


def test_an_owner_is_a_uuid_of_the_request(contracts: Contracts, owned_rpc: Rpc) -> None:
    assert owned_rpc.policy is not None
    request = contracts.types[owned_rpc.request.full_name].proto
    assert isinstance(request, DescriptorProto)
    (field,) = [field for field in request.field if field.name == owned_rpc.policy.owner]
    assert contracts.option(field, "buf.validate.field").string.uuid


def test_what_the_edge_does_not_route_is_for_services_only(internal_rpc: Rpc) -> None:
    assert alternatives(internal_rpc) == {"services"}


def test_a_public_rpc_admits_more_than_services(public_rpc: Rpc) -> None:
    assert alternatives(public_rpc) - {"services"}


def test_a_public_rpc_lives_below_the_api_and_uses_fields_it_has(public_rpc: Rpc) -> None:
    fields = set(public_rpc.request.fields_by_name)
    for route in public_rpc.routes:
        assert route.path.startswith("/api/v1/")
        assert route.bound <= fields
        assert route.body in ("", "*") or route.body in fields


def test_an_rpc_that_http_may_repeat_says_that_it_is_idempotent(public_rpc: Rpc) -> None:
    if {route.verb for route in public_rpc.routes} & {"GET", "PUT", "DELETE"}:
        assert public_rpc.idempotent


def test_a_read_says_that_it_may_be_repeated(rpc: Rpc) -> None:
    if rpc.name.startswith(("Get", "List", "BatchGet", "Check")):
        assert rpc.idempotent


def test_a_key_that_a_client_chose_is_proven_to_be_refused_for_another_request(contracts: Contracts) -> None:
    """Of RPCs that clients call. Cart gets order's key, whose reuse PlaceOrder refuses."""
    keyed = {
        rpc.full_name
        for rpc in contracts.rpcs
        for message in (messages(request_of(rpc)) if rpc.routes else ())
        if any(KEY.search(field.name) for field in message.DESCRIPTOR.fields)
    }
    assert keyed == PROVEN_BY.keys(), (
        "test that the same key with another request is refused by check_same_request, which names what"
        " differs, and name the test in PROVEN_BY"
    )
    for test in PROVEN_BY.values():
        asserted = [line for line in source_of(test).splitlines() if line.lstrip().startswith("assert ")]
        for what in ("REQUEST_ID_REUSED", ".violations"):
            assert any(what in line for line in asserted), f"{test} does not assert {what}"


def source_of(test: str) -> str:
    """The code of a test, by its path and name; "" if there is none."""
    path, _, name = test.partition("::")
    module = ast.parse((CHECKOUT / path).read_text())
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return next((ast.unparse(each) for each in functions if each.name == name), "")


def test_everything_a_request_can_carry_is_bounded(contracts: Contracts, rpc: Rpc) -> None:
    name = rpc.request.full_name
    assert list(unbounded(contracts, name, name.rpartition(".")[2], set())) == []


def test_a_required_field_that_is_absent_is_refused(rpc: Rpc) -> None:
    for message in messages(request_of(rpc)):
        required = {field.name for field in message.DESCRIPTOR.fields if REQUIRED in behaviors(field)}
        assert required <= refused_when_empty(message), message.DESCRIPTOR.full_name


def test_a_number_of_a_request_says_what_comes_of_its_absence(rpc: Rpc) -> None:
    """Without it an absent number is taken for zero, and nobody can tell that from what was sent."""
    for message in messages(request_of(rpc)):
        for field in message.DESCRIPTOR.fields:
            if field.is_repeated or field.cpp_type in (FieldDescriptor.CPPTYPE_STRING, MESSAGE):
                continue
            says = set(behaviors(field)) & {REQUIRED, OPTIONAL, OUTPUT_ONLY}
            assert says, f"{field.full_name} is neither REQUIRED nor OPTIONAL"
            if REQUIRED in says:
                assert field.has_presence, f"{field.full_name} is to be `optional`, so that it can be absent"


def request_of(rpc: Rpc) -> type[Message]:
    """The class of an RPC's requests, as its service uses it."""
    importlib.import_module(rpc.request.file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
    return GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(rpc.request.full_name))


def messages(type_: type[Message], seen: set[str] | None = None) -> Iterator[type[Message]]:
    """A type and those of ours that are part of it, as far as a client fills them."""
    seen = set() if seen is None else seen
    descriptor: Any = type_.DESCRIPTOR
    if descriptor.full_name in seen or not descriptor.full_name.startswith("stoa."):
        return
    seen.add(descriptor.full_name)
    if not descriptor.GetOptions().map_entry:
        yield type_
    for field in descriptor.fields:
        if field.message_type is not None and OUTPUT_ONLY not in behaviors(field):
            yield from messages(GetMessageClass(field.message_type), seen)


def behaviors(field: Any) -> list[int]:
    return list(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def refused_when_empty(type_: type[Message]) -> set[str]:
    """The fields that are named when a message without any is sent."""
    try:
        RequestCheck(type_)(type_())
    except InvalidArgument as refused:
        return {violation.field for violation in refused.violations}
    return set()


def test_no_field_could_hold_a_card_number(contracts: Contracts) -> None:
    names = [
        f"{name}.{field.name}"
        for name, type_ in contracts.types.items()
        if name.startswith("stoa.") and isinstance(type_.proto, DescriptorProto)
        for field in type_.proto.field
    ]
    events = [
        f"{path.name}: {name}"
        for path in (CHECKOUT / "gen/avro").glob("*.avsc")
        for name in re.findall(r'"name":\s*"(\w+)"', path.read_text())
    ]
    assert [name for name in names + events if CARD.search(re.split(r"[. ]", name)[-1])] == []


def unbounded(contracts: Contracts, message: str, path: str, seen: set[str]) -> Iterator[str]:
    """The fields of a request, nested ones included, that a client could fill without limit."""
    if message in seen or message.startswith(("google.protobuf.", "google.api.")):
        return
    proto = contracts.types[message].proto
    assert isinstance(proto, DescriptorProto)
    for field in proto.field:
        if OUTPUT_ONLY in contracts.option(field, "google.api.field_behavior"):
            continue  # refused when it is sent
        rules = contracts.option(field, "buf.validate.field")
        where = f"{path}.{field.name}"
        entry = contracts.types.get(field.type_name.removeprefix("."))
        if entry is not None and isinstance(entry.proto, DescriptorProto) and entry.proto.options.map_entry:
            if rules is None or not rules.map.HasField("max_pairs"):
                yield f"{where} has no max_pairs"
            else:
                for part in entry.proto.field:
                    yield from open_value(
                        contracts,
                        part,
                        getattr(rules.map, f"{part.name}s"),
                        f"{where}.{part.name}",
                        seen | {message},
                    )
        elif field.label == FieldDescriptorProto.LABEL_REPEATED:
            if rules is None or not rules.repeated.HasField("max_items"):
                yield f"{where} has no max_items"
            else:
                yield from open_value(contracts, field, rules.repeated.items, f"{where}[]", seen | {message})
        else:
            yield from open_value(contracts, field, rules, where, seen | {message})


def open_value(
    contracts: Contracts, field: FieldDescriptorProto, rules: Any, where: str, seen: set[str]
) -> Iterator[str]:
    if field.type == FieldDescriptorProto.TYPE_MESSAGE:
        name = field.type_name.removeprefix(".")
        if name == "google.type.Money":
            if rules is None or not rules.cel:
                yield f"{where} takes any amount"
        else:
            yield from unbounded(contracts, name, where, seen)
    elif field.type == FieldDescriptorProto.TYPE_ENUM:
        if rules is None or not (rules.enum.defined_only or getattr(rules.enum, "in")):
            yield f"{where} takes undefined values"
    elif field.type == FieldDescriptorProto.TYPE_STRING:
        if rules is None or not bounds_length(rules.string):
            yield f"{where} has no maximal length"
    elif field.type == FieldDescriptorProto.TYPE_BYTES:
        if rules is None or not (rules.bytes.HasField("max_len") or rules.bytes.HasField("len")):
            yield f"{where} has no maximal length"
    elif (kind := NUMBER_RULES.get(field.type)) is not None and (
        rules is None or not bounds_value(getattr(rules, kind))
    ):
        yield f"{where} has no lower and upper bound"


def bounds_length(rules: Any) -> bool:
    if any(rules.HasField(name) for name in ("max_len", "len", "max_bytes", "len_bytes", "const", "uuid")):
        return True
    return bool(getattr(rules, "in")) or (rules.HasField("pattern") and bounds_pattern(rules.pattern))


def bounds_pattern(pattern: str) -> bool:
    plain = re.sub(r"\\.|\[[^\]]*\]", "x", pattern)
    return plain.startswith("^") and plain.endswith("$") and not re.search(r"[*+]|,\}", plain)


def bounds_value(rules: Any) -> bool:
    return bool(getattr(rules, "in")) or (
        rules.WhichOneof("greater_than") is not None and rules.WhichOneof("less_than") is not None
    )
