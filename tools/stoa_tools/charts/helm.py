"""Helm, and the unit tests of charts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stoa_tools import programs


class HelmFailed(Exception):
    """Helm refused; the message has what it said."""


def pack(chart: Path) -> None:
    """Put the charts that a chart depends on into it. Raises HelmFailed."""
    _helm("dependency", "build", "--skip-refresh", str(chart))


def lint(chart: Path, files: Sequence[Path], namespace: str, values: Mapping[str, Any]) -> None:
    """Check a chart; warnings count. Raises HelmFailed."""
    _helm("lint", "--strict", "--quiet", "--namespace", namespace, *_given(files), str(chart), values=values)


def render(
    name: str, chart: Path, files: Sequence[Path], namespace: str, values: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Return the objects that a release would have. Raises HelmFailed."""
    text = _helm("template", name, str(chart), "--namespace", namespace, *_given(files), values=values)
    return [each for each in yaml.safe_load_all(text) if each]


def unit_tests(chart: Path, suites: Sequence[str]) -> str:
    """Run suites of helm-unittest, given by patterns below the chart, and return what it says.

    Raises HelmFailed.
    """
    files = [word for suite in suites for word in ("--file", suite)]
    return _run([programs.program("helm-unittest"), "--strict", *files, str(chart)])


def _given(files: Sequence[Path]) -> Iterator[str]:
    for file in (*files, "-"):
        yield from ("--values", str(file))


def _helm(*words: str, values: Mapping[str, Any] | None = None) -> str:
    return _run([programs.program("helm"), *words], json.dumps(values or {}))


def _run(command: Sequence[str | Path], given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HelmFailed((done.stdout + done.stderr).strip())
    return done.stdout
