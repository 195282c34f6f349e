"""The import rules follow from the tree."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stoa_tools.imports import rules

ROOT = """
[tool.uv.workspace]
members = ["services/*", "ops", "stack", "sdk/*"]
"""
MEMBER = """
[project]
name = "stoa-{name}"

[tool.hatch.build.targets.wheel]
packages = ["stoa_{name}"]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(ROOT)
    for name in ("ferry", "harbour"):
        add_member(tmp_path / "services", name)
    return tmp_path


def add_member(below: Path, name: str) -> None:
    package = below / name / f"stoa_{name}"
    package.mkdir(parents=True)
    (below / name / "pyproject.toml").write_text(MEMBER.format(name=name))
    for module in ("__init__", "__main__", "api", "service", "ports", "repository", "model"):
        (package / f"{module}.py").touch()


def broken(checkout: Path) -> str:
    """What import-linter says of the checkout, nothing if all rules are kept."""
    config = checkout / "rules.ini"
    config.write_text(rules(checkout))
    folders = [*checkout.glob("services/*/"), *checkout.glob("*/")]
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache", "--config", config],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        cwd=checkout, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout if done.returncode else ""


def test_a_service_like_the_others_keeps_the_rules_without_being_named(checkout: Path) -> None:
    package = checkout / "services/ferry/stoa_ferry"
    (package / "__main__.py").write_text("from stoa_ferry import api, repository\n")
    (package / "api.py").write_text("import grpc\nfrom stoa_ferry import service\n")
    (package / "service.py").write_text("from stoa_ferry import model, ports\n")
    (package / "repository.py").write_text("import asyncpg\nfrom stoa_ferry import ports\n")
    assert broken(checkout) == ""


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("api", "import stoa_harbour"),
        ("model", "import asyncpg"),
        ("model", "from stoa.order.v1 import order_pb2"),
        ("ports", "import grpc"),
        ("service", "import httpx"),
        ("service", "from stoa_ferry import repository"),
        ("service", "from stoa_ferry import api"),
        ("repository", "from stoa_ferry import service"),
    ],
)
def test_a_service_that_breaks_a_rule_is_named(checkout: Path, module: str, line: str) -> None:
    (checkout / f"services/ferry/stoa_ferry/{module}.py").write_text(f"{line}\n")
    assert f"stoa_ferry.{module} -> " in broken(checkout)


@pytest.mark.parametrize(
    ("module", "line", "kept"),
    [
        ("model", "from stoa_ferry import audit", True),
        ("model", "from stoa_ferry import repository", False),
        ("local", "from stoa_stack import model", True),
        ("model", "from stoa_stack import model", False),
    ],
)
def test_operators_tools_know_of_services_their_audit_and_of_the_stack_nothing(
    checkout: Path, module: str, line: str, kept: bool
) -> None:
    (checkout / "services/ferry/stoa_ferry/audit.py").touch()
    for name in ("ops", "stack"):
        add_member(checkout, name)
    (checkout / "ops/stoa_ops/local.py").touch()
    (checkout / f"ops/stoa_ops/{module}.py").write_text(f"{line}\n")
    assert (f"stoa_ops.{module} -> " not in broken(checkout)) is kept


def test_a_new_kind_of_part_needs_a_place(checkout: Path) -> None:
    add_member(checkout / "sdk", "partner")
    with pytest.raises(ValueError, match="sdk/partner/stoa_partner stands in no layer"):
        rules(checkout)


def test_a_folder_without_a_pyproject_is_no_service(checkout: Path) -> None:
    (checkout / "services/left_behind/stoa_left_behind").mkdir(parents=True)
    assert "left_behind" not in rules(checkout)
