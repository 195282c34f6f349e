"""The import rules, rendered from what the tree has: who may import whom, by pattern and not by list.

Imports point one way. A service's folder is read from the outside in: api and events know the use cases, the
use cases know the model and their ports, and the model knows nothing that does I/O.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

from stoa_stack.instance import CHECKOUT
from stoa_tools.workspace import Member, members

# The parts, from those that see all others to the one that sees none; those of a line don't see each other.
LAYERS = (
    ("tests/*/stoa_*",),
    ("tools/stoa_tools",),
    ("ops/stoa_ops",),
    ("stack/stoa_stack",),
    ("services/*/stoa_*", "gateway/stoa_gateway", "stack/stoa_fakes"),
    ("libs/chassis/stoa_chassis",),
    ("libs/contracts/src/*",),
    ("libs/contracts/stoa_contracts",),
)
# The modules of a service from the outside in; a service has those that it needs.
_SERVICE_LAYERS = ("__main__", "api | events", "service", "repository | peers", "ports", "model")
# What a service decides and asks for, without any I/O.
_PURE = ("model", "read_model", "hot_set", "ports", "saga")
_USE_CASES = ("service", "ports", "saga")
_ADAPTERS = ("repository", "shared_read_model", "peers", "api", "events")

_OPERATORS, _STACK = "stoa_ops", "stoa_stack"
_TOLD_OF_ITSELF = "audit"  # the module of a service that is meant for operators' tools

_DRIVERS = (
    "aiohttp", "aiosmtplib", "asyncpg", "botocore", "bson", "confluent_kafka", "fastavro", "httpx",
    "opensearchpy", "pymongo", "redis",
)  # fmt: skip
_PROTOCOL = ("google", "grpc", "stoa")


def rules(checkout: Path = CHECKOUT) -> str:
    """The configuration of import-linter; raises ValueError for a package that stands in no layer."""
    found = members(checkout)
    services = [module for member in found if member.is_service for module in member.modules]
    inside = {
        service: _modules(checkout / member.folder / service)
        for member in found
        if member.is_service
        for service in member.modules
    }
    roots = [module for member in found for module in member.modules]
    sections = [
        _section("importlinter", root_packages=roots, include_external_packages="True"),
        _contract("services", "Services never import each other", "independence", modules=services),
        _contract("parts", "A part imports only what stands below it", "layers", layers=_layers(found)),
        _contract(
            "service",
            "api and events call the use cases, the use cases decide in the model",
            "layers",
            containers=services,
            layers=[_optional(layer) for layer in _SERVICE_LAYERS],
        ),
        _contract(
            "pure",
            "Models and ports do no I/O",
            "forbidden",
            source_modules=_those_of(inside, _PURE),
            forbidden_modules=[*_DRIVERS, *_PROTOCOL],
        ),
        _contract(
            "use-cases",
            "Use cases know their ports, not what is behind them",
            "forbidden",
            source_modules=_those_of(inside, _USE_CASES),
            forbidden_modules=[*_those_of(inside, _ADAPTERS), *_DRIVERS, *_PROTOCOL],
            allow_indirect_imports="True",
        ),
    ]
    if _OPERATORS in roots:
        sections += _of_operators(inside)
    return "\n".join(sections)


def _modules(package: Path) -> set[str]:
    """The names of a package's modules; one may be a folder."""
    folders = (path.parent.name for path in package.glob("*/__init__.py"))
    return {*(path.stem for path in package.glob("*.py")), *folders}


def _of_operators(inside: Mapping[str, set[str]]) -> list[str]:
    """The rules for operators' tools, which run beside neither the services nor the local stack."""
    others = [
        f"{service}.{name}" for service, has in inside.items() for name in has - {"__init__", _TOLD_OF_ITSELF}
    ]
    return [
        _contract(
            "operators-services",
            "Operators' tools know nothing of a service but its audit module",
            "forbidden",
            source_modules=[_OPERATORS],
            forbidden_modules=sorted(others),
            allow_indirect_imports="True",
        ),
        _contract(
            "operators-stack",
            "Operators' tools work without the local stack",
            "forbidden",
            source_modules=[_OPERATORS],
            forbidden_modules=[_STACK],
            ignore_imports=[f"{_OPERATORS}.local -> {_STACK}.*"],
            unmatched_ignore_imports_alerting="none",
        ),
    ]


def _layers(found: Iterable[Member]) -> list[str]:
    lines: list[list[str]] = [[] for _ in LAYERS]
    for member in found:
        for package in member.packages:
            place = str(member.folder / package)
            if not package.name.startswith("stoa_"):
                continue
            lines[_layer_of(place)].append(package.name)
    return [" | ".join(line) for line in lines if line]


def _layer_of(place: str) -> int:
    for number, patterns in enumerate(LAYERS):
        if any(fnmatch(place, pattern) for pattern in patterns):
            return number
    raise ValueError(f"{place} stands in no layer: say in {__name__}.LAYERS who may import it")


def _optional(layer: str) -> str:
    return " | ".join(f"({module})" for module in layer.split(" | "))


def _those_of(inside: Mapping[str, set[str]], names: Iterable[str]) -> list[str]:
    return [f"{service}.{name}" for service, has in inside.items() for name in names if name in has]


def _contract(key: str, name: str, kind: str, **values: str | Sequence[str]) -> str:
    return _section(f"importlinter:contract:{key}", name=name, type=kind, **values)


def _section(title: str, **values: str | Sequence[str]) -> str:
    lines = [f"[{title}]"]
    for key, value in values.items():
        text = value if isinstance(value, str) else "".join(f"\n    {item}" for item in value)
        lines.append(f"{key} = {text}")
    return "\n".join([*lines, ""])


def main() -> int:
    """Check the checkout's imports against the rules; returns the exit code."""
    with TemporaryDirectory() as folder:
        config = Path(folder) / "importlinter.ini"
        config.write_text(rules())
        linter = Path(sys.executable).with_name("lint-imports")
        done = subprocess.run(
            [str(linter), "--no-logo", "--no-cache", "--config", str(config)], cwd=CHECKOUT, check=False
        )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
