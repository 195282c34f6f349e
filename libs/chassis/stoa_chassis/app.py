"""The frame of every service: settings, logs, server, clients, background work, and a clean end.

A service's `__main__.py` is its composition root:

    async def compose(app: App[Settings]) -> None:
        db = await app.enter(Database.connect(app.settings.database_url, MIGRATIONS))
        app.serve(add_OrderServiceServicer_to_server, OrderServicer(Orders(db)))

    if __name__ == "__main__":
        run("order", Settings, compose)
"""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc
import uvloop
from pydantic import ValidationError

from stoa_chassis import telemetry
from stoa_chassis.auth import (
    Authorizer,
    ContractError,
    PeerIdentity,
    certificate_identity,
    no_identity,
    sidecar_identity,
)
from stoa_chassis.clients import ClientChannel
from stoa_chassis.outages import is_outage
from stoa_chassis.server import RpcServer
from stoa_chassis.settings import ServiceSettings
from stoa_chassis.tls import CertificateFolder, TlsError
from stoa_chassis.tokens import RemoteKeys, TokenVerifier
from stoa_chassis.workers import WorkerSide, supervise

S = TypeVar("S", bound=ServiceSettings)
T = TypeVar("T")
Stub = TypeVar("Stub")

_log = telemetry.get_logger(__name__)
_READY_EVERY = 5.0  # seconds between readiness checks
_BACKGROUND_GRACE = 10.0  # seconds that background work has to end after it was cancelled
_RESTART_PAUSES = (0.5, 30.0)  # seconds: the first and the longest pause before background work starts again
_OUTAGE_PAUSE = 1.0  # seconds between tries of background work while something it needs is down


class StartError(Exception):
    """The service can't start; the message says why, and needs no stack trace to be understood."""


class App(Generic[S]):
    """What a composition root works with."""

    def __init__(self, name: str, settings: S) -> None:
        self.name = name
        self.settings = settings
        self._resources = AsyncExitStack()
        self._certificates = CertificateFolder(Path(settings.tls_dir)) if settings.tls_dir else None
        verifier = TokenVerifier(RemoteKeys(settings.jwks_url), settings.jwt_issuer, settings.jwt_audience)
        self._server = RpcServer(
            Authorizer(_peer_identity(settings), verifier),
            max_concurrent_rpcs=settings.max_concurrent_rpcs,
            reuse_port=settings.workers > 1,
        )
        self._channels: dict[str, ClientChannel] = {}
        self._background: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._checks: list[Callable[[], Awaitable[object]]] = []

    async def enter(self, resource: AbstractAsyncContextManager[T]) -> T:
        """Open something that is closed at the end, after all that was opened later."""
        return await self._resources.enter_async_context(resource)

    def client(self, stub_type: Callable[[grpc.aio.Channel], Stub], service: str, target: str) -> Stub:
        """Return a stub for another service at `target` (host:port). Its calls raise RemoteError."""
        if target not in self._channels:
            channel = self._channels[target] = ClientChannel(service, target, self._certificates)
            self._resources.push_async_callback(channel.close)
        return self._channels[target].stub(stub_type)

    def serve(self, add_to_server: Callable[[Any, grpc.aio.Server], None], servicer: object) -> None:
        """Serve a servicer. Raises ContractError if a method can't be served as its proto declares it."""
        self._server.add(add_to_server, servicer)

    def background(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work()` beside the server: again if it fails, and cancelled once the server has drained."""
        self._background.append((name, work))

    def ready(self, check: Callable[[], Awaitable[object]]) -> None:
        """Be healthy only while `check()` neither raises nor returns False."""
        self._checks.append(check)

    async def run(self, compose: "Compose[S]", stop: asyncio.Event, worker: WorkerSide | None) -> None:
        """Compose, serve until `stop`, drain, close. Raises StartError, or whatever `compose` raised."""
        began = time.perf_counter()
        async with self._resources:
            if not await _unless(stop, compose(self)):
                return
            port = await self._listen()
            jobs = [
                asyncio.create_task(_supervised(name, work), name=name) for name, work in self._background
            ]
            jobs.append(asyncio.create_task(self._watch_readiness(), name="readiness"))
            _log.info(
                "serving",
                port=port,
                tls=self._certificates is not None,
                services=self._server.services,
                background=[name for name, _ in self._background],
                seconds=round(time.perf_counter() - began, 3),
            )
            if worker is not None:
                worker.report_ready()
            await stop.wait()
            _log.info("draining")
            await self._server.drain(self.settings.drain_seconds)
            await _cancel(jobs)
        _log.info("stopped")

    async def _listen(self) -> int:
        settings = self.settings
        credentials = self._certificates.server_credentials() if self._certificates else None
        try:
            return await self._server.start(f"{settings.host}:{settings.port}", credentials)
        except RuntimeError as error:
            raise StartError(f"{settings.host}:{settings.port} can't be listened on: {error}") from error

    async def _watch_readiness(self) -> None:
        was: bool | None = None
        while True:
            failed = [cause for check in self._checks if (cause := await _failure(check))]
            if (ready := not failed) is not was:
                await self._server.set_ready(ready)
                _log.log(20 if ready else 30, "readiness", ready=ready, causes=failed)
                was = ready
            if not self._checks:
                return
            await asyncio.sleep(_READY_EVERY)


Compose = Callable[[App[S]], Awaitable[None]]


def run(name: str, settings_type: type[S], compose: Compose[S]) -> None:
    """Run a service until SIGTERM or SIGINT; exit with 1, and the cause in the log, if it can't start.

    With `settings.workers` > 1 this process only starts and watches that many workers, which share the port.
    """
    telemetry.configure_logging(name)
    try:
        settings = settings_type()
        telemetry.configure_logging(name, settings.log_level)
        worker = WorkerSide.of_this_process()
        if worker is None:
            _refuse_taken_port(settings)
        if settings.workers > 1 and worker is None:
            sys.exit(supervise(name, settings.workers, settings.metrics_port, settings.drain_seconds))
        telemetry.configure_tracing(name, settings.otlp_endpoint)
        if worker is None:
            telemetry.serve_metrics(settings.metrics_port)
        uvloop.run(_main(name, settings, compose, worker))
    except (StartError, ContractError, TlsError) as error:
        _exit(str(error))
    except ValidationError as error:
        _exit("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    except Exception as error:
        _exit(str(error), error)


async def _main(name: str, settings: S, compose: Compose[S], worker: WorkerSide | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if worker is not None:
        worker.when_parent_ends(stop.set)
    await App(name, settings).run(compose, stop, worker)


def _exit(reason: str, error: Exception | None = None) -> None:
    _log.error("start failed", reason=reason, exc_info=error)
    sys.exit(1)


def _peer_identity(settings: ServiceSettings) -> PeerIdentity:
    if settings.sidecar_mtls:
        return sidecar_identity(settings.spiffe_prefix)
    return certificate_identity(settings.spiffe_prefix) if settings.tls_dir else no_identity


def _refuse_taken_port(settings: ServiceSettings) -> None:
    """Raise StartError if somebody listens: with SO_REUSEPORT gRPC would silently share with a stranger."""
    for port in filter(None, (settings.port, settings.metrics_port)):
        with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                raise StartError(
                    f"{settings.host}:{port} is taken: {os.strerror(error.errno or 0)}"
                ) from None


async def _unless(stop: asyncio.Event, work: Awaitable[None]) -> bool:
    """Finish the work and return True, or give it up and return False when `stop` comes first."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        task.result()
        return True
    await _cancel([task])
    return False


async def _supervised(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Start work again whenever it fails, less and less often; after an outage soon, however long it was."""
    shortest, longest = _RESTART_PAUSES
    pause = shortest
    while True:
        began = time.monotonic()
        try:
            await work()
        except Exception as error:
            if is_outage(error):
                pause = shortest
                _log.warning("background work waits for what is down", work=name, error=repr(error))
                await asyncio.sleep(_OUTAGE_PAUSE)
                continue
            if time.monotonic() - began > longest:
                pause = shortest
            _log.error("background work failed", work=name, restart_in=pause, exc_info=error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
        else:
            _log.info("background work is done", work=name)
            return


async def _failure(check: Callable[[], Awaitable[object]]) -> str:
    try:
        async with asyncio.timeout(_READY_EVERY):
            return "not ready" if await check() is False else ""
    except Exception as error:
        return repr(error)


async def _cancel(tasks: "list[asyncio.Future[Any]] | list[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=_BACKGROUND_GRACE)
        for task in late:
            _log.warning("background work does not end, leaving it", work=str(task))
