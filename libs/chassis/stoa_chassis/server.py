"""The gRPC server of a process: the services with everything around them, health and reflection."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pool import Default as DefaultPool
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # has no stubs
from grpc_health.v1.health import aio  # type: ignore[import-untyped]  # has no stubs
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # has no stubs

from stoa_chassis.auth import Authorizer
from stoa_chassis.interceptor import Interceptor

LIVENESS = "liveness"
"""What health checks ask for to learn whether the process lives, ready or not."""
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class RpcServer:
    """Serves added servicers; not ready until `set_ready`.

    Health and reflection have no policy: the stack and the mesh ask them, and they tell nothing that is not
    in the contract.
    """

    def __init__(
        self,
        authorizer: Authorizer,
        *,
        max_concurrent_rpcs: int,
        reuse_port: bool = False,
        partial: bool = False,
    ) -> None:
        """Shed load above `max_concurrent_rpcs`; with `reuse_port` several processes may share a port.

        `partial` serves fakes, which implement only the methods that a test needs.
        """
        self._interceptor = Interceptor(authorizer, max_concurrent_rpcs, partial=partial)
        self._reuse_port = ("grpc.so_reuseport", int(reuse_port))
        self._server = grpc.aio.server(
            options=[
                self._reuse_port,
                # Idle clients look for dead connections (clients.py); by default a server takes that amiss.
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                # Connections are made anew now and then (their calls finish first), so that certificates that
                # were rotated and processes that joined since take effect.
                ("grpc.max_connection_age_ms", 15 * 60_000),
            ]
        )
        self._health = aio.HealthServicer()
        self._health_server: grpc.aio.Server | None = None
        self._draining = False
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.services: list[str] = []
        self.has_pages = False
        """Whether one of the services answers page by page (AIP-158)."""

    def add(self, add_to_server: Callable[[Any, grpc.aio.Server], None], servicer: object) -> None:
        """Serve a servicer by its generated `add_XServicer_to_server`. Raises ContractError."""
        recorder = _Recorder()
        add_to_server(servicer, cast(grpc.aio.Server, recorder))
        for name, handlers in recorder.services.items():
            service: ServiceDescriptor = DefaultPool().FindServiceByName(name)
            wrapped = {
                method.name: self._interceptor.wrap(method, handlers[method.name])
                for method in service.methods
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, wrapped),))
            self.services.append(name)
            self.has_pages |= any(
                "page_token" in method.input_type.fields_by_name for method in service.methods
            )

    async def start(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Listen, and return the port. Raises RuntimeError if the address is taken."""
        names = (*self.services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self._server)
        await self._health.set(LIVENESS, _SERVING)
        await self.set_ready(False)
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        await self._server.start()
        return port

    async def serve_health(self, address: str) -> int:
        """Answer health checks alone, in plaintext, at another address; returns the port.

        Raises RuntimeError if it is taken.
        """
        server = grpc.aio.server(options=[self._reuse_port])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        port = server.add_insecure_port(address)
        await server.start()
        self._health_server = server
        return port

    async def set_ready(self, ready: bool) -> None:
        """Tell health checks, of the process and of each service, whether to send calls here.

        Once it drains it stays unready, and alive until its end.
        """
        if self._draining:
            return
        for name in ("", *self.services):
            await self._health.set(name, _SERVING if ready else _NOT_SERVING)

    async def drain(self, seconds: float) -> None:
        """Refuse new calls and let those that run finish, for at most `seconds`."""
        await self.set_ready(False)
        self._draining = True
        await self._server.stop(seconds)
        if self._health_server is not None:
            await self._health_server.stop(None)


class _Recorder:
    """Stands in for a server to learn what generated code would register."""

    def __init__(self) -> None:
        self.services: dict[str, Mapping[str, grpc.RpcMethodHandler[Any, Any]]] = {}

    def add_registered_method_handlers(
        self, service: str, handlers: "Mapping[str, grpc.RpcMethodHandler[Any, Any]]"
    ) -> None:
        self.services[service] = handlers

    def add_generic_rpc_handlers(self, _: object) -> None:
        """Generated code registers everything twice; the other way names the methods."""
