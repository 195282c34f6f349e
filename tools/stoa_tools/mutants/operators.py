"""The mutants of a module: its source with one small change each, of the kinds that are made by mistake.

After DeMillo, Lipton and Sayward, "Hints on Test Data Selection" (1978), with what goes wrong in Python's own
ways: two keywords of one type swapped, a field taken for its neighbour, a default forgotten. What is no
behaviour stays as it is: annotations, decorators, docstrings, logging, and the wording of messages.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import pairwise

_ORDER: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitAnd,
}
_NAMES = {
    "any": "all",
    "all": "any",
    "min": "max",
    "max": "min",
    "sorted": "list",
    "reversed": "list",
    "ROUND_HALF_UP": "'ROUND_HALF_DOWN'",
    "bisect_left": "bisect_right",
}
_METHODS = {
    "lower": "upper",
    "upper": "lower",
    "startswith": "endswith",
    "endswith": "startswith",
    "partition": "rpartition",
}
# Calls of which no part says how the shop behaves, and a keyword that only guards against a bug.
_NO_BEHAVIOUR = ("_log", "TypeVar", "get_logger")
_GUARDS = ("strict",)
_ATOMS = (ast.Name, ast.Attribute, ast.Call, ast.Constant, ast.Subscript)


@dataclass(frozen=True)
class Mutant:
    """A change of a module's source: the bytes from `start` to `end` become `after`.

    `line` is the source line where it begins, `number` its number; `function` is the outermost function
    around it by its qualified name, "" if it is in none: then it is done when the module is imported.
    """

    start: int
    end: int
    before: str
    after: str
    line: str
    number: int
    function: str

    def applied(self, source: str) -> str:
        """The source with the change."""
        raw = source.encode()
        return (raw[: self.start] + self.after.encode() + raw[self.end :]).decode()


def mutants_of(source: str) -> Sequence[Mutant]:
    """All mutants of a module, in the order of its text; each of them can be compiled."""
    found = {(m.start, m.end, m.after): m for m in _Module(source).mutants()}
    return [found[key] for key in sorted(found) if _compiles(found[key].applied(source))]


def _compiles(source: str) -> bool:
    try:
        compile(source, "<mutant>", "exec")
    except SyntaxError:
        return False
    return True


class _Module:
    """One module: what its names are, and the changes that can be made."""

    def __init__(self, source: str) -> None:
        self._raw = source.encode()
        self._lines = source.splitlines()
        self._starts = [0]
        for line in self._raw.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._tree = ast.parse(source)
        self._enums: dict[str, list[str]] = {}
        self._fields: dict[str, str] = {}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.ClassDef):
                self._learn(node)

    def mutants(self) -> Iterator[Mutant]:
        yield from self._block(self._tree.body, "", "")

    def _learn(self, cls: ast.ClassDef) -> None:
        """Note the members of an enumeration, and which fields of a class are of one type."""
        if any(isinstance(base, ast.Name) and base.id.endswith("Enum") for base in cls.bases):
            members = [
                t.id
                for s in cls.body
                if isinstance(s, ast.Assign)
                for t in s.targets
                if isinstance(t, ast.Name)
            ]
            self._enums[cls.name] = members
        if any("dataclass" in ast.unparse(decorator) for decorator in cls.decorator_list):
            typed: dict[str, list[str]] = {}
            for statement in cls.body:
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    typed.setdefault(ast.unparse(statement.annotation), []).append(statement.target.id)
            for names in typed.values():
                if len(names) > 1:
                    for name, sibling in pairwise([*names, names[0]]):
                        self._fields.setdefault(name, sibling)

    # ------------------------------------------------------------------------------------------ statements

    def _block(
        self, body: Sequence[ast.stmt], function: str, within: str, depth: int = 0
    ) -> Iterator[Mutant]:
        for statement in body:
            yield from self._statement(statement, function, within, depth)

    def _statement(self, node: ast.stmt, function: str, within: str, depth: int) -> Iterator[Mutant]:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                qualified = f"{within}{node.name}"
                for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
                    yield from self._expression(default, function)
                yield from self._block(node.body, function or qualified, f"{qualified}.")
            case ast.ClassDef():
                if not any(ast.unparse(base).startswith(("Protocol", "NamedTuple")) for base in node.bases):
                    yield from self._block(node.body, function, f"{within}{node.name}.")
            case ast.Expr(ast.Constant()) | ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Global():
                return
            case ast.Expr(value):
                if not _is_no_behaviour(value):
                    if function:
                        yield self._mutant(node, "pass", function)
                    yield from self._expression(value, function)
            case ast.AnnAssign(target=target, value=value):
                if value is not None:
                    if not _is_name(target):
                        yield self._mutant(node, "pass", function)
                    yield from self._expression(value, function)
            case ast.Assign(targets=targets, value=value):
                if _is_no_behaviour(value):
                    return
                if not all(map(_is_name, targets)):
                    yield self._mutant(node, "pass", function)
                if not (not function and isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)):
                    yield from self._expression(value, function)
            case ast.AugAssign(target=target, op=op, value=value):
                yield self._mutant(node, "pass", function)
                if other := _ARITHMETIC.get(type(op)):
                    yield self._mutant(node, ast.unparse(ast.AugAssign(target, other(), value)), function)
                yield from self._expression(value, function)
            case ast.Return(value):
                yield from self._return(node, value, function, depth)
            case ast.Raise(exc=exc):
                yield self._mutant(node, "pass", function)
                if exc is not None:
                    yield from self._expression(exc, function)
            case ast.Continue() | ast.Break() | ast.Delete():
                yield self._mutant(node, "pass", function)
            case ast.If(test=test) | ast.While(test=test):
                if isinstance(test, ast.Name) and test.id == "TYPE_CHECKING":
                    return
                yield from self._condition(test, function)
                yield from self._block(node.body, function, within, depth + 1)
                yield from self._block(node.orelse, function, within, depth + 1)
            case _:
                yield from self._compound(node, function, within, depth)

    def _return(
        self, node: ast.Return, value: ast.expr | None, function: str, depth: int
    ) -> Iterator[Mutant]:
        if depth:
            yield self._mutant(node, "pass", function)
        if value is None or (isinstance(value, ast.Constant) and value.value is None):
            return
        if isinstance(value, ast.BoolOp):
            yield self._mutant(value, f"not ({ast.unparse(value)})", function)
        elif not _is_condition(value):
            yield self._mutant(node, "return None", function)
        yield from self._expression(value, function)

    def _compound(self, node: ast.AST, function: str, within: str, depth: int) -> Iterator[Mutant]:
        """What is in a statement, or in a part of one, that is not changed itself."""
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.stmt():
                    yield from self._statement(child, function, within, depth + 1)
                case ast.expr():
                    yield from self._expression(child, function)
                case ast.match_case() | ast.ExceptHandler() | ast.withitem():
                    yield from self._compound(child, function, within, depth)

    # ----------------------------------------------------------------------------------------- expressions

    def _condition(self, test: ast.expr, function: str) -> Iterator[Mutant]:
        if not isinstance(test, ast.Compare) and not _is_not(test):
            yield self._mutant(test, f"not ({ast.unparse(test)})", function)
        yield from self._expression(test, function)

    def _expression(self, node: ast.expr, function: str) -> Iterator[Mutant]:
        for after in self._changed(node):
            yield self._mutant(node, after, function)
        match node:
            case ast.JoinedStr():  # where its parts begin is not known before Python 3.12
                return
            case ast.Call() if _is_no_behaviour(node):
                return
            case ast.Lambda(body=body):
                yield from self._expression(body, function)
                return
            case ast.IfExp(test=test):
                yield from self._condition(test, function)
                yield from self._expression(node.body, function)
                yield from self._expression(node.orelse, function)
                return
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.expr():
                    yield from self._expression(child, function)
                case ast.keyword(arg=name, value=value) if name not in _GUARDS:
                    yield from self._expression(value, function)
                case ast.comprehension(iter=iterable, ifs=ifs):
                    yield from self._expression(iterable, function)
                    for test in ifs:
                        yield from self._condition(test, function)

    def _changed(self, node: ast.expr) -> Iterator[str]:
        """The texts that may stand in the place of an expression."""
        match node:
            case ast.Compare(left, [op], [right]):
                for other in _ORDER[type(op)]:
                    yield ast.unparse(ast.Compare(left, [other()], [right]))
            case ast.Compare(left, ops, rights):
                for at, op in enumerate(ops):
                    for other in _ORDER[type(op)]:
                        changed: list[ast.cmpop] = [*ops[:at], other(), *ops[at + 1 :]]
                        yield ast.unparse(ast.Compare(left, changed, rights))
            case ast.BoolOp(op, values):
                other_op = ast.Or() if isinstance(op, ast.And) else ast.And()
                yield _bracketed(ast.BoolOp(other_op, values))
                for at in range(len(values)):
                    rest = [*values[:at], *values[at + 1 :]]
                    yield _bracketed(ast.BoolOp(op, rest) if len(rest) > 1 else rest[0])
            case ast.BinOp(left, op, right):
                if operator := _ARITHMETIC.get(type(op)):
                    yield _bracketed(ast.BinOp(left, operator(), right))
            case ast.UnaryOp(ast.Not() | ast.USub(), operand):
                yield _bracketed(operand)
            case ast.Constant(value):
                yield from _other_constants(value)
            case ast.Name(name):
                if name in _NAMES:
                    yield _NAMES[name]
            case ast.Attribute(value, name):
                yield from self._siblings(value, name)
            case ast.Call():
                yield from _other_calls(node)

    def _siblings(self, value: ast.expr, name: str) -> Iterator[str]:
        """A field's neighbour of the same type, or an enumeration's next member."""
        if isinstance(value, ast.Name) and name in (members := self._enums.get(value.id, [])):
            yield f"{value.id}.{members[(members.index(name) + 1) % len(members)]}"
        elif name in self._fields:
            yield f"{ast.unparse(value)}.{self._fields[name]}"
        elif name in _METHODS:
            yield f"{ast.unparse(value)}.{_METHODS[name]}"

    def _mutant(self, node: ast.stmt | ast.expr, after: str, function: str) -> Mutant:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[node.end_lineno - 1] + node.end_col_offset
        before = self._raw[start:end].decode()
        line = self._lines[node.lineno - 1].strip()
        return Mutant(start, end, before, after, line, node.lineno, function)


def _other_constants(value: object) -> Iterator[str]:
    match value:
        case bool():
            yield repr(not value)
        case int() | float():
            yield repr(value + 1)
        case str() if not any(map(str.isspace, value)):  # those with spaces are for people
            yield repr(_next_number(value) or f"{value}X")
        case bytes():
            yield repr(value + b"X")


def _next_number(text: str) -> str:
    try:
        return str(Decimal(text) + 1)
    except InvalidOperation:
        return ""


def _other_calls(call: ast.Call) -> Iterator[str]:
    """A call with two of its arguments swapped, or without one of its keywords."""
    if _is_no_behaviour(call):
        return
    for at, (one, two) in enumerate(pairwise(call.args)):
        if _look_alike(one, two):
            swapped = [*call.args[:at], two, one, *call.args[at + 2 :]]
            yield ast.unparse(ast.Call(call.func, swapped, call.keywords))
    for at, (this, next_) in enumerate(pairwise(call.keywords)):
        if this.arg and next_.arg and _look_alike(this.value, next_.value):
            pair = [ast.keyword(this.arg, next_.value), ast.keyword(next_.arg, this.value)]
            keywords = [*call.keywords[:at], *pair, *call.keywords[at + 2 :]]
            yield ast.unparse(ast.Call(call.func, call.args, keywords))
    for at, keyword in enumerate(call.keywords):
        if keyword.arg and keyword.arg not in _GUARDS:
            rest = [*call.keywords[:at], *call.keywords[at + 1 :]]
            yield ast.unparse(ast.Call(call.func, call.args, rest))


def _look_alike(one: ast.expr, two: ast.expr) -> bool:
    """Tell whether two arguments might be taken for each other, and are not the same."""
    kinds = (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.BinOp)
    alike = any(isinstance(one, kind) and isinstance(two, kind) for kind in kinds)
    return alike and ast.dump(one) != ast.dump(two)


def _bracketed(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if isinstance(node, _ATOMS) else f"({text})"


def _is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name)


def _is_not(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _is_condition(node: ast.expr) -> bool:
    return isinstance(node, ast.Compare) or _is_not(node)


def _is_no_behaviour(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[0] in _NO_BEHAVIOUR
