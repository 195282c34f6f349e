"""What a message looks like as JSON: proto3's JSON mapping and the rules of buf.validate as JSON Schema."""

import re
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto

from stoa_contracts.descriptors import Contracts, Type
from stoa_tools.gen.errors import GenerationFailed

Schema = dict[str, Any]

REQUIRED, OUTPUT_ONLY, INPUT_ONLY = 2, 3, 4
"""Values of google.api.FieldBehavior."""

_SCALARS: dict[int, Schema] = {
    FieldDescriptorProto.TYPE_STRING: {"type": "string"},
    FieldDescriptorProto.TYPE_BYTES: {"type": "string", "format": "byte"},
    FieldDescriptorProto.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptorProto.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptorProto.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptorProto.TYPE_SINT32: {"type": "integer", "format": "int32"},
    FieldDescriptorProto.TYPE_SFIXED32: {"type": "integer", "format": "int32"},
    FieldDescriptorProto.TYPE_UINT32: {"type": "integer", "format": "int64"},
    FieldDescriptorProto.TYPE_FIXED32: {"type": "integer", "format": "int64"},
    # 64 bits do not fit a JSON number: proto3 writes them as strings.
    FieldDescriptorProto.TYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptorProto.TYPE_SINT64: {"type": "string", "format": "int64"},
    FieldDescriptorProto.TYPE_SFIXED64: {"type": "string", "format": "int64"},
    FieldDescriptorProto.TYPE_UINT64: {"type": "string", "format": "int64"},
    FieldDescriptorProto.TYPE_FIXED64: {"type": "string", "format": "int64"},
}
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string", "format": "field-mask"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
        "additionalProperties": True,
    },
    "google.api.HttpBody": {"type": "string", "format": "binary"},
}
_UNPORTABLE = re.compile(r"\\[pP]\{")  # classes of Unicode: not in every language's regular expressions
_STRING_FORMATS = {
    "uuid": "uuid",
    "email": "email",
    "uri": "uri",
    "hostname": "hostname",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
}


class Schemas:
    """The schemas that an API uses: asking for one adds it, with all that it refers to, to `components`."""

    def __init__(self, contracts: Contracts) -> None:
        self.components: dict[str, Schema] = {}
        self._contracts = contracts
        self._owners: dict[str, str] = {}

    def message(self, name: str) -> Schema:
        """The schema of a message or an enum, as a reference unless it is a well-known one."""
        if name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[name])
        type_ = self._contracts.types[name]
        return self.component(type_.short_name, name, lambda: self._build(type_))

    def component(self, key: str, owner: str, build: Callable[[], Schema]) -> Schema:
        """A reference to the component `key`, which `build` makes when it is first asked for.

        Raises:
            GenerationFailed: two messages would share the name.
        """
        if self._owners.setdefault(key, owner) != owner:
            raise GenerationFailed(
                f"{owner} and {self._owners[key]} are both public as {key}: give one another name"
            )
        if key not in self.components:
            self.components[key] = {}  # a message may refer to itself
            self.components[key] = build()
        return {"$ref": f"#/components/schemas/{key}"}

    def object(self, type_: Type, fields: list[FieldDescriptorProto]) -> Schema:
        """An object with some of a message's fields."""
        schema: Schema = {"type": "object"}
        if type_.doc:
            schema["description"] = type_.doc
        if required := [field.name for field in fields if REQUIRED in self.behaviors(field)]:
            schema["required"] = required
        schema["properties"] = {field.name: self.field(type_, field) for field in fields}
        alternatives = [
            {"oneOf": [{"required": [field.name]} for field in members]}
            for members in self._required_oneofs(type_, fields)
        ]
        if len(alternatives) == 1:
            schema |= alternatives[0]
        elif alternatives:
            schema["allOf"] = alternatives
        return schema

    def field(self, type_: Type, field: FieldDescriptorProto) -> Schema:
        """The schema of a field: what the wire holds, narrowed by its constraints, with its comment."""
        rules = self._contracts.option(field, "buf.validate.field")
        entry = self.map_entry(field)
        if entry is not None:
            value = next(part for part in entry.field if part.name == "value")
            schema: Schema = {"type": "object", "additionalProperties": self._value(value)}
            if rules is not None and rules.HasField("map"):
                _limit(schema, "minProperties", rules.map, "min_pairs")
                _limit(schema, "maxProperties", rules.map, "max_pairs")
                if rules.map.HasField("values"):
                    _constrain(schema["additionalProperties"], rules.map.values)
        elif field.label == FieldDescriptorProto.LABEL_REPEATED:
            schema = {"type": "array", "items": self._value(field)}
            if rules is not None and rules.HasField("repeated"):
                _limit(schema, "minItems", rules.repeated, "min_items")
                _limit(schema, "maxItems", rules.repeated, "max_items")
                if rules.repeated.unique:
                    schema["uniqueItems"] = True
                if rules.repeated.HasField("items"):
                    _constrain(schema["items"], rules.repeated.items)
        else:
            schema = self._value(field)
            if rules is not None:
                _constrain(schema, rules)
        return self._described(schema, type_.docs[field.name], rules, self.behaviors(field))

    def described_field(self, type_: Type, field: FieldDescriptorProto) -> tuple[Schema, str]:
        """The schema of a field that stands alone, as a parameter or a body, and its description apart."""
        schema = self.field(type_, field)
        description = schema.pop("description", "")
        if schema.keys() == {"allOf"}:
            (schema,) = schema["allOf"]
        return schema, description

    def is_object(self, field: FieldDescriptorProto) -> bool:
        """Whether a field holds a message that JSON writes as an object."""
        return (
            field.type == FieldDescriptorProto.TYPE_MESSAGE
            and field.type_name.removeprefix(".") not in _WELL_KNOWN
        )

    def behaviors(self, field: FieldDescriptorProto) -> list[int]:
        """The google.api.field_behavior values of a field."""
        return list(self._contracts.option(field, "google.api.field_behavior"))

    def map_entry(self, field: FieldDescriptorProto) -> DescriptorProto | None:
        """The key and value of a map field; None for any other field."""
        if field.type != FieldDescriptorProto.TYPE_MESSAGE:
            return None
        proto = self._contracts.types[field.type_name.removeprefix(".")].proto
        return proto if isinstance(proto, DescriptorProto) and proto.options.map_entry else None

    def _build(self, type_: Type) -> Schema:
        if isinstance(type_.proto, EnumDescriptorProto):
            lines = [f"{name}: {doc}" for name, doc in type_.docs.items() if doc]
            return {
                "type": "string",
                "enum": [value.name for value in type_.proto.value],
                "description": "\n".join([type_.doc, "", *(f"- {line}" for line in lines)]).strip(),
            }
        return self.object(type_, list(type_.proto.field))

    def _value(self, field: FieldDescriptorProto) -> Schema:
        if field.type in (FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.TYPE_ENUM):
            return self.message(field.type_name.removeprefix("."))
        return dict(_SCALARS[field.type])

    def _described(self, schema: Schema, doc: str, rules: Any, behaviors: list[int]) -> Schema:
        checks = [] if rules is None else [rule.message for rule in rules.cel if rule.message]
        extra: Schema = {}
        if OUTPUT_ONLY in behaviors:
            extra["readOnly"] = True
        if INPUT_ONLY in behaviors:
            extra["writeOnly"] = True
        if doc or checks:
            extra["description"] = "\n".join([doc, *(f"- {check}" for check in checks)]).strip()
        if extra and "$ref" in schema:
            return {"allOf": [schema], **extra}  # OpenAPI 3.0 ignores what stands beside a $ref
        return {**schema, **extra}

    def _required_oneofs(
        self, type_: Type, fields: list[FieldDescriptorProto]
    ) -> list[list[FieldDescriptorProto]]:
        """The members of each oneof of which one must be set."""
        assert isinstance(type_.proto, DescriptorProto)
        found = []
        for index, oneof in enumerate(type_.proto.oneof_decl):
            members = [f for f in fields if f.HasField("oneof_index") and f.oneof_index == index]
            rules = self._contracts.option(oneof, "buf.validate.oneof")
            if members and rules is not None and rules.required:
                found.append(members)
        return found


def _constrain(schema: Schema, rules: Any) -> None:
    """Narrow the schema of one value by its buf.validate rules, as far as JSON Schema can say them."""
    kind = rules.WhichOneof("type")
    if kind is None or "$ref" in schema:
        return
    of = getattr(rules, kind)
    if kind == "string":
        _limit(schema, "minLength", of, "min_len", "len")
        _limit(schema, "maxLength", of, "max_len", "len")
        if of.HasField("pattern") and not _UNPORTABLE.search(of.pattern):
            schema["pattern"] = of.pattern
        if (format_ := _STRING_FORMATS.get(of.WhichOneof("well_known") or "")) is not None:
            schema["format"] = format_
    elif schema["type"] in ("integer", "number"):
        _limit(schema, "minimum", of, "gte", "gt")
        _limit(schema, "maximum", of, "lte", "lt")
        if of.HasField("gt"):
            schema["exclusiveMinimum"] = True
        if of.HasField("lt"):
            schema["exclusiveMaximum"] = True
    # An empty string among the allowed ones stands for "not given", which JSON says by leaving the field out.
    if schema["type"] != "boolean" and (values := [value for value in getattr(of, "in", []) if value != ""]):
        schema["enum"] = values
    if schema["type"] != "boolean" and (values := list(getattr(of, "not_in", []))):
        schema["not"] = {"enum": values}


def _limit(schema: Schema, key: str, rules: Any, *names: str) -> None:
    for name in names:
        if rules.HasField(name):
            schema[key] = getattr(rules, name)
