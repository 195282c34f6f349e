"""Typed Python for the events: each events/<topic>.avsc becomes a module of frozen dataclasses.

The classes convert to and from the plain values that fastavro writes and reads, with code written out per
field: that happens for every message, so nothing is looked up at run time.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoa_tools.gen.errors import GenerationFailed
from stoa_tools.gen.template import render

Schema = Mapping[str, Any]

ENVELOPE = ("event_id", "event_type", "event_version", "timestamp", "correlation_id", "payload")
"""The fields of every event, in order."""

KEY = "stoa.key"
"""The attribute of a payload that names the field whose value is the message's key."""

_MONEY = {
    "currency_code": "string",
    "amount": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
}
_PRIMITIVES = {
    "string": "str",
    "int": "int",
    "long": "int",
    "float": "float",
    "double": "float",
    "boolean": "bool",
    "bytes": "bytes",
}
_LOGICAL = {
    "uuid": "UUID",
    "timestamp-micros": "datetime",
    "timestamp-millis": "datetime",
    "date": "date",
    "decimal": "Decimal",
}


@dataclass(frozen=True)
class _Type:
    """How a value is annotated, and the expressions that turn it into fastavro's plain value and back."""

    annotation: str
    to_plain: Callable[[str], str] = lambda value: value
    from_plain: Callable[[str], str] = lambda value: value

    @property
    def is_plain(self) -> bool:
        return self.to_plain("x") == "x"


@dataclass(frozen=True)
class _Field:
    name: str
    type: _Type
    doc: str
    default: str | None


@dataclass(frozen=True)
class _Record:
    name: str
    doc: str
    fields: list[_Field]


def generate(schemas: Path, out: Path) -> None:
    """Write the package `out` for all schemas in the folder `schemas`.

    Raises:
        GenerationFailed: a schema breaks the conventions for events.
    """
    out.mkdir(parents=True)
    modules: list[tuple[str, list[str]]] = []
    payloads = []
    for path in sorted(schemas.glob("*.avsc")):
        event = _Event(path)
        (out / f"{event.module}.py").write_text(event.render())
        modules.append((event.module, [record.name for record in event.records]))
        payloads.append(event.payload.name)
    exported = sorted(name for _, names in modules for name in names)
    if twice := {name for name in exported if exported.count(name) > 1}:
        raise GenerationFailed(f"events/: two topics declare {', '.join(sorted(twice))}")
    package = render("events.py.jinja", modules=modules, payloads=payloads, exported=exported)
    (out / "__init__.py").write_text(package)
    (out / "py.typed").touch()


class _Event:
    """One topic's schema, read and checked."""

    def __init__(self, path: Path) -> None:
        self.topic = path.stem
        self.module = self.topic.replace(".", "_")
        self.records: list[_Record] = []
        self._named: dict[str, _Type] = {}
        try:
            self._schema: Schema = json.loads(path.read_text())
        except ValueError as error:
            raise self._wrong(f"is not JSON: {error}") from None
        self.payload = self._read()

    def render(self) -> str:
        """The module's source."""
        annotations = " ".join(field.type.annotation for record in self.records for field in record.fields)
        return render(
            "event.py.jinja",
            topic=self.topic,
            payload=self.payload,
            records=self.records,
            version=self._version,
            schema=repr(json.dumps(self._schema, separators=(",", ":"), ensure_ascii=False)),
            key=self._key,
            used=set(re.findall(r"\w+", annotations)),
        )

    def _wrong(self, what: str) -> GenerationFailed:
        return GenerationFailed(f"events/{self.topic}.avsc {what}")

    def _read(self) -> _Record:
        fields = {field["name"]: field for field in self._schema.get("fields", ())}
        if tuple(fields) != ENVELOPE:
            raise self._wrong(f"must have the fields {', '.join(ENVELOPE)}, in this order")
        if self._schema.get("namespace") != "stoa.events":
            raise self._wrong("must be in the namespace stoa.events")
        self._version = int(fields["event_version"].get("default", 1))
        schema = fields["payload"]["type"]
        if self._schema["name"] != f"{schema['name']}Event":
            raise self._wrong(f"must name the envelope {schema['name']}Event, after its payload")
        self._type(schema)
        payload = self.records[-1]
        key = next((field for field in payload.fields if field.name == schema.get(KEY)), None)
        if key is None or key.type.annotation not in ("str", "UUID"):
            raise self._wrong(f"must name a string field of the payload in {KEY}")
        self._key = f"self.{key.name}" if key.type.annotation == "str" else f"str(self.{key.name})"
        return payload

    def _type(self, schema: Any) -> _Type:
        match schema:
            case str() if schema in _PRIMITIVES:
                return _Type(_PRIMITIVES[schema])
            case str() if schema in self._named:
                return self._named[schema]
            case ["null", other]:
                return _optional(self._type(other))
            case {"logicalType": logical} if logical in _LOGICAL:
                return _Type(_LOGICAL[logical])
            case {"type": "array", "items": items}:
                return _array(self._type(items))
            case {"type": "map", "values": values}:
                return _map(self._type(values))
            case {"type": "enum", "name": name}:
                return self._name(name, _Type("str"))
            case {"type": "record", "name": "Money"}:
                if {field["name"]: field["type"] for field in schema["fields"]} != _MONEY:
                    raise self._wrong("must declare Money like every other event")
                return self._name("Money", _record("Money"))
            case {"type": "record", "name": name}:
                return self._name(name, self._record(name, schema))
            case {"type": str() as primitive} if primitive in _PRIMITIVES and "logicalType" not in schema:
                return _Type(_PRIMITIVES[primitive])
        raise self._wrong(f"uses a type that events may not: {json.dumps(schema)}")

    def _name(self, name: str, type_: _Type) -> _Type:
        self._named[name] = self._named[f"stoa.events.{name}"] = type_
        return type_

    def _record(self, name: str, schema: Schema) -> _Type:
        fields = [
            _Field(field["name"], self._type(field["type"]), field.get("doc", ""), self._default(field))
            for field in schema["fields"]
        ]
        if not schema.get("doc"):
            raise self._wrong(f"must say in `doc` what {name} is")
        self.records.append(_Record(name, schema["doc"], fields))
        return _record(name)

    def _default(self, field: Schema) -> str | None:
        if "default" not in field:
            return None
        match field["default"]:
            case []:
                return "()"
            case None | str() | int() | float() as value:
                return repr(value)
        raise self._wrong(f"gives {field['name']} a default that events may not have")


def _record(name: str) -> _Type:
    return _Type(name, lambda value: f"{value}.to_dict()", lambda value: f"{name}.from_dict({value})")


def _optional(of: _Type) -> _Type:
    annotation = f"{of.annotation} | None"
    if of.is_plain:
        return _Type(annotation)
    return _Type(
        annotation,
        lambda value: f"None if {value} is None else {of.to_plain(value)}",
        lambda value: f"None if (value := {value}) is None else {of.from_plain('value')}",
    )


def _array(of: _Type) -> _Type:
    annotation = f"tuple[{of.annotation}, ...]"
    if of.is_plain:
        return _Type(annotation, lambda value: f"list({value})", lambda value: f"tuple({value})")
    return _Type(
        annotation,
        lambda value: f"[{of.to_plain('item')} for item in {value}]",
        lambda value: f"tuple({of.from_plain('item')} for item in {value})",
    )


def _map(of: _Type) -> _Type:
    annotation = f"Mapping[str, {of.annotation}]"
    if of.is_plain:
        return _Type(annotation, lambda value: f"dict({value})")
    return _Type(
        annotation,
        lambda value: f"{{name: {of.to_plain('item')} for name, item in {value}.items()}}",
        lambda value: f"{{name: {of.from_plain('item')} for name, item in {value}.items()}}",
    )
