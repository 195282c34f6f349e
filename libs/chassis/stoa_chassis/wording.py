"""What is wrong with a field, in words for the person who filled it in.

protovalidate knows which rule a value breaks, but its own words are the rule's: a regular expression, "must
be in list [, standard]", two sentences for one empty text. Here each rule has words, and each field one
sentence, the most telling. What a pattern admits is said where it is declared, by the option
`stoa.text.v1.text.form`.

A constraint for which there are no words keeps its server from starting, like a method without a policy.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import protovalidate
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from stoa.text.v1 import text_pb2
from stoa_chassis.auth import ContractError
from stoa_chassis.errors import FieldViolation, subscript
from stoa_contracts.fields import is_map, option, value_of

_Words = Callable[[Any], str]
"""Says what a value must be, given the rules for its type (as `StringRules`)."""

_MISSING, _LENGTH, _FORM = range(3)
"""How telling a complaint is, the most telling first: who left a text out need not hear how it must look."""


class Wording:
    """The words for all constraints of one request type."""

    def __init__(self, type_: Descriptor) -> None:
        """Make sure that each constraint has words. Raises ContractError."""
        self._type = type_
        _check_type(type_, set())

    def violations(self, broken: Iterable[protovalidate.Violation]) -> list[FieldViolation]:
        """Return what to say of broken constraints, one sentence for each field."""
        told: dict[str, tuple[int, str]] = {}
        for violation in broken:
            proto = violation.proto  # made anew each time that it is asked for
            place = self._place(proto.field)
            complaint = _complaint(violation, proto, place)
            if place.path not in told or complaint[0] < told[place.path][0]:
                told[place.path] = complaint
        return [FieldViolation(path, words) for path, (_, words) in told.items()]

    def too_long(self, request: Message) -> list[FieldViolation]:
        """Return what to say of lists and maps that are longer than they may be."""
        return list(_too_long(request, ""))

    def _place(self, path: protovalidate.FieldPathPb | None) -> "_Place":
        type_: Descriptor | None = self._type
        parts: list[str] = []
        field: FieldDescriptor | None = None
        key = None
        choices: tuple[str, ...] = ()
        for element in path.elements if path else ():
            assert type_ is not None
            if element.field_name in type_.oneofs_by_name:
                choices = tuple(each.name for each in type_.oneofs_by_name[element.field_name].fields)
                parts.append(choices[0])
                break
            field = type_.fields_by_name[element.field_name]
            key = element.subscript.value if element.subscript else None
            parts.append(field.name if key is None else f"{field.name}{subscript(key)}")
            type_ = value_of(field).message_type
        return _Place(".".join(parts), field, key is not None, choices)


def as_sent(field: str, body: str) -> str:
    """Name a field of a request, given by its path, as whoever sent it through REST knows it.

    `body` says which field the HTTP body is (`google.api.http`): what is in that goes without its name.
    """
    if body in ("", "*"):
        return field
    return "body" if field == body else field.removeprefix(f"{body}.")


class _Place(NamedTuple):
    """Where in a request a constraint is broken; the path "" is the request as a whole."""

    path: str
    field: FieldDescriptor | None
    is_element: bool
    """Whether it is an element of a list or of a map."""
    choices: tuple[str, ...]
    """The fields of which one must be given."""


def _complaint(
    violation: protovalidate.Violation, proto: protovalidate.ViolationPb, place: _Place
) -> tuple[int, str]:
    rules = proto.rule.elements if proto.rule else []
    if place.choices:
        return _MISSING, f"is missing: give {_either(place.choices)}"
    if place.field is None or (rules and rules[-1].field_name == "cel"):
        return _FORM, proto.message
    kind, _, rule = proto.rule_id.rpartition(".")
    if not kind:  # "required"
        return _MISSING, _REQUIRED[rule]
    if kind == "string" and violation.field_value == "" and rule not in ("in", "not_in", "const"):
        can_be_left_out = place.is_element or place.field.has_presence
        return _MISSING, _named("must not be empty" if can_be_left_out else "is missing", proto.for_key)
    typed = getattr(_rules(place.field, place.is_element, proto.for_key), kind)
    words = _form(place.field) if rule == "pattern" else _WORDS[kind][_declared_name(kind, rule)](typed)
    if kind == "enum":
        words = words or f"must be {_either(_values(value_of(place.field)))}"
    return _LENGTH if "len" in rule else _FORM, _named(words, proto.for_key)


def _named(words: str, of_key: bool) -> str:
    """Say it of the name under which a value of a map goes, if it is that which is wrong."""
    return f"its name {words}" if of_key else words


def _too_long(message: Message, path: str) -> Iterator[FieldViolation]:
    for field, given in message.ListFields():
        if not field.is_repeated:
            if field.message_type is not None:
                yield from _too_long(given, f"{path}{field.name}.")
            continue
        kind, rule = ("map", "max_pairs") if is_map(field) else ("repeated", "max_items")
        rules = getattr(option(field, validate_pb2.field), kind)
        if rules.HasField(rule) and len(given) > getattr(rules, rule):
            yield FieldViolation(f"{path}{field.name}", _WORDS[kind][rule](rules))
        elif value_of(field).message_type is not None:
            for key, element in given.items() if kind == "map" else enumerate(given):
                yield from _too_long(element, f"{path}{field.name}{subscript(key)}.")


def _check_type(type_: Descriptor, seen: set[str]) -> None:
    seen.add(type_.full_name)
    for field in type_.fields:
        declared = option(field, validate_pb2.field)
        _check_rules(field, declared)
        inner = value_of(field).message_type
        if inner is not None and inner.full_name not in seen:
            _check_type(inner, seen)


def _check_rules(field: FieldDescriptor, rules: Any) -> None:
    if any(not rule.message for rule in rules.cel):
        raise ContractError(f"{field.full_name} has an expression without a message")
    kind = rules.WhichOneof("type")
    if kind is None:
        return
    for rule, inner in getattr(rules, kind).ListFields():
        if rule.name in ("items", "keys", "values"):
            _check_rules(field, inner)
        elif kind == "string" and rule.name == "pattern":
            if not option(field, text_pb2.text).form:
                raise ContractError(
                    f"{field.full_name} has a pattern, but no words for it: say (stoa.text.v1.text).form"
                )
        elif rule.name not in _WORDS.get(kind, {}):
            raise ContractError(f"{field.full_name}: {__name__} has no words for {kind}.{rule.name}")


def _rules(field: FieldDescriptor, is_element: bool, for_key: bool) -> Any:
    """Return the rules that hold for a field, an element of it or the key of one."""
    rules = option(field, validate_pb2.field)
    if not is_element:
        return rules
    if is_map(field):
        return rules.map.keys if for_key else rules.map.values
    return rules.repeated.items


def _declared_name(kind: str, rule: str) -> str:
    """Return under which name a rule is declared: one id may stand for two bounds, or for a special case."""
    if kind in _NUMBERS:
        return rule.split("_")[0] if rule.startswith(("gt", "lt")) else rule
    return rule.removesuffix("_empty")


def _form(field: FieldDescriptor) -> str:
    return f"must be {option(field, text_pb2.text).form}"


def _values(field: FieldDescriptor) -> list[str]:
    """Return the names of an enum's values, without the one that stands for none."""
    assert field.enum_type is not None
    return [value.name for value in field.enum_type.values if value.number != 0]


def _bounds(rules: Any) -> str:
    """Say between which numbers a value must be."""
    low, high = rules.WhichOneof("greater_than"), rules.WhichOneof("less_than")
    if (low, high) == ("gte", "lte"):
        return f"must be between {rules.gte:,} and {rules.lte:,}"
    lower = {"gt": "more than", "gte": "at least"}
    upper = {"lt": "less than", "lte": "at most"}
    parts = [f"{lower[low]} {getattr(rules, low):,}"] if low else []
    parts += [f"{upper[high]} {getattr(rules, high):,}"] if high else []
    return f"must be {' and '.join(parts)}"


def _one_of(rules: Any) -> str:
    return f"must be {_either(getattr(rules, 'in'))}"


def _none_of(rules: Any) -> str:
    return f"must not be {_either(rules.not_in)}"


def _either(choices: Iterable[object]) -> str:
    """Join choices as one says them; the empty text, which stands for leaving the field out, is not said."""
    *others, last = [f"{each:,}" if isinstance(each, int) else str(each) for each in choices if each != ""]
    return f"{', '.join(others)} or {last}" if others else last


def _many(count: int, of: str, several: str = "") -> str:
    return f"{count:,} {of if count == 1 else several or of + 's'}"


def _length(limit: str, rule: str, unit: str) -> _Words:
    return lambda rules: f"must be {limit}{_many(getattr(rules, rule), unit)}"


def _entries(limit: str, rule: str) -> _Words:
    def say(rules: Any) -> str:
        count = getattr(rules, rule)
        if (limit, count) == ("at least", 1):
            return "must not be empty"
        return f"must have {limit} {_many(count, 'entry', 'entries')}"

    return say


def _always(words: str) -> _Words:
    return lambda _: words


_REQUIRED = {"required": "is missing"}
_NUMBERS = frozenset(
    f"{sign}{size}" for sign in ("int", "uint", "sint", "fixed", "sfixed") for size in (32, 64)
) | {"float", "double"}
_NUMBER: Mapping[str, _Words] = dict.fromkeys(("gt", "gte", "lt", "lte"), _bounds) | {
    "in": _one_of,
    "not_in": _none_of,
}
_WORDS: Mapping[str, Mapping[str, _Words]] = dict.fromkeys(_NUMBERS, _NUMBER) | {
    "string": {
        "len": _length("", "len", "character"),
        "min_len": _length("at least ", "min_len", "character"),
        "max_len": _length("at most ", "max_len", "character"),
        "in": _one_of,
        "not_in": _none_of,
        "uuid": _always("must be a UUID"),
        "email": _always("must be an email address, such as ada@example.com"),
    },
    "bytes": {
        "len": _length("", "len", "byte"),
        "min_len": _length("at least ", "min_len", "byte"),
        "max_len": _length("at most ", "max_len", "byte"),
    },
    "enum": dict.fromkeys(("defined_only", "in", "not_in"), _always("")),
    "repeated": {
        "min_items": _entries("at least", "min_items"),
        "max_items": _entries("at most", "max_items"),
        "unique": _always("must not have the same entry twice"),
    },
    "map": {
        "min_pairs": _entries("at least", "min_pairs"),
        "max_pairs": _entries("at most", "max_pairs"),
    },
}
