"""Whatever a request gets wrong, its sender is told in words, of a field that the request has.

Each constraint of each request is broken in turn, and what is said is read as a person would. So is what
the code itself says.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from buf.validate import validate_pb2
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.type.money_pb2 import Money

from stoa.cart.v1 import cart_pb2
from stoa.catalog.v1 import catalog_pb2
from stoa.inventory.v1 import inventory_pb2
from stoa.order.v1 import order_pb2
from stoa.text.v1 import text_pb2
from stoa.user.v1 import user_pb2
from stoa_chassis.errors import InvalidArgument, subscript
from stoa_chassis.validation import RequestCheck
from stoa_chassis.wording import as_sent
from stoa_contracts.descriptors import Contracts, Rpc
from stoa_contracts.fields import is_map, option
from stoa_gateway.routes import EdgeRoute
from stoa_services import SERVICES
from tests.contract.source import refusals
from tests.contract.test_reasons import declared

ID = "01900000-0000-7000-8000-000000000000"
LONGEST = 200  # characters
# What no person says: parts of a regular expression, the name of a rule, a rule quoted, a plural of one.
UNSAID = re.compile(
    r"[\\^$*+{}|<>]|\w\.(?:\w+_\w+|pattern|required)\b|(?<!-)\bvalue\b|\boneof\b|in list|\[|\b1 \w+s\b"
    r"|\bTYPE_"
)
_STEP = re.compile(r'\.?(\w+)((?:\["[^"]*"\]|\[\d+\])?)')


class Case(NamedTuple):
    """One constraint, and how to break it."""

    path: str
    """The field in the message, that the answer must name."""
    rule: str
    spoil: Callable[[Any], None]
    """Given an empty request."""


def test_whatever_is_wrong_is_said_in_words_about_a_field_that_there_is(rpc: Rpc) -> None:
    request_type = class_of(rpc)
    check = RequestCheck(request_type)
    body = rpc.route.body if rpc.route else ""
    said: set[str] = set()
    for case in cases(descriptor(request_type), lambda request: request, "", frozenset()):
        request = request_type()
        case.spoil(request)
        with pytest.raises(InvalidArgument) as refused:
            check(request)
        error = refused.value
        error.rename_fields(lambda field: as_sent(field, body))
        told = {violation.field: violation.description for violation in error.violations}
        assert len(told) == len(error.violations), "a field is named twice"
        assert as_sent(case.path, body) in told, (case.path, case.rule, told)
        for field, words in told.items():
            assert exists(rpc, field), field
            assert len(words) <= LONGEST, words
            assert words[:1].islower(), words
            assert not UNSAID.search(words), words
        said |= set(told.values())
    assert expressions(descriptor(request_type), frozenset()) <= said


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (
            order_pb2.PlaceOrderRequest(),
            {
                "request_id": "is missing",
                "payment_token": "is missing",
                "shipping_address": "is missing: give shipping_address or address_id",
            },
        ),
        (
            order_pb2.PlaceOrderRequest(
                request_id="two words",
                address_id="home",
                shipping_method="pigeon",
                payment_token="4242424242424242",
            ),
            {
                "request_id": "must be 1 to 100 letters, digits or signs, without spaces and accents",
                "address_id": "must be a UUID",
                "shipping_method": "must be standard or express",
                "payment_token": "must be a token of the payment gateway, never a card's number",
            },
        ),
        (order_pb2.ListOrdersRequest(status="paid"),
         {"status": "must be pending, confirmed, shipped, delivered, returned or cancelled"}),
        (
            inventory_pb2.AdjustInventoryRequest(variant_id=ID, request_id="a"),
            {"delta": "is missing", "reason": "is missing"},
        ),
        (
            inventory_pb2.AdjustInventoryRequest(variant_id=ID, request_id="a", delta=0),
            {"delta": "must not be 0"},
        ),
        (
            user_pb2.CreateUserRequest(email="nowhere", password="short", first_name="x" * 101),
            {
                "password": "must be at least 8 characters",
                "first_name": "must be at most 100 characters",
            },
        ),
        (
            cart_pb2.AddCartItemRequest(
                user_id=ID,
                item=cart_pb2.NewCartItem(product_id=ID, variant_id="lamp", quantity=0, price=Money()),
            ),
            {
                "item.variant_id": "must be a UUID",
                "item.quantity": "must be between 1 and 999",
                "item.price": "is set by the shop and can't be sent",
            },
        ),
        (catalog_pb2.ListProductsRequest(min_price="cheap", page_size=101),
         {"min_price": "must be an amount such as 19.90", "page_size": "must be between 0 and 100"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else "",
)  # fmt: skip
def test_it_is_said_like_this(request_: Message, told: Mapping[str, str]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        RequestCheck(type(request_))(request_)
    said = {violation.field: violation.description for violation in refused.value.violations}
    assert {field: said.get(field) for field in told} == told


@pytest.mark.parametrize("package", ["stoa_chassis", *(service.package for service in SERVICES.values())])
def test_what_code_refuses_is_said_in_words_about_a_field_that_there_is(
    package: str, contracts: Contracts
) -> None:
    (folder,) = importlib.import_module(package).__path__
    errors = {each.__name__ for part in ("stoa_chassis", package) for each in declared(part)}
    rpcs = [rpc for rpc in contracts.rpcs if package in ("stoa_chassis", f"stoa_{rpc.service}")]
    for field, texts in refusals(Path(folder), errors | {"FieldViolation"}):
        known = [
            rpc for rpc in rpcs if exists(rpc, as_sent(field or "", rpc.route.body if rpc.route else ""))
        ]
        assert known or not field, f"no request has {field}"
        assert [text for text in texts if UNSAID.search(text)] == []


MODEL = """
class SkuTaken(AlreadyExists):
    def __init__(self, at):
        taken = FieldViolation(f"variants[{at}].sku", "is taken")
        super().__init__("a SKU is taken", violations=[taken])

def check(sku):
    if len(sku) > MOST:
        raise InvalidArgument("sku", f"must have at most {MOST} letters" if sku else "is missing")
    return str(sku)
"""


def test_what_code_refuses_is_found(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    assert sorted(refusals(tmp_path, {"SkuTaken", "InvalidArgument", "FieldViolation"}), key=str) == [
        ("sku", ["is missing", "must have at most ", " letters"]),
        (None, ["a SKU is taken"]),
        (None, ["is taken"]),
    ]


def cases(
    type_: Descriptor, reach: Callable[[Any], Any], prefix: str, seen: frozenset[str]
) -> Iterator[Case]:
    """Every way to break a constraint of a message and of what it holds; `reach` finds it in a request."""
    for oneof in type_.oneofs:
        if option(oneof, validate_pb2.oneof).required:
            yield Case(f"{prefix}{oneof.fields[0].name}", "required", reach)
    for field in type_.fields:
        if is_computed(field) and not option(field, validate_pb2.field).cel:
            continue  # it may be sent back, and is not looked at
        where = f"{prefix}{field.name}"
        for suffix, rule, spoil in spoilers(field):
            yield Case(where + suffix, rule, partial(spoil_inside, reach=reach, spoil=spoil))
        inner = field.message_type
        if inner is None or not inner.full_name.startswith("stoa.") or is_map(field):
            continue
        if inner.full_name not in seen:

            def inside(request: Any, field: FieldDescriptor = field) -> Any:
                held = getattr(reach(request), field.name)
                if field.is_repeated:
                    return held.add()
                held.SetInParent()
                return held

            at = "[0]." if field.is_repeated else "."
            yield from cases(inner, inside, where + at, seen | {inner.full_name})


def spoil_inside(request: Any, reach: Callable[[Any], Any], spoil: Callable[[Any], Any]) -> None:
    spoil(reach(request))


def spoilers(field: FieldDescriptor) -> Iterator[tuple[str, str, Callable[[Any], Any]]]:
    """How to break each constraint of a field, in the message that has it."""
    rules = option(field, validate_pb2.field)
    text = option(field, text_pb2.text)
    name = field.name
    if rules.required:
        yield "", "required", partial(clear, name=name)
    if rules.cel:
        for money in (Money(), Money(units=-1), Money(nanos=-1), Money(nanos=1), Money(units=10**9)):
            if breaks(rules, money):
                yield "", "cel", partial(copy, name=name, value=money)
    if is_map(field):
        for wrong in wrong_values(rules.map.keys, "string"):
            yield subscript(wrong), "keys", partial(update, name=name, values={wrong: "x"})
        for wrong in wrong_values(rules.map.values, "string"):
            yield '["x"]', "values", partial(update, name=name, values={"x": wrong})
        too_many = range(rules.map.max_pairs + 1)
        yield "", "max_pairs", partial(update, name=name, values={str(each): "x" for each in too_many})
    elif field.is_repeated:
        yield from of_a_list(field, rules.repeated)
    elif field.type == FieldDescriptor.TYPE_ENUM:
        yield "", "defined_only", partial(put, name=name, value=99)
    elif field.message_type is None and field.type != FieldDescriptor.TYPE_BOOL:
        for wrong in wrong_values(rules, kind_of(field), text):
            yield "", kind_of(field), partial(put, name=name, value=wrong)


def of_a_list(field: FieldDescriptor, rules: Any) -> Iterator[tuple[str, str, Callable[[Any], Any]]]:
    name = field.name
    too_many = range(rules.max_items + 1)
    if rules.min_items:
        yield "", "min_items", partial(clear, name=name)
    if field.message_type is not None:
        empty = GetMessageClass(field.message_type)()
        yield "", "max_items", partial(extend, name=name, values=[empty for _ in too_many])
        return
    yield "", "max_items", partial(extend, name=name, values=list(map(str, too_many)))
    if rules.unique:
        yield "", "unique", partial(extend, name=name, values=["x", "x"])
    for wrong in wrong_values(rules.items, "string", option(field, text_pb2.text)):
        yield "[0]", "items", partial(extend, name=name, values=[wrong])


def clear(message: Any, name: str) -> None:
    message.ClearField(name)


def put(message: Any, name: str, value: object) -> None:
    setattr(message, name, value)


def copy(message: Any, name: str, value: Message) -> None:
    getattr(message, name).CopyFrom(value)


def extend(message: Any, name: str, values: list[Any]) -> None:
    getattr(message, name).extend(values)


def update(message: Any, name: str, values: dict[str, str]) -> None:
    getattr(message, name).update(values)


def wrong_values(rules: Any, kind: str, text: Any = None) -> Iterator[Any]:
    """Values that break the rules for a single value."""
    of = getattr(rules, kind)
    if kind == "string":
        too_short, too_long = "x" * (of.min_len - 1), "x" * (of.max_len + 1)
        for wrong in ("", too_short, too_long, "lamp", "x\nx", "\x07", "é" * 300):
            if is_wrong_text(wrong, rules, text):
                yield wrong
        return
    if low := of.WhichOneof("greater_than"):
        yield getattr(of, low) - (low == "gte")
    if high := of.WhichOneof("less_than"):
        yield getattr(of, high) + (high == "lte")
    yield from of.not_in


def is_wrong_text(wrong: str, rules: Any, text: Any) -> bool:
    of = rules.string
    if not wrong and rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE:
        return False
    return (
        len(wrong) < of.min_len
        or (of.HasField("max_len") and len(wrong) > of.max_len)
        or (of.HasField("pattern") and re.search(of.pattern, wrong) is None)
        or of.uuid
        or of.email
        or bool(getattr(of, "in") and wrong not in getattr(of, "in"))
        or (wrong == "\x07" and not (text and text.verbatim))
    )


def breaks(rules: Any, money: Money) -> bool:
    """Whether an amount breaks one of the expressions that there are for amounts."""
    broken = {
        "must be more than zero": money.units < 0 or money.nanos < 0 or not (money.units or money.nanos),
        "must not have a fraction of a cent": money.nanos % 10_000_000 != 0,
        "must be less than 10,000,000": money.units >= 10_000_000,
        "is set by the shop and can't be sent": True,
    }
    return any(broken[rule.message] for rule in rules.cel)


def expressions(type_: Descriptor, seen: frozenset[str]) -> set[str]:
    """What the expressions say that are declared for a message and what it holds."""
    said = {rule.message for field in type_.fields for rule in option(field, validate_pb2.field).cel}
    for field in type_.fields:
        inner = field.message_type
        if inner is not None and inner.full_name.startswith("stoa.") and inner.full_name not in seen:
            said |= expressions(inner, seen | {type_.full_name})
    return said


def exists(rpc: Rpc, path: str) -> bool:
    """Whether whoever sends the request through REST, or an internal one as a message, has such a field."""
    if rpc.route is None:
        fields = list(rpc.request.fields)
    else:
        route = EdgeRoute(rpc, rpc.route)
        bound = [field for field in rpc.request.fields if field.name in rpc.route.bound]
        fields = [*bound, *route.query_fields(), *(route.body_fields() if rpc.route.body else ())]
        if path == "body":
            return rpc.route.body not in ("", "*")
    steps = _STEP.findall(path)
    if "".join(match[0] for match in _STEP.finditer(path)) != path:
        return False
    for name, _ in steps:
        field = next((each for each in fields if each.name == name), None)
        if field is None:
            return False
        fields = list(field.message_type.fields) if field.message_type is not None else []
    return True


def class_of(rpc: Rpc) -> type[Message]:
    """The generated class of a request."""
    module = importlib.import_module(f"stoa.{rpc.service}.v1.{rpc.service}_pb2")
    return GetMessageClass(module.DESCRIPTOR.pool.FindMessageTypeByName(rpc.request.full_name))


def descriptor(type_: type[Message]) -> Descriptor:
    return cast(Descriptor, type_.DESCRIPTOR)


def kind_of(field: FieldDescriptor) -> str:
    """The rules that there may be for a scalar: `int32`."""
    names = [name for name in dir(FieldDescriptor) if name.startswith("TYPE_")]
    (name,) = (name for name in names if getattr(FieldDescriptor, name) == field.type)
    return name.removeprefix("TYPE_").lower()


def is_computed(field: FieldDescriptor) -> bool:
    return field_behavior_pb2.OUTPUT_ONLY in option(field, field_behavior_pb2.field_behavior)
