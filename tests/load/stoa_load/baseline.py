"""The baseline: a service that does nothing, with an edge of its own, on free ports beside the shop.

What a call costs there, no call of the shop can cost less: they are the yardstick on a machine that is not
always equally fast.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc_tools  # type: ignore[import-untyped]  # no types
import httpx

import stoa_gateway
from stoa_gateway import envoy
from stoa_load.cost import Meter
from stoa_stack.certificates import Authority
from stoa_stack.instance import CHECKOUT, Instance

_HERE = Path(__file__).parent
_NAME = "bench"
METHOD = "/stoa.bench.v1.BenchService/Empty"
PATH = "/api/v1/bench/empty"
_READY_WITHIN = 20.0  # seconds


@dataclass(frozen=True)
class Baseline:
    """Where the empty service is, directly and behind its edge."""

    target: str
    edge_url: str
    credentials: grpc.ChannelCredentials

    def channel(self) -> grpc.aio.Channel:
        """A connection to the service without the edge, with the edge's identity."""
        options = [("grpc.ssl_target_name_override", f"{_NAME}.stoa.internal")]
        return grpc.aio.secure_channel(self.target, self.credentials, options)


@asynccontextmanager
async def baseline(at: Instance, meter: Meter) -> AsyncIterator[Baseline]:
    """Run the empty service and its edge for as long as the block, and have the meter read them too."""
    folder = at.folder("bench")
    descriptors = _compile(folder)
    Authority(at.folder("certs")).ensure(_NAME)
    target, edge, admin = (f"127.0.0.1:{port}" for port in _free_ports(3))
    config = stoa_gateway.write(_edge_settings(at, target, edge, admin, descriptors), folder / "edge")
    with contextlib.ExitStack() as running:
        log = running.enter_context((folder / "baseline.log").open("wb"))
        service = _start(
            running, log, [sys.executable, "-m", "stoa_load.empty"], _environment(at, folder, target)
        )
        front = _start(running, log, envoy.command(config))
        meter.further = {"empty service": service, "its edge": front}
        try:
            await _ready(f"http://{edge}{PATH}")
            yield Baseline(target, f"http://{edge}", _credentials(at))
        finally:
            meter.further = {}


def _compile(folder: Path) -> Path:
    """Generate the service's code; returns the descriptor set."""
    out, descriptors = folder / "gen", folder / "empty.binpb"
    out.mkdir(exist_ok=True)
    includes = (_HERE / "protos", CHECKOUT / "proto", CHECKOUT / "third_party")
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"-I{include}" for include in (*includes, Path(grpc_tools.__file__).parent / "_proto")),
            *(f"--python_out={out}", f"--grpc_python_out={out}"),
            *(f"--descriptor_set_out={descriptors}", "--include_imports"),
            "stoa_bench/empty.proto",
        ],
        check=True,
    )
    return descriptors


def _environment(at: Instance, folder: Path, target: str) -> dict[str, str]:
    return {
        "PYTHONPATH": str(folder / "gen"),
        "STOA_PORT": target.rpartition(":")[2],
        "STOA_TLS_DIR": str(at.state / "certs" / _NAME),
        "STOA_JWKS_URL": f"{at.edge_url}/api/v1/auth/jwks",
        "STOA_WORKERS": "1",  # however many the shop's services have
    }


def _edge_settings(
    at: Instance, target: str, edge: str, admin: str, descriptors: Path
) -> stoa_gateway.EdgeSettings:
    return stoa_gateway.EdgeSettings(
        upstreams={_NAME: target},
        tls_dir=at.state / "certs" / "edge",
        port=int(edge.rpartition(":")[2]),
        admin_port=int(admin.rpartition(":")[2]),
        jwks_url=f"{at.edge_url}/api/v1/auth/jwks",
        rate_limits=None,
        descriptors=descriptors,
        openapi=None,
    )


def _start(
    running: contextlib.ExitStack, log: object, command: Sequence[str], env: dict[str, str] | None = None
) -> int:
    process = subprocess.Popen(command, env=os.environ | (env or {}), stdout=log, stderr=log)  # type: ignore[call-overload]  # log is a file
    running.callback(process.wait)
    running.callback(process.terminate)
    return int(process.pid)


async def _ready(url: str) -> None:
    async with httpx.AsyncClient(timeout=2) as client, asyncio.timeout(_READY_WITHIN):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(url)).is_success:
                    return
            await asyncio.sleep(0.1)


def _credentials(at: Instance) -> grpc.ChannelCredentials:
    folder = at.state / "certs" / "edge"
    return grpc.ssl_channel_credentials(
        root_certificates=(folder / "ca.pem").read_bytes(),
        private_key=(folder / "key.pem").read_bytes(),
        certificate_chain=(folder / "cert.pem").read_bytes(),
    )


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_:
        probes = [open_.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
