"""A service as a process: how it starts, what it refuses to start with, and how it ends."""

import asyncio
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from chassis_example.echo_pb2 import EchoRequest
from chassis_example.echo_pb2_grpc import EchoStub
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse  # type: ignore[import-untyped]  # no types
from grpc_health.v1.health_pb2_grpc import HealthStub  # type: ignore[import-untyped]  # no types
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest  # type: ignore[import-untyped]  # no types
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub  # type: ignore[import-untyped]  # no types

from stoa_chassis.testing import CertificateAuthority, eventually, free_port
from stoa_chassis.tls import CertificateFolder


class Service:
    """A started example service."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, journal: Path, tls: Path) -> None:
        self.process = process
        self.port = port
        self.journal = journal
        self.logs: list[dict[str, Any]] = []
        self._tls = tls
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            self.logs.append(json.loads(line))

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.logs if line["event"] == event]

    def noted(self, what: str = "") -> list[str]:
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [line.split(" ", 1)[1] for line in lines if line.endswith(what)]

    def channel(self) -> grpc.aio.Channel:
        credentials = CertificateFolder(self._tls / "edge").current().channel_credentials()
        options = (
            ("grpc.ssl_target_name_override", "example.stoa.internal"),
            ("grpc.use_local_subchannel_pool", 1),
        )
        return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options)

    async def exit_code(self) -> int:
        code = await asyncio.wait_for(self.process.wait(), 30)
        await self._reading
        return code

    async def serving(self) -> "Service":
        async with self.channel() as channel:
            request, health = HealthCheckRequest(), HealthStub(channel)
            await health.Check(request, wait_for_ready=True, timeout=30)
        return self


@asynccontextmanager
async def started(tmp_path: Path, *, port: int = 0, **settings: object) -> AsyncIterator[Service]:
    authority = CertificateAuthority()
    authority.issue("example", tmp_path / "example")
    authority.issue("edge", tmp_path / "edge")
    port = port or free_port()
    journal = tmp_path / "journal"
    environment = {
        "STOA_PORT": port,
        "STOA_TLS_DIR": tmp_path / "example",
        "STOA_JOURNAL": journal,
        **{f"STOA_{name.upper()}": value for name, value in settings.items()},
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stoa_example"),
        env=os.environ | {name: str(value) for name, value in environment.items()},
        stdout=asyncio.subprocess.PIPE,
    )
    service = Service(process, port, journal, tmp_path)
    try:
        yield service
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 30)
        await service._reading


async def test_a_service_starts_tells_so_and_ends_cleanly(tmp_path: Path) -> None:
    async with started(tmp_path, metrics_port=(metrics := free_port())) as service:
        await service.serving()
        async with service.channel() as channel:
            for name in ("", "chassis_example.Echo"):
                answer = await HealthStub(channel).Check(HealthCheckRequest(service=name))
                assert answer.status == HealthCheckResponse.SERVING
            asked = ServerReflectionStub(channel).ServerReflectionInfo(
                iter([ServerReflectionRequest(list_services="*")])
            )
            names = {s.name async for r in asked for s in r.list_services_response.service}
            assert "chassis_example.Echo" in names
            await EchoStub(channel).Anyone(EchoRequest(text="hi"))
        page = await asyncio.to_thread(
            lambda: urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics").read().decode()
        )
        assert 'stoa_rpc_handled_total{code="OK",method="/chassis_example.Echo/Anyone"} 1.0' in page
        service.process.terminate()
        assert await service.exit_code() == 0
    assert service.logged("serving")[0]["services"] == ["chassis_example.Echo"]
    call = service.logged("call")[0]
    assert (call["method"], call["code"]) == ("/chassis_example.Echo/Anyone", "OK")
    assert service.noted() == [
        *("open first", "open second", "work begins"),
        *("work ends", "close second", "close first"),
    ]


async def test_draining_lets_a_running_call_finish_and_takes_no_new_ones(tmp_path: Path) -> None:
    async with started(tmp_path) as service:
        await service.serving()
        async with service.channel() as channel, service.channel() as late:
            running = asyncio.ensure_future(EchoStub(channel).Anyone(EchoRequest(text="sleep:2")))
            await late.channel_ready()
            await EchoStub(channel).Anyone(EchoRequest())  # it has come after the one that runs
            service.process.terminate()
            await eventually(lambda: service.logged("draining"))
            await asyncio.sleep(0.2)
            for refused in (late, channel):
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await EchoStub(refused).Anyone(EchoRequest(text="too late"), timeout=5)
                assert error.value.code() is grpc.StatusCode.UNAVAILABLE
            assert (await running).text == "sleep:2"
        assert await service.exit_code() == 0
    assert service.noted()[-3:] == ["work ends", "close second", "close first"]


async def test_draining_ends_after_its_time_even_if_a_call_does_not(tmp_path: Path) -> None:
    async with started(tmp_path, drain_seconds=0.5) as service:
        await service.serving()
        async with service.channel() as channel:
            running = asyncio.ensure_future(EchoStub(channel).Anyone(EchoRequest(text="sleep:60")))
            await EchoStub(channel).Anyone(EchoRequest())  # it has come after the one that runs
            began = time.monotonic()
            service.process.terminate()
            with pytest.raises(grpc.aio.AioRpcError):
                await running
        assert await service.exit_code() == 0
        assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mode": "compose-fails"}, "no database today"),
        ({"mode": "unguarded"}, "chassis_example.Unguarded.Guarded is not implemented"),
        ({"mode": "paged"}, "STOA_PAGE_TOKEN_KEY is not set"),
        ({"drain_seconds": "soon"}, "drain_seconds: Input should be a valid number"),
        ({"tls_dir": "/nowhere"}, "no usable certificates in /nowhere"),
        ({"mode": "compose-fails", "workers": 2}, "no database today"),
    ],
)
async def test_a_service_that_cannot_start_says_why_and_exits_with_an_error(
    tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    async with started(tmp_path, **settings) as service:
        assert await service.exit_code() == 1
    assert reason in service.logged("start failed")[0]["reason"]
    assert len(service.noted("close first")) == len(service.noted("open first"))


async def test_a_service_with_lists_starts_with_a_key_for_their_tokens(tmp_path: Path) -> None:
    async with started(tmp_path, mode="paged", page_token_key="key") as service:
        await service.serving()
    assert "chassis_example.Paged" in service.logged("serving")[0]["services"]


async def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    async with started(tmp_path, workers=2) as service:
        await service.serving()
        for workers in (1, 2):
            async with started(tmp_path / str(workers), port=service.port, workers=workers) as second:
                assert await second.exit_code() == 1
            assert f"127.0.0.1:{service.port} is taken" in second.logged("start failed")[0]["reason"]


async def test_a_stop_while_composing_closes_what_was_opened(tmp_path: Path) -> None:
    async with started(tmp_path, mode="compose-hangs") as service:
        await eventually(lambda: service.noted("composing"))
        service.process.terminate()
        assert await service.exit_code() == 0
    assert service.noted()[-2:] == ["close second", "close first"]


async def test_a_service_that_is_not_ready_is_not_healthy(tmp_path: Path) -> None:
    async with started(tmp_path, mode="not-ready") as service:
        await service.serving()
        async with service.channel() as channel:
            answer = await HealthStub(channel).Check(HealthCheckRequest())
            assert answer.status == HealthCheckResponse.NOT_SERVING
            alive = await HealthStub(channel).Check(HealthCheckRequest(service="liveness"))
            assert alive.status == HealthCheckResponse.SERVING


async def test_who_has_no_certificate_may_ask_for_health_at_a_port_of_its_own_and_for_nothing_else(
    tmp_path: Path,
) -> None:
    async with started(tmp_path, health_port=(port := free_port())) as service:
        await service.serving()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for name in ("", "liveness"):
                answer = await HealthStub(channel).Check(HealthCheckRequest(service=name), timeout=30)
                assert answer.status == HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await EchoStub(channel).Anyone(EchoRequest(), timeout=30)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_background_work_that_fails_is_started_again(tmp_path: Path) -> None:
    async with started(tmp_path, mode="work-fails") as service:
        await eventually(lambda: len(service.noted("work begins")) >= 3)
    failures = service.logged("background work failed")
    assert "ValueError: work failed" in failures[0]["exception"]
    assert failures[1]["restart_in"] > failures[0]["restart_in"]


async def test_background_work_that_meets_an_outage_is_tried_again_at_an_even_pace(tmp_path: Path) -> None:
    async with started(tmp_path, mode="work-meets-outage") as service:
        await eventually(lambda: len(service.noted("work begins")) >= 6)
    outages = service.logged("background work waits for what is down")
    times = [datetime.fromisoformat(outage["timestamp"]) for outage in outages]
    assert times[4] - times[0] < timedelta(seconds=6)  # with pauses that double it would be 7.5
    assert "the database is away" in outages[0]["error"]
    assert "exception" not in outages[0]


async def test_a_worker_that_dies_is_replaced_and_all_end_with_the_parent(tmp_path: Path) -> None:
    async with started(tmp_path, workers=2, metrics_port=(metrics := free_port())) as service:
        await eventually(lambda: len(service.logged("worker serves")) == 2)
        first, second = (line["pid"] for line in service.logged("worker serves"))
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: len(service.logged("worker serves")) == 3)
        assert service.logged("worker died")[0]["exit_code"] == -signal.SIGKILL
        async with service.channel() as channel:
            await EchoStub(channel).Anyone(EchoRequest())
        page = await asyncio.to_thread(
            lambda: urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics").read().decode()
        )
        assert 'stoa_rpc_handled_total{code="OK",method="/chassis_example.Echo/Anyone"} 1.0' in page
        service.process.kill()
        await service.process.wait()
        workers = (second, service.logged("worker serves")[2]["pid"])
        await eventually(lambda: not any(alive(worker) for worker in workers))


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return status != "Z"
