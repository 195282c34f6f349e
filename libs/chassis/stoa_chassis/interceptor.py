"""What happens around every call, in one place and in this order.

Request context (correlation id, deadline, span) → metrics and access log → errors → load limit → who is
calling → the request (parsed, checked) → the servicer. All that depends only on the method is worked out when
the server starts, so a method that can't be served as declared is found then, and a call pays little.

It wraps the handlers themselves rather than being a `grpc.aio.ServerInterceptor`: a handler gets the raw
message, so that nonsense bytes are the client's error (gRPC would answer INTERNAL), and a call that is
refused is never parsed.
"""

import asyncio
import inspect
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry import context as otel_context
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

from stoa_chassis import context, telemetry
from stoa_chassis.auth import Authorizer, ContractError, Policy, Principal, check_request
from stoa_chassis.errors import Code, DomainError, InvalidArgument, ResourceExhausted
from stoa_chassis.ids import new_id
from stoa_chassis.status import CallContext, abort, answer, code_of
from stoa_chassis.validation import RequestCheck
from stoa_chassis.wording import as_sent

_log = telemetry.get_logger("stoa_chassis.rpc")
_SANE_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


class Overloaded(ResourceExhausted):
    """More calls are running than this server can answer in time."""

    reason = "OVERLOADED"


class DeadlinePassed(DomainError):
    """The caller has stopped waiting before the work began."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class Interceptor:
    """Wraps the handlers of a server; counts what runs in all of them."""

    def __init__(self, authorizer: Authorizer, max_concurrent_rpcs: int, *, partial: bool = False) -> None:
        """Refuse calls above `max_concurrent_rpcs`; `partial` lets a fake leave methods out."""
        self.authorizer = authorizer
        self._partial = partial
        self.limit = max_concurrent_rpcs
        self.running = 0

    def wrap(self, method: MethodDescriptor, handler: "grpc.RpcMethodHandler[Any, Any]") -> Any:
        """Return the handler with everything around it. Raises ContractError if it can't be served so."""
        if handler.request_streaming:
            raise ContractError(f"{method.full_name}: streams from a client are not supported")
        contract = _Contract(method)
        if handler.response_streaming:
            behavior = handler.unary_stream
            if not inspect.isasyncgenfunction(behavior):
                behavior = self._missing(method, _missing_stream, "an async generator")
            return grpc.unary_stream_rpc_method_handler(self._stream(contract, behavior))
        behavior = handler.unary_unary
        if not inspect.iscoroutinefunction(behavior):
            behavior = self._missing(method, _missing, "a coroutine")
        return grpc.unary_unary_rpc_method_handler(self._unary(contract, behavior))

    def _missing(
        self, method: MethodDescriptor, stand_in: Callable[..., Any], kind: str
    ) -> Callable[..., Any]:
        if not self._partial:
            raise ContractError(f"{method.full_name} is not implemented as {kind}")
        return stand_in

    def _unary(self, contract: "_Contract", behavior: Callable[..., Any]) -> Any:
        async def handle(message: bytes, context: CallContext) -> bytes:
            async with _Call(self, contract, context) as call:
                response: Message = await behavior(await call.accept(message), context)
                return response.SerializeToString()

        return handle

    def _stream(self, contract: "_Contract", behavior: Callable[..., Any]) -> Any:
        async def handle(message: bytes, context: CallContext) -> AsyncIterator[bytes]:
            async with _Call(self, contract, context) as call:
                async for response in behavior(await call.accept(message), context):
                    yield response.SerializeToString()

        return handle


class _Contract:
    """What is known of a method before any call."""

    def __init__(self, method: MethodDescriptor) -> None:
        self.name = f"/{method.containing_service.full_name}/{method.name}"
        self.policy = Policy.of(method)
        self.request_type: type[Message] = GetMessageClass(method.input_type)
        self.check = RequestCheck(self.request_type)
        options = method.GetOptions()
        self.reads = options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS
        self.body: str = options.Extensions[annotations_pb2.http].body

    def count(self, code: str, seconds: float) -> None:
        """Count one answered call."""
        telemetry.labelled(telemetry.RPC_HANDLED, self.name, code).inc()
        telemetry.labelled(telemetry.RPC_SECONDS, self.name, code).observe(seconds)


class _Call:
    """One call, from arrival to answer.

    gRPC runs each call in a task of its own, so what is bound here ends with the call without being reset.
    """

    def __init__(self, server: Interceptor, contract: _Contract, grpc_context: CallContext) -> None:
        self._server = server
        self._contract = contract
        self._context = grpc_context
        self._started = time.perf_counter()
        self._metadata: Mapping[str, Any] = dict(grpc_context.invocation_metadata() or ())
        self._principal: Principal | None = None

    async def __aenter__(self) -> Self:
        self._server.running += 1
        telemetry.RPC_IN_FLIGHT.inc()
        remaining = self._context.time_remaining()
        context.bind(
            _correlation_id(self._metadata), None if remaining is None else time.monotonic() + remaining
        )
        self._span = telemetry.start_span(self._contract.name[1:], SpanKind.SERVER, self._metadata)
        otel_context.attach(set_span_in_context(self._span))
        return self

    async def accept(self, message: bytes) -> Message:
        """Return the request if the call may go on. Raises the DomainError that refuses it."""
        contract = self._contract
        if self._server.running > self._server.limit:
            raise Overloaded("too many requests at once, please try again", retry_after=timedelta(seconds=1))
        if context.remaining() == 0:
            raise DeadlinePassed("the deadline passed before the call was started")
        principal = await self._server.authorizer.admit(contract.policy, self._context, self._metadata)
        self._principal = principal
        request = contract.request_type()
        try:
            request.ParseFromString(message)
        except DecodeError:
            raise InvalidArgument("", f"the request is not a {request.DESCRIPTOR.full_name}") from None
        check_request(contract.policy, principal, request)
        contract.check(request)
        return request

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        self._server.running -= 1
        telemetry.RPC_IN_FLIGHT.dec()
        if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            reply = answer(error)
            reply.rename_fields(partial(as_sent, body=self._contract.body))
            self._finish(reply.code, reply, error)
            await abort(self._context, reply)
        self._finish(self._code_without_error(error))

    def _code_without_error(self, error: BaseException | None) -> Code:
        if error is None:
            return Code.OK
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            return Code.DEADLINE_EXCEEDED if context.remaining() == 0 else Code.CANCELLED
        status = self._context.code()  # a servicer that aborted by hand
        return code_of(status) if isinstance(status, grpc.StatusCode) else Code.UNKNOWN

    def _finish(self, code: Code, reply: DomainError | None = None, error: Exception | None = None) -> None:
        seconds = time.perf_counter() - self._started
        self._contract.count(code.name, seconds)
        caller = self._principal
        facts: dict[str, Any] = {
            "method": self._contract.name,
            "code": code.name,
            "ms": round(seconds * 1000, 2),
            "caller": caller and (caller.service or caller.subject),
        }
        if reply is None:
            # A line costs as much as all else here; a read that went well is in the edge's log anyway.
            log = _log.debug if self._contract.reads and code is Code.OK else _log.info
            log("call", **facts)
        elif reply.code is Code.UNAVAILABLE:
            _log.warning("call", **facts, reason=reply.reason, cause=repr(error))
        elif reply is error:
            _log.info("call", **facts, reason=reply.reason, message=reply.message)
        else:
            _log.error("call", **facts, reason=reply.reason, exc_info=error)
        if self._span.is_recording():
            self._span.set_attribute("rpc.system", "grpc")
            self._span.set_attribute("rpc.grpc.status_code", code.value)
            if error is not None and reply is not error:
                self._span.record_exception(error)
                self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Unimplemented(DomainError):
    """A fake that stands in for this service leaves the method out."""

    code = Code.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"


async def _missing(*_: Any) -> Message:
    raise Unimplemented


async def _missing_stream(*_: Any) -> AsyncIterator[Message]:
    raise Unimplemented
    yield


def _correlation_id(metadata: Mapping[str, Any]) -> str:
    """Return the id that came along, unless it is one that would make a mess of logs; else a new one."""
    given = metadata.get("x-correlation-id") or metadata.get("x-request-id") or ""
    return given if isinstance(given, str) and _SANE_ID.fullmatch(given) else str(new_id())
