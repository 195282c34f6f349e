"""What stands beside the services names none of them: it follows from their declarations."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoa_services import SERVICES
from stoa_stack.instance import CHECKOUT

MODULES = sorted((CHECKOUT / "infra" / "aws" / "stoa_aws").glob("*.py"))
OTHERS = {"search", "user"}  # an engine and people have these names too


def texts(module: Path) -> Iterator[str]:
    """The texts of a module without its docstrings: `"order"`, and the parts of `f"stoa/{name}/order"`."""
    tree = ast.parse(module.read_text())
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


@pytest.mark.parametrize("module", MODULES, ids=[module.stem for module in MODULES])
def test_infrastructure_names_no_service(module: Path) -> None:
    names = [text for text in texts(module) if " " not in text]  # else it is prose
    assert not {word for name in names for word in re.findall(r"\w+", name)} & SERVICES.keys() - OTHERS


def test_infrastructure_reads_the_declarations() -> None:
    assert any("from stoa_services import SERVICES" in module.read_text() for module in MODULES)
