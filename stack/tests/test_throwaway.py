"""An instance that is made for one purpose, with the server that starts fastest."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stoa_stack.instance import Instance
from stoa_stack.processes import orphans
from stoa_stack.status import Status, is_running, status_file
from stoa_stack.terminal import console
from stoa_stack.throwaway import port_base, throwaway

_WAITING = """
import sys, time
from pathlib import Path
from stoa_stack.terminal import console
from stoa_stack.throwaway import throwaway
with throwaway(console(), Path(sys.argv[1]), {}, only=["valkey"]):
    print("in the block", flush=True)
    time.sleep(100)
"""


def test_it_runs_within_the_block_with_its_settings_and_the_environment_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    monkeypatch.setenv("STOA_STATE", "/elsewhere")
    with throwaway(console(), state, {"STOA_ORDER__LOG_LEVEL": "DEBUG"}, only=["valkey"]) as at:
        assert at.state == state
        assert is_running(at)
        assert at.settings["STOA_ORDER__LOG_LEVEL"] == "DEBUG"
        assert Instance.current() == at
        with socket.create_connection(("127.0.0.1", at.port("valkey"))):
            pass
    assert not is_running(at)
    with socket.socket() as again:
        again.bind(("127.0.0.1", at.port_base + 999))  # is nobody's any more, and the base another's to take
    assert os.environ["STOA_STATE"] == "/elsewhere"
    assert "STOA_ORDER__LOG_LEVEL" not in os.environ


def test_two_that_look_at_the_same_moment_get_ports_of_their_own() -> None:
    look = "from stoa_stack.throwaway import port_base\nwith port_base() as base: print(base)"
    with port_base() as ours, port_base() as another:
        theirs = subprocess.run([sys.executable, "-c", look], stdout=subprocess.PIPE, check=True)
        assert len({ours, another, int(theirs.stdout)}) == 3


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_is_stopped_when_its_maker_is_told_to_end(tmp_path: Path, end: signal.Signals) -> None:
    state = tmp_path / "state"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STOA_")}
    maker = subprocess.Popen(
        # What is started in the background inherits that SIGINT is ignored; a maker in a terminal does not.
        ["env", "--default-signal=INT", sys.executable, "-c", _WAITING, state],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert maker.stdout is not None
    assert any("in the block" in line for line in maker.stdout)
    maker.send_signal(end)
    maker.communicate(timeout=60)
    assert maker.returncode != 0
    at = Instance.current({"STOA_STATE": str(state)})
    status = Status.read(status_file(at))
    assert status is not None
    assert not is_running(at)
    assert orphans(state, status.parts.values()) == []
