"""What JSON each RPC takes, as tables for the Lua filter that checks requests before they are transcoded."""

from __future__ import annotations

import json
from collections.abc import Iterable

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from stoa_gateway.contract import Rpc, kind


def lua_tables(rpcs: Iterable[Rpc]) -> str:
    """Return Lua that sets `messages` (fields by message) and `shapes` (body and query by RPC).

    A field is {name, kind, how}: its proto name, its kind and whether it is one value, a "list" or a "map".
    """
    messages: dict[str, str] = {}
    shapes = []
    for rpc in rpcs:
        body = "nil"
        if rpc.takes_json:
            fields = rpc.body_fields()
            for field in fields:
                _collect(field, messages)
            body = _fields(fields)
        prefix = "" if rpc.body in ("", "*") else f"{rpc.body}."
        query = "{" + ", ".join(f"[{_text(n)}] = {_text(k)}" for n, k in rpc.parameters.items()) + "}"
        shapes.append(
            f"  [{_text(rpc.name)}] = {{body = {body}, prefix = {_text(prefix)}, query = {query}}},"
        )
    known = [f"  [{_text(name)}] = {fields}," for name, fields in sorted(messages.items())]
    return "\n".join(["local messages = {", *known, "}", "local shapes = {", *shapes, "}"])


def _collect(field: FieldDescriptor, messages: dict[str, str]) -> None:
    message = _value(field).message_type
    if message is None or kind(_value(field)) != message.full_name or message.full_name in messages:
        return
    messages[message.full_name] = _fields(message.fields)
    for inner in message.fields:
        _collect(inner, messages)


def _fields(fields: Iterable[FieldDescriptor]) -> str:
    entries = []
    for field in fields:
        how = "map" if _is_map(field) else "list" if field.is_repeated else "one"
        entry = f"{{name = {_text(field.name)}, kind = {_text(kind(_value(field)))}, how = {_text(how)}}}"
        entries += [f"[{_text(name)}] = {entry}" for name in sorted({field.name, field.json_name})]
    return "{" + ", ".join(entries) + "}"


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
