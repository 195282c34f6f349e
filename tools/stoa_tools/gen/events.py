"""Typed Python for the events: each events/<topic>.avsc becomes a module of frozen dataclasses.

Records that several events share are in the module `types`, one class for all, however a topic registered its
copy. The classes convert to and from the plain values that fastavro writes and reads, with code written out
per field: that happens for every message, so nothing is looked up at run time.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoa_tools.gen.errors import GenerationFailed
from stoa_tools.gen.schemas import Schema, Sources
from stoa_tools.gen.template import render

KEY = "stoa.key"
"""The attribute of a payload that names the field whose value is the message's key."""

VERSION = "stoa.version"
"""The attribute of a payload that gives its version, the envelope's event_version; 1 where it is missing."""

SECRET = "stoa.secret"
"""The attribute of a field whose value nobody may see but who it is for: its class does not show it."""

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
    secret: bool


@dataclass(frozen=True)
class _Record:
    name: str
    doc: str
    fields: list[_Field]


def generate(sources: Sources, python: Path, avro: Path) -> None:
    """Write the package `python`, and the schemas as they are registered into the folder `avro`.

    Raises:
        GenerationFailed: a schema breaks the conventions for events.
    """
    python.mkdir(parents=True)
    avro.mkdir(parents=True)
    shared = _Shared(sources)
    (python / "types.py").write_text(shared.render())
    events = [_Event(sources, shared, topic) for topic in sources.payloads]
    for event in events:
        (python / f"{event.module}.py").write_text(event.render())
        (avro / f"{event.topic}.avsc").write_text(
            json.dumps(event.schema, indent=2, ensure_ascii=False) + "\n"
        )
    modules = [(event.module, [record.name for record in event.records]) for event in events]
    modules.append(("types", [record.name for record in shared.records]))
    exported = sorted(name for _, names in modules for name in names)
    if twice := {name for name in exported if exported.count(name) > 1}:
        raise GenerationFailed(f"events/: declared twice: {', '.join(sorted(twice))}")
    payloads = [event.payload.name for event in events]
    package = render("events.py.jinja", modules=modules, payloads=payloads, exported=exported)
    (python / "__init__.py").write_text(package)
    (python / "py.typed").touch()


class _Reader:
    """Reads records of one module; `known` are the types that it may name."""

    def __init__(self, file: str, known: Mapping[str, _Type]) -> None:
        self.records: list[_Record] = []
        self._file = file
        self._named = dict(known)

    @property
    def _used(self) -> set[str]:
        """The names in the annotations of the records, and of what their fields need: what to import."""
        fields = [field for record in self.records for field in record.fields]
        annotations = " ".join(field.type.annotation for field in fields)
        return {*re.findall(r"\w+", annotations), *("field" for each in fields if each.secret)}

    def _wrong(self, what: str) -> GenerationFailed:
        return GenerationFailed(f"events/{self._file} {what}")

    def _type(self, schema: Any) -> _Type:
        match schema:
            case str() if schema in _PRIMITIVES:
                return _Type(_PRIMITIVES[schema])
            case str() if schema in self._named:
                return self._named[schema]
            case {"type": str() as name} if name in self._named:
                return self._named[name]
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
            _Field(
                field["name"],
                self._type(field["type"]),
                field.get("doc", ""),
                self._default(field),
                field.get(SECRET, False),
            )
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


class _Shared(_Reader):
    """The records of events/types, each after those that it names."""

    def __init__(self, sources: Sources) -> None:
        super().__init__("types", {})
        self._sources = sources.types
        for name in sources.types:
            self._type(name)

    @property
    def named(self) -> Mapping[str, _Type]:
        """The types that payloads may name."""
        return self._named

    def render(self) -> str:
        """The module's source."""
        return render("event_types.py.jinja", payload=None, records=self.records, shared=[], used=self._used)

    def _type(self, schema: Any) -> _Type:
        name = schema.get("type") if isinstance(schema, dict) else schema
        if isinstance(name, str) and name in self._sources and name not in self._named:
            self._read(name)
        return super()._type(schema)

    def _read(self, name: str) -> None:
        before, self._file = self._file, f"types/{name}.avsc"
        self._name(name, _record(name))
        if name != "Money":
            self._record(name, self._sources[name])
        elif {field["name"]: field["type"] for field in self._sources[name]["fields"]} != _MONEY:
            raise self._wrong("must have the fields that stoa_contracts.money.Money reads and writes")
        self._file = before


class _Event(_Reader):
    """One topic's payload, read and checked, and its schema as it is registered."""

    def __init__(self, sources: Sources, shared: _Shared, topic: str) -> None:
        super().__init__(f"{topic}.avsc", shared.named)
        self.topic = topic
        self.module = topic.replace(".", "_")
        self.schema = sources.registered(topic)
        self._shared = [record.name for record in shared.records]
        source = sources.payloads[topic]
        self._version = int(source.get(VERSION, 1))
        self._type(source)
        self.payload = self.records[-1]
        key = next((field for field in self.payload.fields if field.name == source.get(KEY)), None)
        if key is None or key.type.annotation not in ("str", "UUID"):
            raise self._wrong(f"must name a string field of the payload in {KEY}")
        self._key = f"self.{key.name}" if key.type.annotation == "str" else f"str(self.{key.name})"

    def render(self) -> str:
        """The module's source."""
        return render(
            "event.py.jinja",
            topic=self.topic,
            payload=self.payload,
            records=self.records,
            shared=[name for name in sorted(self._shared) if name in self._used],
            version=self._version,
            schema=repr(json.dumps(self.schema, separators=(",", ":"), ensure_ascii=False)),
            key=self._key,
            used=self._used,
        )


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
