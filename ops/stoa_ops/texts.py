"""How the operator's commands word things."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape


def terminal() -> Console:
    """Return the terminal, or the file or pipe in its place, which has no edge to break a table at."""
    found = Console(highlight=False)
    if not found.is_terminal:
        found.width = 200
    return found


def duration(seconds: float) -> str:
    """A length of time in one or two units: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole // 60 % 60} min"
    return f"{whole // 86400} d {whole // 3600 % 24} h"


def unreadable(console: Console, error: Exception) -> int:
    """Say that a store did not answer; returns the exit code for it."""
    console.print(f"[red]It could not be read:[/] {escape(str(error) or repr(error))}")
    return 2
