"""Calls to other services, with all that keeps one slow or broken service from taking others along.

Every call has a deadline, never later than our own caller's. gRPC retries those that the contract declares
idempotent when the target is unavailable. A circuit breaker per target fails fast while it is down. Trace and
correlation id travel along. A certificate that rotates gets a new channel; calls on the old one finish there.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import grpc
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.descriptor_pool import Default as DefaultPool
from opentelemetry.trace import SpanKind, StatusCode

from stoa_chassis import context, telemetry
from stoa_chassis.breaker import Breaker
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.status import from_rpc_error
from stoa_chassis.tls import CertificateFolder, Certificates

__all__ = ["DEFAULT_DEADLINE", "ClientChannel", "RemoteError"]

_Stub = TypeVar("_Stub")
_Metadata = Sequence[tuple[str, str]]

DEFAULT_DEADLINE = 5.0  # seconds
# A shorter deadline than this is our caller's hurry; missing it says nothing about the target. Seconds.
_FAIR_DEADLINE = 0.5
_CLOSING_GRACE = 30.0  # seconds
_OPTIONS = (
    ("grpc.enable_retries", 1),
    # A restarted service must be found again at once; by default the pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # Two channels with different identities must never share a connection.
    ("grpc.use_local_subchannel_pool", 1),
)
_RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
# When most calls fail, retries stop: they would only add to the load of whoever is trying to get up.
_RETRY_THROTTLING = {"maxTokens": 20, "tokenRatio": 0.2}
_IDEMPOTENT = (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)
_FAILURES = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})


class ClientChannel:
    """The way to one target. `stub` makes stubs on it; they raise RemoteError instead of gRPC's errors."""

    def __init__(
        self,
        service: str,
        address: str,
        certificates: CertificateFolder | None,
        *,
        metadata: _Metadata = (),
        breaker: Breaker | None = None,
    ) -> None:
        """Reach `service` at host:port, with `metadata` on each call.

        With certificates the target must prove to be `<service>.stoa.internal`; without it is plaintext.
        """
        self._service = service
        self._address = address
        self._certificates = certificates
        self.metadata = metadata
        self.breaker = breaker or Breaker(service)
        self._methods: list[str] = []
        self._channel: grpc.aio.Channel | None = None
        self._made_with: tuple[Certificates | None, int] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def stub(self, stub_type: Callable[[grpc.aio.Channel], _Stub]) -> _Stub:
        """Return a stub of a generated type."""
        return stub_type(cast(grpc.aio.Channel, self))

    def unary_unary(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> "_UnaryCall":
        """Return a method for a stub (generated code calls this)."""
        self._methods.append(path)
        return _UnaryCall(self, path, (request_serializer, response_deserializer))

    def unary_stream(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> "_StreamCall":
        """Return a method for a stub (generated code calls this)."""
        self._methods.append(path)
        return _StreamCall(self, path, (request_serializer, response_deserializer))

    def stream_unary(self, path: str, *_: Any, **__: Any) -> Callable[..., Any]:
        """Return a method that can't be called: servers of this chassis take no streams from clients."""
        return _unsupported(path)

    stream_stream = stream_unary

    def current(self) -> grpc.aio.Channel:
        """Return the channel to use now."""
        needed = (self._certificates.current() if self._certificates else None, len(self._methods))
        if self._channel is None or self._made_with != needed:
            if self._channel is not None:
                closing = asyncio.create_task(self._channel.close(_CLOSING_GRACE))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            self._made_with = needed
            self._channel = self._open(needed[0])
        return self._channel

    async def close(self) -> None:
        """Close, and end the calls that still run."""
        for closing in self._closing:
            closing.cancel()
        if self._channel is not None:
            await self._channel.close()

    def _open(self, certificates: Certificates | None) -> grpc.aio.Channel:
        options = (*_OPTIONS, ("grpc.service_config", _service_config(self._methods)))
        if certificates is None:
            return grpc.aio.insecure_channel(self._address, options)
        name = ("grpc.ssl_target_name_override", f"{self._service}.stoa.internal")
        return grpc.aio.secure_channel(self._address, certificates.channel_credentials(), (*options, name))


_Serializers = tuple[Any, Any]
_MultiCallable = TypeVar("_MultiCallable")


class _Method(Generic[_MultiCallable]):
    """One method of a stub; follows its channel when that is replaced."""

    def __init__(self, channel: ClientChannel, path: str, serializers: _Serializers) -> None:
        self._owner = channel
        self._path = path
        self._serializers = serializers
        self._made_on: grpc.aio.Channel | None = None

    def _make(self, channel: grpc.aio.Channel) -> _MultiCallable:
        raise NotImplementedError

    def _callable(self) -> _MultiCallable:
        channel = self._owner.current()
        if channel is not self._made_on:
            self._made_on = channel
            self._made = self._make(channel)
        return self._made

    def _attempt(self, timeout: float | None) -> "_Attempt":
        return _Attempt(self._owner, self._path, timeout)


class _UnaryCall(_Method[grpc.aio.UnaryUnaryMultiCallable[Any, Any]]):
    def _make(self, channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
        return channel.unary_unary(self._path, *self._serializers)

    async def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # the deadline that travels to the target
        metadata: _Metadata = (),
        **options: Any,
    ) -> Any:
        with self._attempt(timeout) as attempt:
            return await self._callable()(
                request, timeout=attempt.timeout, metadata=attempt.metadata(metadata), **options
            )


class _StreamCall(_Method[grpc.aio.UnaryStreamMultiCallable[Any, Any]]):
    def _make(self, channel: grpc.aio.Channel) -> grpc.aio.UnaryStreamMultiCallable[Any, Any]:
        return channel.unary_stream(self._path, *self._serializers)

    async def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # the deadline that travels to the target
        metadata: _Metadata = (),
        **options: Any,
    ) -> AsyncIterator[Any]:
        with self._attempt(timeout) as attempt:
            responses = self._callable()(
                request, timeout=attempt.timeout, metadata=attempt.metadata(metadata), **options
            )
            async for response in responses:
                yield response


class _Attempt:
    """What surrounds one call: deadline, breaker, span, metric, error."""

    def __init__(self, channel: ClientChannel, path: str, timeout: float | None) -> None:
        self._channel = channel
        self._path = path
        self.timeout = context.time_limit(DEFAULT_DEADLINE if timeout is None else timeout)

    def metadata(self, own: _Metadata) -> list[tuple[str, str]]:
        """Return what is sent along."""
        sent = [*self._channel.metadata, *own, *telemetry.trace_headers(self._span).items()]
        if correlation := context.correlation_id():
            sent.append(("x-correlation-id", correlation))
        return sent

    def __enter__(self) -> "_Attempt":
        target = self._channel.breaker.target
        if self.timeout <= 0:
            raise RemoteError(
                target, self._path, Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "no time left for the call"
            )
        self._channel.breaker.enter(self._path)
        self._started = time.perf_counter()
        self._span = telemetry.start_span(self._path[1:], SpanKind.CLIENT)
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: Any) -> None:
        breaker = self._channel.breaker
        remote = None
        if isinstance(error, grpc.aio.AioRpcError):
            remote = from_rpc_error(breaker.target, self._path, error)
        if remote is not None and self._counts_as_failure(remote.code):
            breaker.failed()
        elif remote is not None or error is None:
            breaker.succeeded()
        else:
            breaker.abandoned()
        self._finish(remote, error)
        if remote is not None:
            raise remote from error

    def _counts_as_failure(self, code: Code) -> bool:
        if code is Code.DEADLINE_EXCEEDED:
            return self.timeout >= _FAIR_DEADLINE
        return code in _FAILURES

    def _finish(self, remote: RemoteError | None, error: BaseException | None) -> None:
        code = remote.code if remote else Code.OK if error is None else Code.CANCELLED
        target = self._channel.breaker.target
        histogram = telemetry.labelled(telemetry.CLIENT_RPC_SECONDS, target, self._path, code.name)
        histogram.observe(time.perf_counter() - self._started)
        if self._span.is_recording():
            self._span.set_attribute("rpc.system", "grpc")
            self._span.set_attribute("rpc.grpc.status_code", code.value)
            if remote is not None:
                self._span.set_status(StatusCode.ERROR, remote.message)
        self._span.end()


def _service_config(paths: Sequence[str]) -> str:
    """Return gRPC's configuration of a channel: which methods may be retried, from their descriptors."""
    retried = []
    for path in paths:
        service, method = path[1:].split("/")
        descriptor: Any = DefaultPool().FindMethodByName(f"{service}.{method}")
        if descriptor.GetOptions().idempotency_level in _IDEMPOTENT:
            retried.append({"service": service, "method": method})
    config: dict[str, Any] = {}
    if retried:
        config["methodConfig"] = [{"name": retried, "retryPolicy": _RETRY}]
        config["retryThrottling"] = _RETRY_THROTTLING
    return json.dumps(config)


def _unsupported(path: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise TypeError(f"{path} streams from the client, which the chassis does not support")

    return refuse
