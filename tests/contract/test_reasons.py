"""The reasons by which clients tell refusals apart: each is one error's, and some test knows it."""

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from stoa_chassis import errors
from stoa_chassis.errors import DomainError, RemoteError
from stoa_stack.instance import CHECKOUT
from stoa_tools import workspace

_PACKAGES = {
    package.name: CHECKOUT / member.folder / package
    for member in workspace.members()
    for package in member.packages
    if member.is_service or member.folder.parts[0] == "libs"
}


def _refusals() -> dict[str, type[DomainError]]:
    """All domain errors of the services and the libraries, by the names of their classes."""
    for name, folder in _PACKAGES.items():
        for path in folder.glob("*.py"):
            if re.search(r"^class \w+\(\w+\):", path.read_text(), re.MULTILINE) and path.stem != "__main__":
                import_module(f"{name}.{path.stem}")
    found = [kind for kind in _below(DomainError) if kind.__module__.split(".")[0] in _PACKAGES]
    return {f"{kind.__module__}.{kind.__name__}": kind for kind in found if kind is not RemoteError}


def _below(kind: type[DomainError]) -> Iterator[type[DomainError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


REFUSALS = _refusals()


@cache
def _text_of_tests() -> str:
    folders = [CHECKOUT / "tests", *CHECKOUT.glob("libs/*/tests"), *CHECKOUT.glob("services/*/tests")]
    files = (path for folder in folders for path in folder.rglob("*.py") if path != Path(__file__))
    return "\n".join(path.read_text() for path in files)


@cache
def _text_of_sources() -> str:
    return "\n".join(path.read_text() for folder in _PACKAGES.values() for path in folder.rglob("*.py"))


def test_a_reason_is_one_error_s_alone() -> None:
    reasons = [kind.reason for kind in REFUSALS.values()]
    assert sorted(reasons) == sorted(set(reasons))
    assert all("reason" in vars(kind) for kind in REFUSALS.values())
    assert all(re.fullmatch(r"[A-Z][A-Z_]*[A-Z]", reason) for reason in reasons)


@pytest.mark.parametrize("name", REFUSALS)
def test_some_test_knows_each_reason(name: str) -> None:
    """Whoever renames a reason breaks the clients that decide by it, and should be told so by a test."""
    assert f'"{REFUSALS[name].reason}"' in _text_of_tests()


@pytest.mark.parametrize(
    "name", [name for name, kind in REFUSALS.items() if kind.__module__ != errors.__name__]
)
def test_some_code_makes_each_refusal(name: str) -> None:
    kind = REFUSALS[name].__name__
    assert re.search(rf"(?<!class )\b{kind}(\.\w+)?\(", _text_of_sources())
