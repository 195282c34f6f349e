"""Domain errors: what a use case raises when it can't do what was asked.

They know the gRPC code that they map to, but nothing of gRPC, so that a model may raise them. The mapping to
`google.rpc.Status` lives in `status.py`, in one place.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Self, TypeVar
from uuid import UUID

from stoa_contracts.money import Money

T = TypeVar("T")

# So many wrong fields a message tells; the violations name more.
_MOST_TOLD = 5
_LONGEST_KEY = 64  # characters


class Code(Enum):
    """The canonical codes, named and numbered as in `google.rpc.Code`."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that is wrong, named by its path in the request, and why."""

    field: str
    description: str


def subscript(key: object) -> str:
    """Write which element of a field is meant, as in `[0]` or `["color"]`; a long name is cut."""
    if not isinstance(key, str):
        return f"[{key}]"
    return f'["{key}"]' if len(key) <= _LONGEST_KEY else f'["{key[:_LONGEST_KEY]}…"]'


class DomainError(Exception):
    """Base of all errors that a caller may see.

    A service declares each of its own once, as a subclass of one of the ready-made bases below, with its
    `reason`. `metadata` names the things concerned (ids, amounts), never secrets: the caller gets it.
    `unnamed` is how many fields are wrong beyond those that `violations` name.
    """

    code: Code = Code.UNKNOWN
    reason: str = "UNKNOWN"
    domain: str = "stoa"

    def __init__(
        self,
        message: str = "",
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        self.message = message or self.reason.replace("_", " ").lower()
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations: tuple[FieldViolation, ...] = tuple(violations)
        self.unnamed = 0
        self.retry_after = retry_after
        super().__init__(self.message)

    def rename_fields(self, rename: Callable[[str], str]) -> None:
        """Give the wrong fields the names that they have where the error is answered."""
        self.violations = tuple(
            FieldViolation(rename(violation.field), violation.description) for violation in self.violations
        )


class NotFound(DomainError):
    """The thing does not exist, or the caller may not know that it does."""

    code = Code.NOT_FOUND
    reason = "NOT_FOUND"


class AlreadyExists(DomainError):
    """The thing that was to be created is there already."""

    code = Code.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class InvalidArgument(DomainError):
    """A field of the request is wrong whatever the state of the system."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"

    def __init__(self, field: str, description: str) -> None:
        violations = (FieldViolation(field, description),)
        super().__init__(_told(violations), violations=violations)

    @classmethod
    def of(cls, violations: Iterable[FieldViolation], unnamed: int = 0) -> Self:
        """Make one error of several violations (at least one)."""
        first, *others = violations
        error = cls(first.field, first.description)
        error.unnamed = unnamed
        error._tell((first, *others))
        return error

    def rename_fields(self, rename: Callable[[str], str]) -> None:
        """Give the wrong fields the names that they have where the error is answered."""
        super().rename_fields(rename)
        self._tell(self.violations)

    def _tell(self, violations: tuple[FieldViolation, ...]) -> None:
        self.violations = violations
        self.message = _told(violations, self.unnamed)
        self.args = (self.message,)


class RequestIdReused(AlreadyExists):
    """An idempotency key came again with another request; `violations` name the fields that differ."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, differing: Iterable[FieldViolation], key: str = "request_id") -> None:
        violations = tuple(differing)
        what = "; ".join(f"{each.field} {each.description}" for each in violations)
        super().__init__(
            f"this {key} was used for another request: {what}. A new request needs a new {key}",
            violations=violations,
        )


def check_same_request(first: T, again: T, key: str = "request_id") -> None:
    """Make sure that an idempotency key comes again with what it first came with, field by field.

    The two are values (dataclasses) of what was asked for, with the names that the request's fields have;
    `key` is the name of the field that is the key. Raises RequestIdReused.
    """
    if differing := tuple(differences(first, again)):
        raise RequestIdReused(differing, key)


def differences(first: object, again: object, path: str = "") -> Iterator[FieldViolation]:
    """Say of each field in which two values (dataclasses, or what these hold) differ what it was and is."""
    if first == again:
        return
    if isinstance(first, _TOLD) and isinstance(again, _TOLD):
        yield FieldViolation(path, f"was {_said(first)} the first time, now it is {_said(again)}")
    elif is_dataclass(first) and type(first) is type(again):
        for part in fields(first):
            name = f"{path}.{part.name}" if path else part.name
            yield from differences(getattr(first, part.name), getattr(again, part.name), name)
    else:
        yield FieldViolation(path, "is not what it was the first time")


# A text may be personal or secret, and who sends a key again need not be who sent it first.
_TOLD = (int, Decimal, UUID, Money, NoneType)


def _said(value: object) -> str:
    return "left out" if value is None else str(value)


class FailedPrecondition(DomainError):
    """The system is not in the state that the request needs; retrying alone won't help."""

    code = Code.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class PermissionDenied(DomainError):
    """The caller is known and may not do this."""

    code = Code.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class Unauthenticated(DomainError):
    """The caller is not known: no credentials, or none that are valid."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class Aborted(DomainError):
    """Somebody else changed the thing meanwhile; read again and retry."""

    code = Code.ABORTED
    reason = "ABORTED"


class Unavailable(DomainError):
    """Something that is needed is down for now; the same request may succeed later."""

    code = Code.UNAVAILABLE
    reason = "UNAVAILABLE"


class ResourceExhausted(DomainError):
    """A quota or a capacity is used up; `retry_after` says when to come back."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class RemoteError(DomainError):
    """Another service refused or failed a call: its code, reason, metadata and violations, as it sent them.

    A use case catches it and decides by `reason`. One that nobody catches is answered to our own caller (see
    `status.py`).
    """

    def __init__(
        self,
        target: str,
        method: str,
        code: Code,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        self.target = target
        self.method = method
        self.code = code
        self.reason = reason
        super().__init__(message, metadata=metadata, violations=violations, retry_after=retry_after)


def _told(violations: Sequence[FieldViolation], unnamed: int = 0) -> str:
    """Say what is wrong in one line."""
    told = "; ".join(
        f"{violation.field}: {violation.description}" if violation.field else violation.description
        for violation in violations[:_MOST_TOLD]
    )
    more = max(0, len(violations) - _MOST_TOLD) + unnamed
    return f"{told}; and {more} more" if more else told
