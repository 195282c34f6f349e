"""The REST API in Python's types: `stoa_rest`, from the OpenAPI document.

Each schema becomes a TypedDict and each operation a method of `Operations`, so that mypy checks what is sent
and what is read of an answer. How a request travels is left to whoever derives from `Operations`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stoa_tools.gen.errors import GenerationFailed
from stoa_tools.gen.template import render

Schema = dict[str, Any]

_REFERENCE = "#/components/schemas/"
_JSON = "application/json"
_PLAIN = {"integer": "int", "number": "float", "boolean": "bool", "string": "str"}


@dataclass(frozen=True)
class _Field:
    name: str
    annotation: str
    doc: str


@dataclass(frozen=True)
class _Type:
    """A TypedDict; an alias of `annotation` if it has no fields."""

    name: str
    doc: str
    fields: list[_Field]
    annotation: str = ""


@dataclass(frozen=True)
class _Operation:
    id: str
    verb: str
    path: str
    tag: str
    doc: str
    in_path: list[str]
    query: list[_Field]
    body: str  # the TypedDict whose keys are the keyword arguments; empty: none
    answer: str  # its annotation; None: the answer has no content; bytes: it is a file, not JSON

    @property
    def method(self) -> str:
        """The method's name in Python: placeOrder → place_order."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.id).lower()

    @property
    def constant(self) -> str:
        return self.method.upper()

    @property
    def parameters(self) -> list[str]:
        """The method's parameters. Those of the path have no names: a body may have a field of theirs."""
        path = [f"{name}: str" for name in self.in_path]
        query = [f"{field.name}: {field.annotation} | None = None" for field in self.query]
        return [
            "self",
            *([*path, "/"] if path else []),
            *(["*", *query] if query else []),
            *([f"**body: Unpack[{self.body}]"] if self.body else []),
        ]


def generate(document: Path, out: Path) -> None:
    """Write the package `out` for the OpenAPI document.

    Raises:
        GenerationFailed: the document uses a schema that has no type here.
    """
    openapi = yaml.safe_load(document.read_text())
    types = [_type(name, schema) for name, schema in openapi["components"]["schemas"].items()]
    operations = sorted(_operations(openapi["paths"]), key=lambda operation: operation.id)
    out.mkdir(parents=True)
    (out / "__init__.py").write_text(render("rest.py.jinja", types=types, operations=operations))
    (out / "py.typed").touch()


def _type(name: str, schema: Schema) -> _Type:
    doc = _line(schema.get("description", ""))
    if "properties" not in schema:
        return _Type(name, doc, [], _annotation(schema))
    required = schema.get("required", [])
    return _Type(
        name,
        doc,
        [
            _Field(
                key,
                f"Required[{_annotation(value)}]" if key in required else _annotation(value),
                _line(value.get("description", "")),
            )
            for key, value in schema["properties"].items()
        ],
    )


def _operations(paths: Schema) -> Iterator[_Operation]:
    for path, verbs in paths.items():
        for verb, operation in verbs.items():
            body = operation.get("requestBody", {}).get("content", {_JSON: {"schema": {}}})
            if _JSON not in body:
                continue  # the webhook of another company, who has a client of its own
            parameters = operation.get("parameters", [])
            yield _Operation(
                operation["operationId"],
                verb.upper(),
                path,
                operation["tags"][0],
                _line(f"{operation['summary']} {operation['description']}"),
                re.findall(r"\{(\w+)\}", path),
                [
                    _Field(each["name"], _annotation(each["schema"]), _line(each.get("description", "")))
                    for each in parameters
                    if each["in"] == "query"
                ],
                _annotation(body[_JSON]["schema"]) if "requestBody" in operation else "",
                _answer(operation["responses"]["200"]["content"]),
            )


def _answer(content: Schema) -> str:
    if _JSON not in content:
        return "bytes"
    schema = content[_JSON]["schema"]
    return "None" if schema == {"type": "object"} else _annotation(schema)


def _annotation(schema: Schema) -> str:
    match schema:
        case {"$ref": str(reference)} | {"allOf": [{"$ref": str(reference)}]}:
            return reference.removeprefix(_REFERENCE)
        case {"type": "string", "enum": values}:
            return f"Literal[{', '.join(map(repr, values))}]"
        case {"type": "array", "items": items}:
            return f"list[{_annotation(items)}]"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"dict[str, {_annotation(values)}]"
        case {"type": "object"}:
            return "dict[str, Any]"
        case {"type": str(kind)} if kind in _PLAIN:
            return _PLAIN[kind]
    raise GenerationFailed(f"openapi.yaml: there is no type in Python for {schema}")


def _line(text: str) -> str:
    """A description as a docstring of one line."""
    return " ".join(text.split()).replace("\\", r"\\").replace('"""', "'''")
