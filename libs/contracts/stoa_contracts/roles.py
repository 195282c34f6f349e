"""The roles of staff: what part of the work somebody does, as policies, tokens and accounts call it.

Whoever works in the shop has `STAFF` and one or more of `STAFF_ROLES`. A policy admits staff by them; `ADMIN`
may all that any staff may, and alone says who has which.
"""

STAFF = "staff"
ADMIN = "admin"
STAFF_ROLES = frozenset({"catalogue", "warehouse", "support", ADMIN})


def is_admitted(roles: frozenset[str], wanted: frozenset[str]) -> bool:
    """Tell whether somebody with these roles is staff of the wanted kind; of any kind, if none is named."""
    return STAFF in roles and (not wanted or ADMIN in roles or not wanted.isdisjoint(roles))
