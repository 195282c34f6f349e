"""The `stoa` command on an instance of its own, with the server that starts fastest."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # no types
import pytest

from stoa_chassis.testing import eventually
from stoa_stack.status import State, Status
from stoa_stack.throwaway import port_base


class Stoa:
    """Runs `stoa` for one instance."""

    def __init__(self, state: Path, port_base: int) -> None:
        self.state = state
        self.port_base = port_base
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("STOA_")}
        self.env |= {"STOA_STATE": str(state), "STOA_PORT_BASE": str(self.port_base)}

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "stoa_stack.cli", *arguments],
            env=self.env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    @property
    def status(self) -> Status:
        status = Status.read(self.state / "run" / "status.json")
        assert status is not None
        return status

    def pid(self, part: str) -> int:
        pid = self.status.parts[part].pid
        assert pid is not None
        return pid


@pytest.fixture
def stoa(tmp_path: Path) -> Iterator[Stoa]:
    with port_base() as base:
        stoa = Stoa(tmp_path / "state", base)
        yield stoa
        stoa("down")


def test_up_makes_the_part_ready_and_down_leaves_no_process(stoa: Stoa) -> None:
    up = stoa("up", "--only", "valkey")
    assert up.returncode == 0, up.stdout + up.stderr
    assert f"127.0.0.1:{stoa.port_base + 11}" in up.stdout
    parts = json.loads(stoa("status", "--json").stdout)["parts"]
    assert {name: part["state"] for name, part in parts.items()} == {"valkey": "ready"}
    access = json.loads((stoa.state / "access.json").read_text())
    assert access["edge_url"] == f"http://127.0.0.1:{stoa.port_base + 80}"
    server = psutil.Process(stoa.pid("valkey"))
    assert stoa("down").returncode == 0
    assert not server.is_running()
    assert stoa("status").returncode == 3


def test_a_second_up_adds_what_was_asked_for_and_restarts_nothing(stoa: Stoa) -> None:
    stoa("up", "--only", "valkey")
    before, supervisor = stoa.pid("valkey"), stoa.status.pid
    again = stoa("up", "--only", "gateway")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "gateway is new" in again.stdout
    assert stoa.status.parts.keys() == {"valkey", "gateway"}
    assert (stoa.pid("valkey"), stoa.status.pid) == (before, supervisor)
    assert "runs what the checkout has" in stoa("up").stdout


def test_apply_restarts_what_has_other_settings_and_status_says_so_before(stoa: Stoa) -> None:
    assert stoa("apply").returncode == 3
    stoa("up", "--only", "valkey,gateway")
    valkey, gateway = stoa.pid("valkey"), stoa.pid("gateway")
    assert json.loads(stoa("status", "--json").stdout)["stale"] == {}
    stoa.env["GATEWAY_TIMEOUT_ANSWER_SECONDS"] = "7"
    apply = stoa("apply")
    assert apply.returncode == 0, apply.stdout + apply.stderr
    assert "gateway runs other code or settings" in apply.stdout
    assert stoa.pid("valkey") == valkey
    assert stoa.pid("gateway") != gateway
    assert psutil.Process(stoa.pid("gateway")).environ()["GATEWAY_TIMEOUT_ANSWER_SECONDS"] == "7"
    del stoa.env["GATEWAY_TIMEOUT_ANSWER_SECONDS"]  # a setting stays until it is taken back
    assert "runs what the checkout has" in stoa("apply").stdout
    secret = next((stoa.state / "secrets" / "stack").glob("gateway_api_key"))
    secret.write_text("another")
    status = stoa("status").stdout
    assert "gateway runs other code or settings" in status
    assert "run `stoa apply`" in status


def test_a_taken_port_is_named_with_who_needs_it_and_nothing_is_started(stoa: Stoa) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", stoa.port_base + 11))
        taken.listen()
        up = stoa("up", "--only", "valkey,mongo")
        assert up.returncode == 1
        assert f"port {stoa.port_base + 11}, which valkey needs, is taken" in up.stdout
        assert f"pid {os.getpid()}" in up.stdout
    assert stoa("status").returncode == 3


def test_an_unknown_part_is_refused(stoa: Stoa) -> None:
    up = stoa("up", "--only", "nobody")
    assert up.returncode == 2
    assert "valkey" in up.stdout


async def test_kill_and_restart_bring_the_part_back(stoa: Stoa) -> None:
    stoa("up", "--only", "valkey")
    for command in ("kill", "restart"):
        before = stoa.pid("valkey")
        assert stoa(command, "valkey").returncode == 0
        await eventually(partial(_is_back, stoa, before))


def test_what_a_killed_supervisor_left_is_stopped_by_down_and_replaced_by_up(stoa: Stoa) -> None:
    stoa("up", "--only", "valkey")
    orphan = psutil.Process(stoa.pid("valkey"))
    os.kill(stoa.status.pid, signal.SIGKILL)
    assert stoa("status").returncode == 3
    assert orphan.is_running()
    assert stoa("up", "--only", "valkey").returncode == 0
    assert not orphan.is_running()
    orphan = psutil.Process(stoa.pid("valkey"))
    os.kill(stoa.status.pid, signal.SIGKILL)
    stoa("down")
    assert not orphan.is_running()


def test_the_ports_of_the_last_start_are_remembered(stoa: Stoa) -> None:
    stoa("up", "--only", "valkey")
    del stoa.env["STOA_PORT_BASE"]
    stoa("down")
    assert f"127.0.0.1:{stoa.port_base + 11}" in stoa("up", "--only", "valkey").stdout


def test_data_is_kept_over_a_restart_and_gone_after_a_reset(stoa: Stoa) -> None:
    stoa("up", "--only", "valkey")
    password = (stoa.state / "secrets" / "stack" / "valkey_default_password").read_text()
    stoa("down")
    assert (stoa.state / "valkey" / "appendonlydir").exists()
    stoa("up", "--only", "valkey")
    assert (stoa.state / "secrets" / "stack" / "valkey_default_password").read_text() == password
    stoa("reset")
    assert not stoa.state.exists()


def test_a_failing_part_gives_its_name_reason_and_log(stoa: Stoa) -> None:
    stoa("up", "--only", "valkey")
    stoa("down")
    manifest = next((stoa.state / "valkey" / "appendonlydir").glob("*.manifest"))
    manifest.write_text("nonsense\n")
    up = stoa("up", "--only", "valkey")
    assert up.returncode == 1
    assert "valkey did not start: ended with exit code 1" in up.stdout
    assert "AOF manifest" in up.stdout
    assert stoa("status").returncode == 3


def test_a_service_gets_its_own_secrets_and_no_others(stoa: Stoa) -> None:
    exports = dict(
        line.removeprefix("export ").split("=", 1) for line in stoa("env", "payment").stdout.splitlines()
    )
    assert exports["STOA_PORT"] == str(stoa.port_base + 105)
    names = sorted(path.name for path in Path(exports["STOA_SECRETS_DIR"]).iterdir())
    assert names == ["stoa_database_url", "stoa_gateway_api_key", "stoa_gateway_webhook_secret"]
    assert (Path(exports["STOA_TLS_DIR"]) / "cert.pem").exists()


def _is_back(stoa: Stoa, old: int) -> bool:
    part = stoa.status.parts["valkey"]
    return part.state is State.READY and part.pid != old
