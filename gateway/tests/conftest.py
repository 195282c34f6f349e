"""A real Envoy in front of a stand-in for all services, which answers what a test wants.

The stand-in speaks the real contract, so what it gets is what a service would get.
"""

import asyncio
import importlib
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx
import jwt
import psutil  # type: ignore[import-untyped]  # no types
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from stoa.user.v1 import user_pb2
from stoa_chassis.testing import eventually, free_port
from stoa_contracts.descriptors import read
from stoa_gateway import EdgeSettings, envoy, write
from stoa_gateway.routes import edge_routes
from stoa_stack.certificates import Authority

ENVOY = envoy.binary()
ROUTES = edge_routes(read())
SERVICES = sorted({each.rpc.service for each in ROUTES})
ORIGIN = "http://localhost:5173"
JWKS = "stoa.user.v1.AuthService/GetJwks"
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class ServiceError(Exception):
    """Makes the stand-in answer an error with details, as a service does."""

    def __init__(self, code: int, message: str, reason: str, *details: Message) -> None:
        self.status = status_pb2.Status(code=code, message=message)
        for detail in (error_details_pb2.ErrorInfo(reason=reason, domain="stoa"), *details):
            self.status.details.add().Pack(detail)


@dataclass
class Call:
    """What a service got."""

    rpc: str
    request: Any
    metadata: dict[str, Any]
    certificate: bytes
    """Of the caller, in PEM; empty without TLS."""
    seconds_left: float
    """Until the caller stops waiting."""


Answer = Message | Callable[[Any], Any]


def _generated(message: Descriptor) -> type[Message]:
    """The class of a message of the contracts, as services use it."""
    importlib.import_module(message.file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
    return GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(message.full_name))


class Services(grpc.GenericRpcHandler):
    """All services in one server. An RPC without an answer of its own gives an empty response."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: dict[str, Answer] = {}
        self._requests = {each.name: _generated(each.rpc.request) for each in ROUTES}

    @property
    def last(self) -> Call:
        """The latest call."""
        return self.calls[-1]

    def service(self, handler_call_details: Any) -> Any:
        """Find the handler of an RPC, for gRPC."""
        name = handler_call_details.method[1:]
        if name == "grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(self._health)

        async def handle(raw: bytes, context: Any) -> bytes:
            request = self._requests[name].FromString(raw)
            if name != JWKS:
                shown = context.auth_context().get("x509_pem_cert", [b""])[0]
                metadata = dict(context.invocation_metadata() or ())
                left = context.time_remaining() or float("inf")
                self.calls.append(Call(name, request, metadata, shown, left))
            return await self._answer(self.answers.get(name), request, context)

        return grpc.unary_unary_rpc_method_handler(handle)

    async def _answer(self, answer: Answer | None, request: Any, context: Any) -> bytes:
        try:
            given = answer(request) if callable(answer) else answer
            if inspect.isawaitable(given):
                given = await given
        except ServiceError as error:
            details = (("grpc-status-details-bin", error.status.SerializeToString()),)
            await context.abort(_CODES[error.status.code], error.status.message, details)
        return given.SerializeToString() if given else b""

    async def _health(self, _: bytes, __: object) -> bytes:
        return b"\x08\x01"  # SERVING


@dataclass(frozen=True)
class Issuer:
    """Signs tokens as the user service does."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    kid: str = "test"

    def jwks(self) -> user_pb2.GetJwksResponse:
        """Return the public keys."""
        key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        entry = {"kty": "EC", "use": "sig", "alg": "ES256", "kid": self.kid, "crv": "P-256"}
        return user_pb2.GetJwksResponse(keys=[user_pb2.Jwk(**entry, x=key["x"], y=key["y"])])

    def token(self, subject: str = "", **changes: Any) -> str:
        """Return a good token, unless the changed claims make it a bad one."""
        expires_at = datetime.now(UTC) + timedelta(minutes=5)
        claims = {"iss": "stoa", "aud": "stoa", "sub": subject or str(uuid4()), "exp": expires_at}
        return jwt.encode(claims | changes, self.key, "ES256", {"kid": self.kid})


@dataclass
class Edge:
    """A running edge, a client of it, and what stands behind it."""

    port: int
    client: httpx.AsyncClient
    services: Services
    issuer: Issuer
    log: Path
    process: psutil.Process

    def bearer(self, subject: str = "", **changes: Any) -> dict[str, str]:
        """Return the headers of somebody who is signed in."""
        return {"authorization": f"Bearer {self.issuer.token(subject, **changes)}"}

    @contextmanager
    def answering(self, rpc: str, answer: Answer) -> Iterator[None]:
        """Let an RPC answer this for a while."""
        self.services.answers[rpc] = answer
        try:
            yield
        finally:
            del self.services.answers[rpc]

    def cpu_seconds(self) -> float:
        """Return how much work Envoy has done."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    async def logged(self, request_id: str) -> dict[str, Any]:
        """Return the line of the access log about a request."""

        async def found() -> dict[str, Any] | None:
            lines = self.log.read_text().splitlines()
            entries = [json.loads(line) for line in lines if line.startswith("{") and request_id in line]
            return entries[-1] if entries else None

        entry: dict[str, Any] = await eventually(found)
        return entry


@asynccontextmanager
async def serving(
    credentials: grpc.ServerCredentials | None = None, address: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[Services, str]]:
    """Run the stand-in, and yield it and its address."""
    services = Services()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((services,))
    add_port = server.add_insecure_port
    port = server.add_secure_port(address, credentials) if credentials else add_port(address)
    await server.start()
    try:
        yield services, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def running(folder: Path, **changes: Any) -> AsyncIterator[Edge]:
    """Run an edge with these settings, in front of the stand-in unless they say where the services are."""
    async with serving() as (services, address):
        defaults = {
            "upstreams": dict.fromkeys(SERVICES, address),
            "port": free_port(),
            "admin_port": free_port(),
            "rate_limits": None,
        }
        settings = EdgeSettings(**{**defaults, **changes})
        issuer = Issuer()
        services.answers[JWKS] = issuer.jwks()
        log = folder / "log"
        arguments = ["-c", str(write(settings, folder)), "--disable-hot-restart", "--concurrency", "1"]
        with log.open("wb") as output:
            arguments += ["--log-level", "warning", "--file-flush-interval-msec", "100"]
            process = await asyncio.create_subprocess_exec(ENVOY, *arguments, stdout=output, stderr=output)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.port}", timeout=10) as client:
                if not await _is_up(client, process):
                    raise AssertionError(log.read_text())
                yield Edge(settings.port, client, services, issuer, log, psutil.Process(process.pid))
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _is_up(client: httpx.AsyncClient, process: asyncio.subprocess.Process) -> bool:
    async def answers() -> bool:
        with suppress(httpx.TransportError):
            return process.returncode is not None or (await client.get("/healthz")).is_success
        return False

    await eventually(answers)
    return process.returncode is None


async def knows_the_keys(edge: Edge) -> None:
    """Wait until the edge has fetched the keys that tokens are checked by."""
    headers = edge.bearer()

    async def admits() -> bool:
        return (await edge.client.get(f"/api/v1/orders/{uuid4()}", headers=headers)).is_success

    await eventually(admits)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates of the edge and of some services, as the local stack issues them."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    for name in ("edge", *SERVICES):
        authority.issue(name)
    return folder


@pytest.fixture(scope="session")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """An edge without rate limits, for the whole run."""
    async with running(tmp_path_factory.mktemp("edge")) as edge:
        await knows_the_keys(edge)
        yield edge


def reason(answer: httpx.Response) -> str:
    """Return the reason of an error, having checked that it is a google.rpc.Status."""
    status = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert status.keys() == {"code", "message", "details"}
    assert isinstance(status["code"], int)
    assert status["message"]
    info = status["details"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert info["domain"] == "stoa"
    return str(info["reason"])


def check_may_be_read(answer: httpx.Response) -> None:
    """Check that a browser lets a page of ORIGIN read an answer, and that no cache keeps it for another."""
    assert answer.headers.get_list("access-control-allow-origin") == [ORIGIN], answer
    assert answer.headers["access-control-expose-headers"] == "x-request-id, retry-after"
    assert "origin" in answer.headers["vary"]


def violations(answer: httpx.Response) -> dict[str, str]:
    """Return what is wrong, by field."""
    assert answer.status_code == 400, answer.text
    for detail in answer.json()["details"]:
        if detail["@type"] == "type.googleapis.com/google.rpc.BadRequest":
            return {found["field"]: found["description"] for found in detail["field_violations"]}
    return {}
