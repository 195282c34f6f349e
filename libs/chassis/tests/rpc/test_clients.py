"""Calls to other services: deadlines, retries, breaker, identity."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from chassis_example import echo_pb2_grpc
from chassis_example.echo_pb2 import EchoRequest, EchoResponse
from chassis_example.echo_pb2_grpc import EchoStub

from stoa_chassis import context
from stoa_chassis.breaker import Breaker
from stoa_chassis.clients import DEFAULT_DEADLINE, ClientChannel
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.server import RpcServer
from stoa_chassis.testing import (
    CertificateAuthority,
    InProcessServer,
    TokenMint,
    eventually,
    free_port,
    serve_in_process,
)
from stoa_chassis.tls import CertificateFolder, TlsError
from stoa_example.servicer import EchoServicer


@pytest.fixture
async def counted() -> AsyncIterator[tuple[EchoServicer, InProcessServer]]:
    servicer = EchoServicer()
    async with serve_in_process(echo_pb2_grpc.add_EchoServicer_to_server, servicer) as server:
        yield servicer, server


@pytest.mark.parametrize("method", ["Read", "Replace"])
async def test_a_call_that_is_idempotent_is_retried(
    counted: tuple[EchoServicer, InProcessServer], method: str
) -> None:
    servicer, server = counted
    await getattr(server.stub(EchoStub, as_service="order"), method)(EchoRequest(text="flaky:2"))
    assert servicer.calls["flaky:2"] == 3


async def test_a_call_that_is_not_idempotent_is_never_retried(
    counted: tuple[EchoServicer, InProcessServer],
) -> None:
    servicer, server = counted
    with pytest.raises(RemoteError) as refused:
        await server.stub(EchoStub, as_service="order").Write(EchoRequest(text="flaky:1"))
    assert refused.value.code is Code.UNAVAILABLE
    assert servicer.calls["flaky:1"] == 1


async def test_a_domain_error_is_not_retried(counted: tuple[EchoServicer, InProcessServer]) -> None:
    servicer, server = counted
    with pytest.raises(RemoteError):
        await server.stub(EchoStub, as_service="order").Read(EchoRequest(text="out-of-stock"))
    assert servicer.calls["out-of-stock"] == 1


class Forwarder(echo_pb2_grpc.EchoServicer):
    """A hop: asks the next one."""

    def __init__(self, following: Any) -> None:
        self._following = following

    async def Anyone(self, request: EchoRequest, _: Any) -> EchoResponse:
        response: EchoResponse = await self._following.Write(request)
        return response


async def test_deadline_and_correlation_id_reach_the_last_of_three_services(echo: InProcessServer) -> None:
    async with (
        serve_in_process(
            echo_pb2_grpc.add_EchoServicer_to_server, Forwarder(echo.stub(EchoStub, as_service="order"))
        ) as middle,
    ):
        stub = middle.stub(EchoStub)
        left = float((await stub.Anyone(EchoRequest(text="deadline"), timeout=2)).text)
        assert 1.5 < left < 2
        # Without a deadline of its own the caller still gets an answer in time.
        left = float((await stub.Anyone(EchoRequest(text="deadline"), timeout=60)).text)
        assert left < DEFAULT_DEADLINE + 0.1  # gRPC rounds up
        with context.bound("trace-me"):
            assert (await stub.Anyone(EchoRequest(text="correlation"))).text == "trace-me"


async def test_the_hop_that_waits_in_vain_says_so_before_its_caller_gives_up(echo: InProcessServer) -> None:
    async with serve_in_process(
        echo_pb2_grpc.add_EchoServicer_to_server, Forwarder(echo.stub(EchoStub, as_service="order"))
    ) as middle:
        with pytest.raises(RemoteError) as refused:
            await middle.stub(EchoStub).Anyone(EchoRequest(text="sleep:30"), timeout=1)
    assert refused.value.code is Code.DEADLINE_EXCEEDED


async def test_a_call_without_time_left_is_not_made(counted: tuple[EchoServicer, InProcessServer]) -> None:
    servicer, server = counted
    with context.bound("", deadline=time.monotonic() - 1), pytest.raises(RemoteError) as refused:
        await server.stub(EchoStub).Anyone(EchoRequest(text="late"))
    assert refused.value.code is Code.DEADLINE_EXCEEDED
    assert servicer.calls["late"] == 0


async def test_the_breaker_opens_on_failures_and_closes_after_one_good_probe(
    counted: tuple[EchoServicer, InProcessServer],
) -> None:
    servicer, server = counted
    channel = ClientChannel(
        server.name,
        server.target,
        server.certificates("order"),
        breaker=Breaker("echo", threshold=3, ttl=1),
    )
    stub = channel.stub(EchoStub)
    for _ in range(5):  # a domain error is an answer
        with pytest.raises(RemoteError, match="only 2 left"):
            await stub.Write(EchoRequest(text="out-of-stock"))
    for _ in range(3):
        with pytest.raises(RemoteError, match="down"):
            await stub.Write(EchoRequest(text="down"))
    with pytest.raises(RemoteError) as refused:
        await stub.Write(EchoRequest(text="fine"))
    assert (refused.value.code, refused.value.reason) == (Code.UNAVAILABLE, "CIRCUIT_OPEN")
    assert servicer.calls["fine"] == 0

    await asyncio.sleep(1.05)
    probe = asyncio.create_task(stub.Write(EchoRequest(text="wait")))
    await eventually(lambda: servicer.calls["wait"])
    with pytest.raises(RemoteError) as refused:  # one probe is enough to know
        await stub.Write(EchoRequest(text="fine"))
    assert refused.value.reason == "CIRCUIT_OPEN"
    servicer.released.set()
    await probe
    await stub.Write(EchoRequest(text="fine"))

    for _ in range(3):
        with pytest.raises(RemoteError, match="down"):
            await stub.Write(EchoRequest(text="down"))
    await asyncio.sleep(1.05)
    with pytest.raises(RemoteError, match="down"):  # the probe fails: open again at once
        await stub.Write(EchoRequest(text="down"))
    with pytest.raises(RemoteError, match="does not answer"):
        await stub.Write(EchoRequest(text="fine"))
    await channel.close()


def test_a_probe_that_was_given_up_lets_the_next_one_through() -> None:
    breaker = Breaker("gone", threshold=1, ttl=0.01)
    breaker.enter("/m")
    breaker.failed()
    time.sleep(0.02)
    breaker.enter("/m")
    with pytest.raises(RemoteError):
        breaker.enter("/m")
    breaker.abandoned()
    breaker.enter("/m")
    breaker.succeeded()
    breaker.enter("/m")
    breaker.enter("/m")


def test_a_call_that_may_take_long_by_itself_is_no_probe() -> None:
    breaker = Breaker("slow", threshold=1, ttl=0.01)
    breaker.enter("/m", probes=False)
    breaker.failed()
    time.sleep(0.02)
    with pytest.raises(RemoteError):
        breaker.enter("/m", probes=False)
    breaker.enter("/m")
    breaker.succeeded()
    breaker.enter("/m", probes=False)


async def test_a_service_that_was_restarted_is_found_again_within_seconds(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    port = free_port()
    channel = ClientChannel(
        "echo",
        f"127.0.0.1:{port}",
        CertificateFolder(authority.issue("order", tmp_path / "order")),
        breaker=Breaker("echo", threshold=1_000),
    )
    stub = channel.stub(EchoStub)
    for _ in range(30):
        with pytest.raises(RemoteError):
            await stub.Write(EchoRequest())
        await asyncio.sleep(0.1)
    server = await _serve(authority, tmp_path / "echo", port)
    began = time.monotonic()
    while time.monotonic() - began < 10:
        try:
            await stub.Write(EchoRequest())
            break
        except RemoteError:
            await asyncio.sleep(0.05)
    assert time.monotonic() - began < 3
    await channel.close()
    await server.drain(0)


async def test_certificates_rotate_on_both_sides_without_a_restart(tmp_path: Path) -> None:
    old, new = CertificateAuthority(), CertificateAuthority()
    server = await _serve(old, tmp_path / "echo", 0)
    target = f"127.0.0.1:{server.port}"
    folder = CertificateFolder(old.issue("order", tmp_path / "order"))
    channel = ClientChannel("echo", target, folder, breaker=Breaker("echo", threshold=1_000))
    stub = channel.stub(EchoStub)
    await stub.Write(EchoRequest())
    running = asyncio.create_task(stub.Write(EchoRequest(text="sleep:2")))
    await asyncio.sleep(0.1)

    new.issue("echo", tmp_path / "echo")
    await stub.Write(EchoRequest())  # an open connection lives on
    new.issue("order", tmp_path / "order")
    await asyncio.sleep(1.1)  # the client looks once a second
    await stub.Write(EchoRequest())  # a new connection, with new certificates on both sides
    assert (await running).text == "sleep:2"

    stranger = CertificateFolder(old.issue("order", tmp_path / "stranger"))
    outdated = ClientChannel("echo", target, stranger)
    with pytest.raises(RemoteError) as refused:
        await outdated.stub(EchoStub).Write(EchoRequest())
    assert refused.value.code is Code.UNAVAILABLE
    await channel.close()
    await outdated.close()
    await server.drain(0)


def test_a_half_done_rotation_keeps_the_old_pair(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    folder = CertificateFolder(authority.issue("order", tmp_path / "order"))
    old = folder.current()
    other = authority.issue("order", tmp_path / "other")
    (tmp_path / "order" / "cert.pem").write_bytes((other / "cert.pem").read_bytes())
    time.sleep(1.1)
    assert folder.current() is old
    (tmp_path / "order" / "key.pem").write_bytes((other / "key.pem").read_bytes())
    time.sleep(1.1)
    assert folder.current().chain == (other / "cert.pem").read_bytes()


def test_a_folder_without_certificates_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match=tmp_path.name):
        CertificateFolder(tmp_path)


async def test_a_client_refuses_a_server_that_is_another_service(echo: InProcessServer) -> None:
    channel = ClientChannel("payment", echo.target, echo.certificates("order"))
    with pytest.raises(RemoteError) as refused:
        await channel.stub(EchoStub).Write(EchoRequest())
    assert refused.value.code is Code.UNAVAILABLE
    await channel.close()


class _Server(RpcServer):
    port: int


async def _serve(authority: CertificateAuthority, folder: Path, port: int) -> _Server:
    from stoa_chassis.auth import Authorizer, certificate_identity
    from stoa_chassis.testing import SPIFFE_PREFIX
    from stoa_chassis.tokens import StaticKeys, TokenVerifier

    verifier = TokenVerifier(StaticKeys(TokenMint().jwks), "stoa", "stoa")
    server = _Server(Authorizer(certificate_identity(SPIFFE_PREFIX), verifier), max_concurrent_rpcs=10)
    server.add(echo_pb2_grpc.add_EchoServicer_to_server, EchoServicer())
    credentials = CertificateFolder(authority.issue("echo", folder)).server_credentials()
    server.port = await server.start(f"127.0.0.1:{port}", credentials)
    return server
