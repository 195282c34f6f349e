"""No text of a request has control characters, unless its field says that it may.

That holds for every string, nested and repeated ones included, so that no field must remember it; one that
differs says how by the option `stoa.text.v1.text`. Left out are fields that the server computes (OUTPUT_ONLY)
and UUIDs, whose constraint admits no other character.

Which fields of a message hold text, and in which of its fields there is more of it, is compiled once for each
type: a request costs some tenths of a microsecond for each text.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from buf.validate import validate_pb2
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from stoa.text.v1 import text_pb2
from stoa_chassis.auth import ContractError
from stoa_chassis.errors import FieldViolation, subscript

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LINE_BREAKS = "\n\r"
_Place = tuple["_Place | None", str, "int | str | None"]
"""Where a text is: in which field, under which index or key, of what."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """How the text of a field may differ from a plain line."""

    multi_line: bool = False
    not_blank: bool = False
    verbatim: bool = False

    def judge(self, text: str, at: _Place, found: list[FieldViolation]) -> None:
        """Add what is wrong with a text, if anything is."""
        if self.verbatim:
            return
        control = (_CONTROL_IN_LINES if self.multi_line else _CONTROL).search(text)
        if control is not None:
            one_line = control[0] in _LINE_BREAKS
            complaint = "must be a single line" if one_line else "must not contain control characters"
            found.append(FieldViolation(_path(at), complaint))
        elif self.not_blank and text and all(unicodedata.category(each)[0] in "CZ" for each in text):
            found.append(FieldViolation(_path(at), "must not be blank"))


_PLAIN_LINE = _Rule()


class TextCheck:
    """The texts of one message type: where they are, and what each may be."""

    def __init__(self, type_: Descriptor, known: dict[str, TextCheck] | None = None) -> None:
        """Compile, and with it the types that its messages can hold; raises ContractError.

        `known` are the checks that there are already, by the full names of their types.
        """
        known = {} if known is None else known
        known[type_.full_name] = self  # a message may hold its own kind
        self._texts: list[tuple[str, _Rule]] = []
        self._lists: list[tuple[str, _Rule]] = []
        self._messages: list[tuple[str, TextCheck]] = []
        self._message_lists: list[tuple[str, TextCheck]] = []
        self._maps: list[tuple[str, _Rule | None, _Rule | TextCheck | None]] = []
        for field in type_.fields:
            if field_behavior_pb2.OUTPUT_ONLY not in _option(field, field_behavior_pb2.field_behavior):
                self._add(field, known)

    def violations(self, message: Message) -> list[FieldViolation]:
        """Return what is wrong with the texts of a message, each with the path of its field."""
        found: list[FieldViolation] = []
        self._find(message, None, found)
        return found

    def _add(self, field: FieldDescriptor, known: dict[str, TextCheck]) -> None:
        own = _declared(field)
        message = field.message_type
        if message is None:
            if field.type == FieldDescriptor.TYPE_STRING:
                if not _is_uuid(field):
                    (self._lists if field.is_repeated else self._texts).append(
                        (field.name, own or _PLAIN_LINE)
                    )
                return
        elif message.GetOptions().map_entry:
            key, value = (message.fields_by_name[name] for name in ("key", "value"))
            of_key = _PLAIN_LINE if key.type == FieldDescriptor.TYPE_STRING else None
            of_value: _Rule | TextCheck | None = None
            if value.type == FieldDescriptor.TYPE_STRING:
                of_value, own = own or _PLAIN_LINE, None
            elif value.message_type is not None:
                of_value = _check_of(value.message_type, known)
            if of_key or of_value:
                self._maps.append((field.name, of_key, of_value))
        elif (check := _check_of(message, known)) is not None:
            (self._message_lists if field.is_repeated else self._messages).append((field.name, check))
        if own is not None:
            raise ContractError(f"{field.full_name} holds no text, but says what its text may be")

    def _find(self, message: Any, at: _Place | None, found: list[FieldViolation]) -> None:
        for name, rule in self._texts:
            text = getattr(message, name)
            if text and _suspect(text):
                rule.judge(text, (at, name, None), found)
        for name, rule in self._lists:
            for index, text in enumerate(getattr(message, name)):
                if _suspect(text):
                    rule.judge(text, (at, name, index), found)
        for name, check in self._messages:
            if message.HasField(name):
                check._find(getattr(message, name), (at, name, None), found)
        for name, check in self._message_lists:
            for index, inner in enumerate(getattr(message, name)):
                check._find(inner, (at, name, index), found)
        for name, of_key, of_value in self._maps:
            for key, value in getattr(message, name).items():
                if of_key is not None and _suspect(key):
                    of_key.judge(key, (at, name, key), found)
                if isinstance(of_value, TextCheck):
                    of_value._find(value, (at, name, key), found)
                elif of_value is not None and _suspect(value):
                    of_value.judge(value, (at, name, key), found)


def _suspect(text: str) -> bool:
    """Whether a text needs a closer look: nearly all are printable, which rules control characters out."""
    return not text.isprintable() or text.isspace()


def _path(place: _Place | None) -> str:
    """Write a place as in `things[0].labels["color"].name`; paths are only put together for what is wrong."""
    if place is None:
        return ""
    parent, name, index = place
    key = "" if index is None else subscript(index)
    return f"{_path(parent)}.{name}{key}" if parent else f"{name}{key}"


def _check_of(type_: Descriptor, known: dict[str, TextCheck]) -> TextCheck | None:
    """The check of a type, made once; None if no message of that type can hold text."""
    if not _holds_text(type_, set()):
        return None
    if type_.full_name not in known:
        TextCheck(type_, known)
    return known[type_.full_name]


def _holds_text(type_: Descriptor, seen: set[str]) -> bool:
    seen.add(type_.full_name)
    return any(
        field.type == FieldDescriptor.TYPE_STRING
        or (
            field.message_type is not None
            and field.message_type.full_name not in seen
            and _holds_text(field.message_type, seen)
        )
        for field in type_.fields
    )


def _declared(field: FieldDescriptor) -> _Rule | None:
    if not field.GetOptions().HasExtension(text_pb2.text):
        return None
    text = _option(field, text_pb2.text)
    return _Rule(text.multi_line, text.not_blank, text.verbatim)


def _is_uuid(field: FieldDescriptor) -> bool:
    rules = _option(field, validate_pb2.field)
    return bool(rules.repeated.items.string.uuid if field.is_repeated else rules.string.uuid)


def _option(field: FieldDescriptor, extension: Any) -> Any:
    return field.GetOptions().Extensions[extension]
