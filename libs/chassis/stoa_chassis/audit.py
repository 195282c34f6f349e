"""What an audit says.

Each service reads its own books and knows its own rules (`audit.py`); `stoa audit` asks them all, and checks
what crosses services on what they hand over.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not balance: which rule, about what, what is wrong, and where to look further."""

    rule: str
    subject: str
    detail: str
    look: str
