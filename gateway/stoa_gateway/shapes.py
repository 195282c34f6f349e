"""What JSON each RPC takes, as tables for the Lua filter that checks requests before they are transcoded."""

from __future__ import annotations

import json
from collections.abc import Iterable

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from stoa_gateway.contract import Rpc, kind


def lua_tables(rpcs: Iterable[Rpc]) -> str:
    """Return Lua that sets `messages` (fields), `enums` (values) and `shapes` (body and query of each RPC).

    A field is {name, kind, how, oneof}: its proto name, its kind, whether it is "one" value, a "list" or a
    "map", and the group of fields that exclude each other. It is found by its proto name and its JSON name.
    """
    tables = _Tables()
    shapes = []
    for rpc in rpcs:
        body = tables.fields(rpc.body_fields()) if rpc.takes_json else "nil"
        prefix = "nil" if rpc.body in ("", "*") else _text(rpc.body)
        query = tables.fields(rpc.query_fields())
        shapes.append(f"  [{_text(rpc.name)}] = {{body = {body}, prefix = {prefix}, query = {query}}},")
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
            value = _value(field)
            self._learn(value)
            how = "map" if _is_map(field) else "list" if field.is_repeated else "one"
            entry = f"name = {_text(field.name)}, kind = {_text(kind(value))}, how = {_text(how)}"
            if (oneof := field.containing_oneof) and len(oneof.fields) > 1:
                entry += f", oneof = {_text(f'oneof {oneof.name}')}"
            entries += [f"[{_text(name)}] = {{{entry}}}" for name in sorted({field.name, field.json_name})]
        return "{" + ", ".join(entries) + "}"

    def _learn(self, field: FieldDescriptor) -> None:
        message, enum = field.message_type, field.enum_type
        if enum is not None:
            names = [value.name for value in enum.values]
            values = [_text(", ".join(names)), *(f"{name} = true" for name in names)]
            self._known["enums"][enum.full_name] = "{" + ", ".join(values) + "}"
        elif message is not None and kind(field) == message.full_name:
            messages = self._known["messages"]
            if message.full_name not in messages:
                messages[message.full_name] = ""  # known from here on, for messages that hold themselves
                messages[message.full_name] = self.fields(message.fields)


def _value(field: FieldDescriptor) -> FieldDescriptor:
    """The field itself, or the values of a map."""
    if not _is_map(field):
        return field
    entry = field.message_type
    assert isinstance(entry, Descriptor)
    return entry.fields_by_name["value"]


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _text(text: str) -> str:
    return json.dumps(text)
