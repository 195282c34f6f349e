"""Domain errors as `google.rpc.Status` with its standard details, and back.

ErrorInfo carries the reason for machines, BadRequest names each wrong field, RetryInfo says when to come
back. The edge turns the same status into JSON, so a browser sees what a service sees.
"""

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
    """Return the status of an error, with details."""
    status = status_pb2.Status(code=error.code.value, message=error.message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason, domain=error.domain, metadata=error.metadata)
    )
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad_request.field_violations.add(field=violation.field, description=violation.description)
        status.details.add().Pack(bad_request)
    retry_after = error.retry_after or (_RETRY_AFTER if error.code is Code.UNAVAILABLE else None)
    if retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(retry_after)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


async def abort(context: CallContext, error: DomainError) -> NoReturn:
    """End the call with the error's status. Raises grpc.aio.AbortError, as gRPC wants it."""
    details = to_status(error).SerializeToString()
    await context.abort(_GRPC_CODE[error.code], error.message, ((_DETAILS_KEY, details),))
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
