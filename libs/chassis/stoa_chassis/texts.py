"""Every text of a request is put in order, once and before anything looks at it: it loses the blanks around
it and gets Unicode's form NFC, so that what looks the same is the same. None has control characters, unless
its field says that it may.

That holds for every string, nested and repeated ones and the keys of maps included, so that no field must
remember it; one that differs says how by the option `stoa.text.v1.text`. Left out are fields that the server
computes (OUTPUT_ONLY) and UUIDs, whose constraint admits no other character.

Texts that are a postal address together, as their message says by `stoa.text.v1.postal_address`, must be one
of their country (see `postal.py`).

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
from stoa_chassis import postal
from stoa_chassis.auth import ContractError
from stoa_chassis.errors import FieldViolation, subscript
from stoa_contracts.fields import is_map, option

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LINE_BREAKS = "\n\r"
# What nobody sees at the ends of a text, and nobody means: white space, and the invisible characters that are
# copied along with it (zero-width space, word joiner, byte order mark).
_BLANKS = (
    " \t\n\r\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029"
    "\u202f\u205f\u3000\u200b\u2060\ufeff"
)
_Place = tuple["_Place | None", str, "int | str | None"]
"""Where a text is: in which field, under which index or key, of what."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """How the text of a field may differ from a plain line."""

    multi_line: bool = False
    not_blank: bool = False

    def tidy(self, text: str, at: _Place, found: list[FieldViolation]) -> str:
        """Return a text in order, and add what is wrong with it, if anything is."""
        text = unicodedata.normalize("NFC", text).strip(_BLANKS)
        control = (_CONTROL_IN_LINES if self.multi_line else _CONTROL).search(text)
        if control is not None:
            one_line = control[0] in _LINE_BREAKS
            complaint = "must be a single line" if one_line else "must not contain control characters"
            found.append(FieldViolation(_path(at), complaint))
        elif self.not_blank and text and all(unicodedata.category(each)[0] in "CZ" for each in text):
            found.append(FieldViolation(_path(at), "must not be blank"))
        return text


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
        # Maps with keys of text, and whether their values are messages.
        self._keys: list[tuple[str, bool]] = []
        self._values: list[tuple[str, _Rule]] = []
        self._message_values: list[tuple[str, TextCheck]] = []
        self._is_address = option(type_, text_pb2.postal_address)
        if self._is_address and (missing := sorted(postal.PARTS.difference(type_.fields_by_name))):
            raise ContractError(f"{type_.full_name} is to be an address, but has no {', '.join(missing)}")
        for field in type_.fields:
            if field_behavior_pb2.OUTPUT_ONLY not in option(field, field_behavior_pb2.field_behavior):
                self._add(field, known)

    def tidy(self, message: Message) -> list[FieldViolation]:
        """Put the texts of a message in order, and return what is wrong with them, each with its path."""
        found: list[FieldViolation] = []
        self._tidy(message, None, found)
        return found

    def _add(self, field: FieldDescriptor, known: dict[str, TextCheck]) -> None:
        declared = _declared(field)
        holder, message = field, field.message_type
        if message is not None and is_map(field):
            key, holder = (message.fields_by_name[name] for name in ("key", "value"))
            message = holder.message_type
            if key.type == FieldDescriptor.TYPE_STRING:
                self._keys.append((field.name, message is not None))
        if message is not None and (check := _check_of(message, known)) is not None:
            places = (self._messages, self._message_lists, self._message_values)
            places[_kind(field, holder)].append((field.name, check))
        if holder.type == FieldDescriptor.TYPE_STRING:
            if not (_is_verbatim(declared) or _is_uuid(field)):
                texts = (self._texts, self._lists, self._values)
                texts[_kind(field, holder)].append((field.name, _rule(declared)))
        elif declared is not None:
            raise ContractError(f"{field.full_name} holds no text, but says what its text may be")

    def _tidy(self, message: Any, at: _Place | None, found: list[FieldViolation]) -> None:
        for name, rule in self._texts:
            text = getattr(message, name)
            if not _is_plain(text):
                setattr(message, name, rule.tidy(text, (at, name, None), found))
        for name, rule in self._lists:
            texts = getattr(message, name)
            for index, text in enumerate(texts):
                if not _is_plain(text):
                    texts[index] = rule.tidy(text, (at, name, index), found)
        for name, check in self._messages:
            if message.HasField(name):
                check._tidy(getattr(message, name), (at, name, None), found)
        for name, check in self._message_lists:
            for index, inner in enumerate(getattr(message, name)):
                check._tidy(inner, (at, name, index), found)
        for name, holds_messages in self._keys:
            _tidy_keys(getattr(message, name), holds_messages, (at, name), found)
        for name, rule in self._values:
            pairs = getattr(message, name)
            for key in [key for key, text in pairs.items() if not _is_plain(text)]:
                pairs[key] = rule.tidy(pairs[key], (at, name, key), found)
        for name, check in self._message_values:
            for key, inner in getattr(message, name).items():
                check._tidy(inner, (at, name, key), found)
        if self._is_address:
            for part, complaint in postal.complaints(message):
                found.append(FieldViolation(_path((at, part, None)), complaint))


def _tidy_keys(
    pairs: Any, hold_messages: bool, at: tuple[_Place | None, str], found: list[FieldViolation]
) -> None:
    """Put the keys of a map in order; two that are the same then are refused."""
    for key in [key for key in pairs if not _is_plain(key)]:
        tidy = _PLAIN_LINE.tidy(key, (*at, key), found)
        if tidy == key:
            continue
        if tidy in pairs:
            found.append(FieldViolation(_path((*at, tidy)), "is there twice"))
        elif hold_messages:
            pairs[tidy].CopyFrom(pairs[key])
        else:
            pairs[tidy] = pairs[key]
        del pairs[key]


def _is_plain(text: str) -> bool:
    """Tell whether a text needs no closer look: most are printable ASCII without a blank at either end."""
    return not text or (text.isascii() and text.isprintable() and text[0] != " " and text[-1] != " ")


def _path(place: _Place) -> str:
    """Write a place as in `things[0].labels["color"].name`; paths are only put together for what is wrong."""
    parent, name, index = place
    key = "" if index is None else subscript(index)
    return f"{_path(parent)}.{name}{key}" if parent else f"{name}{key}"


def _check_of(type_: Descriptor, known: dict[str, TextCheck]) -> TextCheck | None:
    """The check of a type, made once; None if no message of that type can hold text."""
    if type_.full_name not in known and _holds_text(type_, set()):
        TextCheck(type_, known)
    return known.get(type_.full_name)


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


def _kind(field: FieldDescriptor, holder: FieldDescriptor) -> int:
    """Tell whether a field has one value (0), a list (1), or a map, whose values are another field (2)."""
    if holder is not field:
        return 2
    return 1 if field.is_repeated else 0


def _declared(field: FieldDescriptor) -> text_pb2.Text | None:
    if not field.GetOptions().HasExtension(text_pb2.text):
        return None
    text: text_pb2.Text = option(field, text_pb2.text)
    return text


def _is_verbatim(declared: text_pb2.Text | None) -> bool:
    return declared is not None and declared.verbatim


def _rule(declared: text_pb2.Text | None) -> _Rule:
    return _PLAIN_LINE if declared is None else _Rule(declared.multi_line, declared.not_blank)


def _is_uuid(field: FieldDescriptor) -> bool:
    rules = option(field, validate_pb2.field)
    return bool(rules.repeated.items.string.uuid if field.is_repeated else rules.string.uuid)
