"""Which errors mean that something we depend on is down, rather than that we or the caller are wrong.

A call that meets one is answered with UNAVAILABLE, and an event that meets one is tried again until it works.
Each adapter registers what its library raises, so that neither side has to import any store.
"""

from stoa_chassis.errors import Code, DomainError

_types: tuple[type[Exception], ...] = (ConnectionError, TimeoutError)
_CODES = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED})


def register_outage(*types: type[Exception]) -> None:
    """Count exceptions of these types as an outage from now on."""
    global _types
    _types = (*_types, *(new for new in types if new not in _types))


def is_outage(error: BaseException) -> bool:
    """Tell whether trying again later, with nothing changed, can be expected to work."""
    if isinstance(error, DomainError):
        return error.code in _CODES
    return isinstance(error, _types)
