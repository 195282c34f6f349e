"""Typed Python for the events: events/<topic>.avsc → dataclasses."""

from pathlib import Path


def generate(schemas: Path, out: Path) -> None:
    """Write the package `out` for all schemas in the folder `schemas`."""
    out.mkdir(parents=True)
    (out / "__init__.py").write_text('"""Events."""\n')
