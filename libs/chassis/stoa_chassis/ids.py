"""Ids of everything: UUIDv7, so that they sort by time and keep B-tree inserts at the right edge."""

import uuid

import uuid_utils


def new_id() -> uuid.UUID:
    """Return a new time-ordered id (RFC 9562 UUIDv7)."""
    return uuid.UUID(int=uuid_utils.uuid7().int)


def is_id(text: str) -> bool:
    """Tell whether a text is a UUID."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def same_id(one: str, other: str) -> bool:
    """Tell whether two texts name the same thing: as UUIDs, whose case says nothing (RFC 9562).

    Other texts, such as the names that another issuer gives its users, must be equal.
    """
    if one == other:
        return True
    try:
        return uuid.UUID(one) == uuid.UUID(other)
    except ValueError:
        return False
