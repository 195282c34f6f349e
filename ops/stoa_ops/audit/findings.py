"""What an audit says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not balance: which rule, about what, and how to look further."""

    rule: str
    subject: str
    detail: str
    look: str
