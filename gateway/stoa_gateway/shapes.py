"""What JSON each RPC takes, as tables for the Lua filter that checks requests before they are transcoded."""

from __future__ import annotations

import json
from collections.abc import Iterable

from google.protobuf.descriptor import FieldDescriptor

from stoa_contracts.fields import is_map, value_of
from stoa_gateway.routes import TEXT, EdgeRoute

_ANYTHING = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.Any"})
_KINDS = {
    FieldDescriptor.CPPTYPE_INT32: "int32",
    FieldDescriptor.CPPTYPE_UINT32: "uint32",
    FieldDescriptor.CPPTYPE_INT64: "int64",
    FieldDescriptor.CPPTYPE_UINT64: "uint64",
    FieldDescriptor.CPPTYPE_DOUBLE: "number",
    FieldDescriptor.CPPTYPE_FLOAT: "number",
    FieldDescriptor.CPPTYPE_BOOL: "bool",
    FieldDescriptor.CPPTYPE_STRING: "string",
}


def lua_tables(routes: Iterable[EdgeRoute]) -> str:
    """Return Lua that sets `messages` (fields), `enums` (values) and `shapes` (body and query of each RPC).

    A field is {name, kind, how, oneof}: its proto name, its kind, whether it is "one" value, a "list" or a
    "map", and the group of fields that exclude each other. It is found by its proto name and its JSON name.
    """
    tables = _Tables()
    shapes = []
    for each in routes:
        body = tables.fields(each.body_fields()) if each.takes_json else "nil"
        query = tables.fields(each.query_fields())
        shapes.append(f"  [{_text(each.name)}] = {{body = {body}, query = {query}}},")
    return "\n".join([*tables.lua("messages"), *tables.lua("enums"), "local shapes = {", *shapes, "}"])


class _Tables:
    """The messages and enums that bodies are made of, gathered while the fields that use them are written."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {"messages": {}, "enums": {}}

    def lua(self, name: str) -> list[str]:
        """Return the lines that set one of the tables."""
        entries = [f"  [{_text(key)}] = {value}," for key, value in sorted(self._known[name].items())]
        return [f"local {name} = {{", *entries, "}"]

    def fields(self, fields: Iterable[FieldDescriptor]) -> str:
        """Return a table of fields."""
        entries = []
        for field in fields:
            value = value_of(field)
            self._learn(value)
            how = "map" if is_map(field) else "list" if field.is_repeated else "one"
            entry = f"name = {_text(field.name)}, kind = {_text(_kind(value))}, how = {_text(how)}"
            if (oneof := field.containing_oneof) and len(oneof.fields) > 1:
                entry += f", oneof = {_text(f'oneof {oneof.name}')}"
            entries += [f"[{_text(name)}] = {{{entry}}}" for name in sorted({field.name, field.json_name})]
        return "{" + ", ".join(entries) + "}"

    def _learn(self, field: FieldDescriptor) -> None:
        message, enum = field.message_type, field.enum_type
        if enum is not None:
            names = [value.name for value in enum.values]
            # The first one stands for leaving the field out, which needs not be said.
            *others, last = names[1:] or names
            told = f"{', '.join(others)} or {last}" if others else last
            values = [_text(told), *(f"{name} = true" for name in names)]
            self._known["enums"][enum.full_name] = "{" + ", ".join(values) + "}"
        elif message is not None and _kind(field) == message.full_name:
            messages = self._known["messages"]
            if message.full_name not in messages:
                messages[message.full_name] = ""  # known from here on, for messages that hold themselves
                messages[message.full_name] = self.fields(message.fields)


def _text(text: str) -> str:
    return json.dumps(text)


def _kind(field: FieldDescriptor) -> str:
    """Name what JSON a single value of the field may be; messages and enums go by their full names."""
    if field.enum_type is not None:
        return str(field.enum_type.full_name)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return "string"
    message = field.message_type
    if message is None:
        return _KINDS[field.cpp_type]
    if message.full_name == "google.protobuf.Timestamp":
        return "time"
    if message.full_name in TEXT:
        return "string"
    if message.full_name in _ANYTHING:
        return "any"
    return str(message.full_name)
