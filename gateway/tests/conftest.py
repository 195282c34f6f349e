"""A real Envoy in front of a stand-in for the services: it says what it was asked and answers what a test wants."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from stoa_gateway import EdgeSettings, write
from stoa_gateway.contract import Rpc, public_rpcs

import envoy
from stoa.user.v1 import user_pb2

ENVOY = Path(envoy.__file__).parent / "_bin" / "envoy"
DESCRIPTORS = EdgeSettings(upstreams={}, tls_dir=None).descriptors
Answer = Callable[[Any], Message] | Message


class Refusal(Exception):
    """Makes the stand-in answer an error with details, as a service does."""

    def __init__(self, status: status_pb2.Status) -> None:
        self.status = status


@dataclass
class Call:
    """What a service got."""

    rpc: str
    request: Any
    metadata: dict[str, str]


@dataclass
class Services(grpc.GenericRpcHandler):
    """All services in one server. An RPC without an answer of its own gets an empty response."""

    calls: list[Call] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._methods = {rpc.name: rpc.method for rpc in public_rpcs(DESCRIPTORS)}

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        name = call.method[1:]
        if name == "grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(self._healthy)
        method = self._methods.get(name)

        async def handle(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            metadata = {key: value for key, value in context.invocation_metadata() or ()}
            request = GetMessageClass(method.input_type).FromString(raw) if method else raw
            if name != "stoa.user.v1.AuthService/GetJwks":
                self.calls.append(Call(name, request, metadata))
            answer = self.answers.get(name)
            try:
                given = answer(request) if callable(answer) else answer
                if asyncio.iscoroutine(given):
                    given = await given
            except Refusal as refusal:
                status = refusal.status
                await context.abort(
                    grpc.StatusCode(
                        next(code.value for code in grpc.StatusCode if code.value[0] == status.code)
                    ),
                    status.message,
                    (("grpc-status-details-bin", status.SerializeToString()),),
                )
            return given.SerializeToString() if given else b""

        return grpc.unary_unary_rpc_method_handler(handle)

    async def _healthy(self, _: bytes, __: object) -> bytes:
        return b"\x08\x01"

    @property
    def last(self) -> Call:
        """The latest call."""
        return self.calls[-1]


@dataclass(frozen=True)
class Issuer:
    """Signs tokens as the user service does."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    kid: str = "test"

    def jwks(self) -> user_pb2.GetJwksResponse:
        jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        entry = user_pb2.Jwk(
            kid=self.kid, use="sig", alg="ES256", kty="EC", crv="P-256", x=jwk["x"], y=jwk["y"]
        )
        return user_pb2.GetJwksResponse(keys=[entry])

    def token(self, subject: str | None = None, **changes: Any) -> str:
        claims = {
            "iss": "stoa",
            "aud": "stoa",
            "sub": subject or str(uuid4()),
            "exp": datetime.now(UTC) + timedelta(minutes=5),
        } | changes
        return jwt.encode(claims, self.key, "ES256", {"kid": self.kid})


@dataclass
class Edge:
    """A running edge, its client, and what stands behind it."""

    url: str
    port: int
    admin: str
    client: httpx.AsyncClient
    services: Services
    issuer: Issuer
    log: Path

    def bearer(self, subject: str | None = None, **changes: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.issuer.token(subject, **changes)}"}

    @contextmanager
    def answering(self, rpc: str, answer: Answer) -> Iterator[None]:
        """Let an RPC answer this for a while."""
        self.services.answers[rpc] = answer
        try:
            yield
        finally:
            del self.services.answers[rpc]

    def access_log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@asynccontextmanager
async def running(
    folder: Path, upstreams: Mapping[str, str] | None = None, services: Services | None = None, **changes: Any
) -> AsyncIterator[Edge]:
    """An edge with these settings, ready to take calls that need a token."""
    services = services or Services()
    issuer = Issuer()
    services.answers["stoa.user.v1.AuthService/GetJwks"] = issuer.jwks()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((services,))
    upstream = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    settings = EdgeSettings(
        upstreams=dict.fromkeys((rpc.service for rpc in public_rpcs(DESCRIPTORS)), upstream)
        | dict(upstreams or {}),
        tls_dir=None,
        port=free_port(),
        admin_port=free_port(),
        rate_limits=None,
    )
    settings = replace(settings, **changes)
    log = folder / "log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(ENVOY), "-c", str(write(settings, folder)), "--disable-hot-restart", "--concurrency", "1",
            "--log-level", "warning", stdout=output, stderr=output,
        )  # fmt: skip
    url = f"http://127.0.0.1:{settings.port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            edge = Edge(
                url, settings.port, f"http://127.0.0.1:{settings.admin_port}", client, services, issuer, log
            )
            await _ready(edge, process)
            yield edge
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        await server.stop(0)


async def _ready(edge: Edge, process: asyncio.subprocess.Process) -> None:
    """Wait until the edge has fetched the keys, which is the last thing that it needs."""
    async with asyncio.timeout(10):
        while process.returncode is None:
            with suppress(httpx.TransportError):
                answer = await edge.client.get(f"/api/v1/orders/{uuid4()}", headers=edge.bearer())
                if answer.status_code == 200:
                    edge.services.calls.clear()
                    return
            await asyncio.sleep(0.05)
    raise AssertionError(edge.log.read_text())


@pytest.fixture(scope="session")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """An edge without rate limits, for the whole run."""
    async with running(tmp_path_factory.mktemp("edge")) as edge:
        yield edge


@pytest.fixture(scope="session")
def rpcs() -> dict[str, Rpc]:
    """The public RPCs by name."""
    return {rpc.name: rpc for rpc in public_rpcs(DESCRIPTORS)}


def as_json(message: Message) -> dict[str, Any]:
    """What a client sees of a message."""
    found: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return found
