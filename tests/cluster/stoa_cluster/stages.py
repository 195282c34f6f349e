"""The stages of the proof, in their order, and what a stage is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from stoa_cluster.installation import Installation

Figures: TypeAlias = dict[str, Any]
"""What a stage has measured, by what it is called in the report; kept whether or not the stage succeeds."""


class NotProven(Exception):
    """What a stage should prove does not hold; the message says what was seen instead."""


class Skipped(Exception):
    """A stage can't be run on this cluster; the message says what it lacks."""


def prove(holds: object, otherwise: str) -> None:
    """Raise NotProven unless something holds."""
    if not holds:
        raise NotProven(otherwise)


@dataclass(frozen=True)
class Stage:
    """One thing that is proven. `run` writes its figures down as it goes; raises NotProven, Skipped."""

    name: str
    what: str
    run: Callable[[Installation, Figures], Awaitable[None]]
