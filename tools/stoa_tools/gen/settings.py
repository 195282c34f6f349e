"""What an operator can set of a service, as JSON Schema: its settings.py and the chassis's, read but not run.

They cannot be imported, since what they import needs what is being generated. A schema says what kind of text
a setting is; its bounds are the service's own, which does not start beyond them.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]

_CHASSIS = Path("libs/chassis/stoa_chassis/settings.py")
_CLASS = "Settings"
_NUMBER = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
_KINDS: Mapping[str, Schema] = {
    "bool": {"type": "string", "enum": ["true", "false"]},
    "int": {"type": "string", "pattern": "^-?[0-9]+$"},
    "float": _NUMBER,
    "Decimal": _NUMBER,
}


def settings(checkout: Path, service: str) -> Mapping[str, Schema]:
    """The settings of a service by name, those of the chassis included."""
    files = [checkout / "services" / service / f"stoa_{service}" / "settings.py", checkout / _CHASSIS]
    classes = {
        node.name: node
        for file in files
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    return {name: _schema(annotation) for name, annotation in sorted(_fields(classes, _CLASS))}


def _fields(classes: Mapping[str, ast.ClassDef], name: str) -> Iterator[tuple[str, ast.expr]]:
    """The names and annotations of a class and of those that it is made of."""
    for node in classes[name].body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.annotation
    for base in classes[name].bases:
        if isinstance(base, ast.Name) and base.id in classes:
            yield from _fields(classes, base.id)


def _schema(annotation: ast.expr) -> Schema:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        return {"type": "string", "enum": list(ast.literal_eval(annotation.slice))}
    return _KINDS.get(ast.unparse(annotation), {"type": "string"})
