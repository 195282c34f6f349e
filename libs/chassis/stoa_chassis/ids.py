"""Ids of everything: UUIDv7, so that they sort by time and keep B-tree inserts at the right edge."""

import uuid

import uuid_utils


def new_id() -> uuid.UUID:
    """Return a new time-ordered id (RFC 9562 UUIDv7)."""
    return uuid.UUID(int=uuid_utils.uuid7().int)
