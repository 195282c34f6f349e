"""Each service as it is shipped: its wheel and those of the libraries alone, in an environment of its own."""

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stoa_chassis.testing import eventually
from stoa_services import SERVICES
from stoa_stack.instance import CHECKOUT
from stoa_stack.throwaway import port_base
from stoa_tools import workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PYTHON = Path(sys.executable)
UV = PYTHON.with_name("uv")
PARTS = ("libs", "gateway", "services")


def uv(*words: str | Path) -> None:
    done = subprocess.run([UV, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"uv {' '.join(map(str, words))}\n{done.stderr}"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel of each library, of the gateway and of each service."""
    folder = tmp_path_factory.mktemp("wheels")
    for member in workspace.members():
        if member.folder.parts[0] in PARTS:
            source = CHECKOUT / member.folder
            uv("build", "--quiet", "--wheel", "--offline", "--no-build-isolation", "--python", PYTHON,
               "--out-dir", folder, source)  # fmt: skip
    return folder


def environment(folder: Path, wheels: Path, name: str) -> Path:
    """Install a wheel and what it depends on into an empty environment; return its Python."""
    uv("venv", "--quiet", "--offline", "--python", PYTHON, folder)
    python = folder / "bin" / "python"
    lock = CHECKOUT / "requirements.lock"
    uv("pip", "install", "--quiet", "--python", python, "--find-links", wheels, "--constraint", lock, name)
    return python


def test_the_gateway_renders_the_edge_from_its_package(wheels: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", wheels, "stoa-gateway")
    upstreams = [f"--upstream={name}=127.0.0.1:{service.port}" for name, service in SERVICES.items()]
    done = subprocess.run(
        [python, "-I", "-m", "stoa_gateway", tmp_path / "edge", *upstreams],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rendered = (tmp_path / "edge" / "envoy.yaml").read_text()
    assert "/api/v1/orders" in rendered
    assert str(CHECKOUT) not in rendered


@pytest.mark.stack
@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_starts_from_its_wheel_alone(wheels: Path, tmp_path: Path, name: str) -> None:
    python = environment(tmp_path / "venv", wheels, f"stoa-{name}")
    with started(python, name, tmp_path) as (process, log):

        async def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return '"ready":true' in log.read_text().replace(" ", "")

        await eventually(is_ready, within=60)
        await asyncio.to_thread(process.terminate)
        assert await asyncio.to_thread(process.wait, 30) == 0, log.read_text()


@contextmanager
def started(python: Path, name: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start the service beside the one of the running stack: as that one is started, on other ports."""
    exports = subprocess.run(
        [PYTHON.with_name("stoa"), "env", name], capture_output=True, text=True, check=True
    ).stdout
    given = dict(shlex.split(line)[1].split("=", 1) for line in exports.splitlines())
    log = folder / "log"
    with port_base() as port, log.open("wb") as output:
        process = subprocess.Popen(
            [python, "-I", "-m", f"stoa_{name}"],
            cwd=folder,
            env={
                **given,
                "STOA_PORT": str(port),
                "STOA_METRICS_PORT": str(port + 1),
                "PATH": os.environ["PATH"],
            },
            stdout=output,
            stderr=output,
        )
        try:
            yield process, log
        finally:
            process.kill()
            process.wait()
