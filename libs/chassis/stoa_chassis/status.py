"""Domain errors as `google.rpc.Status` with its standard details, and back.

ErrorInfo carries the reason for machines, BadRequest names each wrong field, RetryInfo says when to come
back. The edge turns the same status into JSON, so a browser sees what a service sees.

A status travels in headers, whose size is limited: a gRPC client may drop an answer with more than 8 kB of
them, and Envoy resets the connection for more than 60 kB, with the calls of everybody else on it. What an
error says can grow with what a client sends, so all of it is cut to size here, whichever error it is.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from stoa_chassis.errors import Code, DomainError, FieldViolation, RemoteError, Unavailable
from stoa_chassis.outages import is_outage

CallContext = grpc.aio.ServicerContext[Any, Any]
_Detail = TypeVar("_Detail", bound=Message)

_DETAILS_KEY = "grpc-status-details-bin"
_GRPC_CODE = {code: grpc.StatusCode[code.name] for code in Code}
_DOMAIN_CODE = {status: code for code, status in _GRPC_CODE.items()}
_RETRY_AFTER = timedelta(seconds=1)

# In bytes of UTF-8. Headers carry the message percent-encoded, in up to three times its size, and the status
# in base64, in 4/3 of it: together less than 7 kB.
_MAX_MESSAGE = 600
_MAX_STATUS = 3_600
_MAX_METADATA = 1_200
_MAX_KEY = 64  # as ErrorInfo has it
_MAX_FIELD = 150
_MAX_DESCRIPTION = 300
_ADDED = 4  # by protobuf, to each element of a list
_FRAME = 120  # what holds the violations together, and says how many more there are
_MAX_VIOLATIONS = 50
_ELLIPSIS = "…"

# What a peer answers when we called it wrongly. Our own caller did nothing wrong, so it is not told so.
_OUR_FAULT = frozenset(
    {Code.UNAUTHENTICATED, Code.UNIMPLEMENTED, Code.UNKNOWN, Code.INTERNAL, Code.DATA_LOSS}
)
_NOT_ADMITTED = frozenset({"SERVICE_NOT_ALLOWED", "PEER_UNKNOWN"})


def answer(error: Exception) -> DomainError:
    """Return what an exception is answered with: the domain error itself, an outage, or no detail."""
    if isinstance(error, RemoteError) and (error.code in _OUR_FAULT or error.reason in _NOT_ADMITTED):
        return Internal()
    if isinstance(error, DomainError):
        return error
    return DependencyDown() if is_outage(error) else Internal()


def to_status(error: DomainError) -> status_pb2.Status:
    """Return the status of an error, with details, of limited size whatever the error says."""
    status = status_pb2.Status(code=error.code.value, message=_shortened(error.message, _MAX_MESSAGE))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=error.domain)
    info.metadata.update(_some(error.metadata))
    status.details.add().Pack(info)
    retry_after = error.retry_after or (_RETRY_AFTER if error.code is Code.UNAVAILABLE else None)
    if retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(retry_after)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.violations:
        status.details.add().Pack(_bad_request(error, _MAX_STATUS - status.ByteSize()))
    return status


async def abort(context: CallContext, error: DomainError) -> NoReturn:
    """End the call with the error's status. Raises grpc.aio.AbortError, as gRPC wants it."""
    status = to_status(error)
    details = ((_DETAILS_KEY, status.SerializeToString()),)
    await context.abort(_GRPC_CODE[error.code], status.message, details)
    raise AssertionError("abort always raises")


def from_rpc_error(target: str, method: str, error: grpc.aio.AioRpcError) -> RemoteError:
    """Return what a peer answered; an error without details gets its code's name as the reason."""
    raw = next((value for key, value in error.trailing_metadata() or () if key == _DETAILS_KEY), b"")
    status = status_pb2.Status()
    try:
        status.MergeFromString(raw if isinstance(raw, bytes) else b"")
    except DecodeError:
        status.Clear()
    code = code_of(error.code())
    if code is Code.CANCELLED:  # not by us: the peer went away
        code = Code.UNAVAILABLE
    info = _detail(status, error_details_pb2.ErrorInfo) or error_details_pb2.ErrorInfo(reason=code.name)
    bad_request = _detail(status, error_details_pb2.BadRequest) or error_details_pb2.BadRequest()
    retry = _detail(status, error_details_pb2.RetryInfo)
    return RemoteError(
        target,
        method,
        code,
        info.reason,
        status.message or error.details() or code.name.lower(),
        metadata=dict(info.metadata),
        violations=[FieldViolation(v.field, v.description) for v in bad_request.field_violations],
        retry_after=retry.retry_delay.ToTimedelta() if retry else None,
    )


def code_of(status: grpc.StatusCode) -> Code:
    """Return our name of a gRPC status code."""
    return _DOMAIN_CODE[status]


def _bad_request(error: DomainError, room: int) -> error_details_pb2.BadRequest:
    """Name as many wrong fields as there is room for, in bytes, and say how many there are beyond."""
    bad_request = error_details_pb2.BadRequest()
    room -= _FRAME
    for violation in error.violations[:_MAX_VIOLATIONS]:
        named = bad_request.FieldViolation(
            field=_shortened(violation.field, _MAX_FIELD),
            description=_shortened(violation.description, _MAX_DESCRIPTION),
        )
        room -= named.ByteSize() + _ADDED
        if room < 0:
            break
        bad_request.field_violations.append(named)
    if more := len(error.violations) - len(bad_request.field_violations) + error.unnamed:
        bad_request.field_violations.add(description=f"and {more} more")
    return bad_request


def _some(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return as much of the metadata as there is room for, and under `omitted` how much is missing."""
    kept: dict[str, str] = {}
    room = _MAX_METADATA
    for key, value in metadata.items():
        key, value = _shortened(key, _MAX_KEY), _shortened(value, _MAX_METADATA - _MAX_KEY)
        room -= len(key.encode()) + len(value.encode())
        if room < 0:
            break
        kept[key] = value
    if more := len(metadata) - len(kept):
        kept["omitted"] = str(more)
    return kept


def _shortened(text: str, limit: int) -> str:
    """Return a text that takes no more than so many bytes; a cut shows as an ellipsis."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - len(_ELLIPSIS.encode())].decode(errors="ignore") + _ELLIPSIS


def _detail(status: status_pb2.Status, detail_type: type[_Detail]) -> _Detail | None:
    detail = detail_type()
    return next((detail for packed in status.details if packed.Unpack(detail)), None)


class Internal(DomainError):
    """Something is wrong with us; the log knows what, the caller needs not."""

    code = Code.INTERNAL
    reason = "INTERNAL"

    def __init__(self) -> None:
        super().__init__("internal error")


class DependencyDown(Unavailable):
    """A store or a server that the call needs does not answer."""

    reason = "DEPENDENCY_DOWN"

    def __init__(self) -> None:
        super().__init__("temporarily unavailable, please try again")
