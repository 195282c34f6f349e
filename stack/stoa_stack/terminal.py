"""Where commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """Return the terminal, or the file or pipe in its place, which has no edge to break a table at."""
    from rich.console import Console

    found = Console(highlight=False)
    if not found.is_terminal:
        found.width = 200
    return found
