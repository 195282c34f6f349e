"""Every request is checked against what its proto declares, before a servicer sees it.

Two sources: the constraints of `buf.validate`, and `google.api.field_behavior` = OUTPUT_ONLY, which marks
what the server computes (a price, an id, a time). Sending such a field is refused rather than ignored, since
a client that sends a price believes that it counts.
"""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import protovalidate
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from stoa_chassis.auth import ContractError
from stoa_chassis.errors import FieldViolation, InvalidArgument
from stoa_chassis.telemetry import get_logger

_log = get_logger(__name__)
_validator = protovalidate.Validator()
_COMPUTED = "is computed by the shop and can't be sent"


class RequestCheck:
    """The checks of one request type, compiled once."""

    def __init__(self, request_type: type[Message]) -> None:
        """Compile. Raises ContractError if a constraint in the proto does not work."""
        try:
            _validator.collect_violations(request_type())
        except (protovalidate.CompilationError, protovalidate.EvaluationError) as error:
            raise ContractError(f"{request_type.DESCRIPTOR.full_name}: {error}") from error
        self._computed = _ComputedFields.of(cast(Descriptor, request_type.DESCRIPTOR), {})

    def __call__(self, request: Message) -> None:
        """Raise InvalidArgument naming each field that is wrong."""
        try:
            broken = _validator.collect_violations(request)
        except protovalidate.EvaluationError as error:
            # A rule of ours that this request breaks: for us to mend, but what it says can't be trusted.
            _log.error("constraint failed to evaluate", request=request.DESCRIPTOR.full_name, exc_info=error)
            raise InvalidArgument("", "the request can't be checked") from error
        computed = self._computed.found_in(request) if self._computed else ()
        violations = [_violation(violation) for violation in broken]
        violations += [FieldViolation(path, _COMPUTED) for path in computed]
        if violations:
            raise InvalidArgument.of(violations)


class _ComputedFields:
    """Where OUTPUT_ONLY fields are in a message type; subtrees without any are left out."""

    def __init__(self) -> None:
        self._here: set[str] = set()
        self._below: dict[str, _ComputedFields] = {}

    @classmethod
    def of(cls, message: Descriptor, known: dict[str, "_ComputedFields"]) -> "_ComputedFields | None":
        """Return where they are in a type, None if nowhere; `known` ends the walk through recursive types."""
        if not _has_computed(message, set()):
            return None
        if message.full_name in known:
            return known[message.full_name]
        found = known[message.full_name] = cls()
        for field in message.fields:
            child = _message_of(field)
            if _is_computed(field):
                found._here.add(field.name)
            elif child and (below := cls.of(child, known)):
                found._below[field.name] = below
        return found

    def found_in(self, message: Message, prefix: str = "") -> Iterator[str]:
        """Yield the paths of those that are set."""
        for field, value in message.ListFields():
            path = prefix + field.name
            if field.name in self._here:
                yield path
            elif below := self._below.get(field.name):
                for suffix, child in _children(field, value):
                    yield from below.found_in(child, f"{path}{suffix}.")


def _has_computed(message: Descriptor, seen: set[str]) -> bool:
    if message.full_name in seen:
        return False
    seen.add(message.full_name)
    children = (_message_of(field) for field in message.fields)
    return any(map(_is_computed, message.fields)) or any(_has_computed(c, seen) for c in children if c)


def _is_computed(field: FieldDescriptor) -> bool:
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.OUTPUT_ONLY in behaviors


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _message_of(field: FieldDescriptor) -> Descriptor | None:
    """Return the message type inside a field: its own, or of a map's values."""
    if _is_map(field):
        entry: Any = field.message_type
        value: FieldDescriptor = entry.fields_by_name["value"]
        return value.message_type
    return field.message_type


def _children(field: FieldDescriptor, value: Any) -> Iterable[tuple[str, Message]]:
    if _is_map(field):
        return ((f'["{key}"]' if isinstance(key, str) else f"[{key}]", child) for key, child in value.items())
    if field.is_repeated:
        return ((f"[{index}]", child) for index, child in enumerate(value))
    return (("", value),)


def _violation(violation: protovalidate.Violation) -> FieldViolation:
    proto = violation.proto
    return FieldViolation(_path(proto.field), proto.message or proto.rule_id)


def _path(field: protovalidate.FieldPathPb | None) -> str:
    """Return a path as in `items[0].quantity` or `labels["color"]`; "" is the request as a whole."""
    parts = []
    for element in field.elements if field else ():
        key = element.subscript.value if element.subscript else None
        text = f'"{key}"' if isinstance(key, str) else str(key)
        parts.append(element.field_name if key is None else f"{element.field_name}[{text}]")
    return ".".join(parts)
