"""What a service's code calls and publishes, read from its source without running it."""

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

Methods = dict[str, dict[str, str]]
"""The RPCs of each stub class, by name: {"CatalogServiceStub": {"GetProduct": "stoa.catalog.v1.…"}}."""


class NotUnderstood(Exception):
    """The code uses something named like an RPC, and this module can't tell on which stub."""


def called(package: Path, methods: Methods) -> set[str]:
    """Return the full names of the RPCs that the modules of a package call. Raises NotUnderstood."""
    return {rpc for module in modules(package) for rpc in _calls(module, methods)}


def constructed(package: Path, classes: Collection[str]) -> set[str]:
    """Return which of these classes the modules of a package make objects of."""
    return {
        node.func.id
        for module in modules(package)
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in classes
    }


def refusals(package: Path, errors: Collection[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Yield what the modules of a package say in errors of these classes, as far as it is written out.

    That is the field that is wrong, if one is named, and the texts, without the values in them.
    """
    for module in modules(package):
        for call in _made(module, errors):
            names_a_field = ast.unparse(call.func) in ("InvalidArgument", "FieldViolation")
            field = call.args[0] if names_a_field else None
            named = next(_texts(field), None) if isinstance(field, ast.Constant) else None
            yield named, [text for word in call.args[names_a_field:] for text in _texts(word)]


def _texts(expression: ast.expr) -> Iterator[str]:
    for node in ast.walk(expression):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _made(module: ast.Module, classes: Collection[str]) -> Iterator[ast.Call]:
    """The calls that make objects of some classes, from within these too."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in classes:
            yield node
        if isinstance(node, ast.ClassDef) and node.name in classes:
            inside = (each for each in ast.walk(node) if isinstance(each, ast.Call))
            yield from (each for each in inside if ast.unparse(each.func) in ("cls", "super().__init__"))


def modules(package: Path) -> Iterator[ast.Module]:
    """Yield the modules of a package, parsed. `testing.py` is none of what runs.

    It has examples for tests.
    """
    for path in sorted(set(package.rglob("*.py")) - {package / "testing.py"}):
        yield ast.parse(path.read_text(), str(path))


def _calls(module: ast.Module, methods: Methods) -> Iterator[str]:
    """The RPCs of a module: attributes of what is known to be a stub, by annotation or by how it is made."""
    names = {name for stub in methods.values() for name in stub}
    for scope in module.body:  # in a class, and in a function beside the classes, a name means one thing
        known = _known_stubs(scope, methods)
        for node in ast.walk(scope):
            if isinstance(node, ast.Attribute) and node.attr in names:
                stub = _stub_of(node.value, methods, known)
                if stub is None or node.attr not in methods[stub]:
                    raise NotUnderstood(f"{ast.unparse(node)} in line {node.lineno}")
                yield methods[stub][node.attr]


def _known_stubs(scope: ast.AST, methods: Methods) -> dict[str, str]:
    """The stub class of each name and attribute of a scope: `stub`, `self._stub`."""
    nodes = list(ast.walk(scope))
    annotated = [(node.arg, node.annotation) for node in nodes if isinstance(node, ast.arg)]
    annotated += [(ast.unparse(n.target), n.annotation) for n in nodes if isinstance(n, ast.AnnAssign)]
    known = {name: stub for name, type_ in annotated if type_ and (stub := _stub_named(type_, methods))}
    for node in nodes:
        if isinstance(node, ast.Assign) and (stub := _stub_of(node.value, methods, known)):
            known |= {ast.unparse(target): stub for target in node.targets}
    return known


def _stub_of(value: ast.expr, methods: Methods, known: dict[str, str]) -> str | None:
    if (stub := known.get(ast.unparse(value))) is not None:
        return stub
    if isinstance(value, ast.Call):  # CatalogServiceStub(channel), app.client(CatalogServiceStub, …)
        stubs = (_stub_named(part, methods) for part in (value.func, *value.args))
        return next((stub for stub in stubs if stub), None)
    return None


def _stub_named(value: ast.expr, methods: Methods) -> str | None:
    name = ast.unparse(value).strip("'\"").rpartition(".")[2]
    return name if name in methods else None
