"""What an operator can set of a service, as JSON Schema: its settings.py and the chassis's, read but not run.

They cannot be imported, since what they import needs what is being generated. A schema says what kind of text
a setting is; its bounds are the service's own, which does not start beyond them.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stoa_tools.gen.errors import GenerationFailed

Schema = Mapping[str, Any]

_CHASSIS = Path("libs/chassis/stoa_chassis/settings.py")
_CLASS, _PYDANTICS = "Settings", "BaseSettings"
_NUMBER = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
_KINDS: Mapping[str, Schema] = {
    "bool": {"type": "string", "enum": ["true", "false"]},
    "int": {"type": "string", "pattern": "^-?[0-9]+$"},
    "float": _NUMBER,
    "Decimal": _NUMBER,
}


def settings(checkout: Path, service: str) -> Mapping[str, Schema]:
    """The settings of a service by name, those of the chassis included; secrets (`repr=False`) are left out.

    Raises GenerationFailed for a class that they are made of and that is in neither file.
    """
    files = [checkout / "services" / service / f"stoa_{service}" / "settings.py", checkout / _CHASSIS]
    classes = {
        node.name: node
        for file in files
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    fields = sorted(_fields(classes, _CLASS).items())
    return {name: _schema(node.annotation) for name, node in fields if not _is_secret(node)}


def _fields(classes: Mapping[str, ast.ClassDef], name: str) -> dict[str, ast.AnnAssign]:
    """The fields of a class, those of the classes that it is made of included."""
    inherited: dict[str, ast.AnnAssign] = {}
    for base in map(ast.unparse, reversed(classes[name].bases)):
        if base in classes:
            inherited |= _fields(classes, base)
        elif base != _PYDANTICS:
            raise GenerationFailed(f"settings of {base} can't be read: it is neither here nor in the chassis")
    return inherited | {
        node.target.id: node
        for node in classes[name].body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _is_secret(field: ast.AnnAssign) -> bool:
    """Whether its value is kept out of what is printed: it is declared as `Field(…, repr=False)`."""
    options = field.value.keywords if isinstance(field.value, ast.Call) else []
    return any(option.arg == "repr" and ast.unparse(option.value) == "False" for option in options)


def _schema(annotation: ast.expr) -> Schema:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        words = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        return {"type": "string", "enum": [ast.literal_eval(word) for word in words]}
    return _KINDS.get(ast.unparse(annotation), {"type": "string"})
