"""No look at a shop dies of what it looks at: a client of the broker that aborts takes the command along."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoa_ops import deploy
from stoa_stack.instance import Instance
from stoa_stack.running import kill
from stoa_stack.status import PartStatus, State, Status, status_file
from stoa_stack.terminal import console
from stoa_stack.throwaway import throwaway

pytestmark = [pytest.mark.stack, pytest.mark.own_stack, pytest.mark.slow, pytest.mark.timeout(900)]
# Twenty take as many starts of a broker: that many on main, and for whoever changes how the broker is read.
_KILLS = int(os.environ.get("STOA_KAFKA_KILLS", "5"))
_READERS = ("kept", "kept", "opened", "opened")
_READS_FOR = 1.0  # seconds between the start of a broker and its end
_START_WITHIN = 120.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Instance]:
    """A broker that nobody else needs, with the topics of the shop."""
    with throwaway(console(), tmp_path / "state", {}, only=["kafka"]) as at:
        deploy.create_topics(at.address("kafka"), replication=1)
        yield at


def test_what_reads_from_a_broker_survives_as_many_kills_of_it_as_there_are(broker: Instance) -> None:
    program = Path(__file__).with_name("reading_kafka.py")
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}  # a crash says where
    readers = [
        subprocess.Popen([sys.executable, program, broker.address("kafka"), how], env=environment)
        for how in _READERS
    ]
    try:
        for number in range(1, _KILLS + 1):
            time.sleep(_READS_FOR)
            restarts = _kafka(broker).restarts
            assert kill(broker, "kafka", console()) == 0
            _is_back(broker, restarts)
            ended = [reader.returncode for reader in readers if reader.poll() is not None]
            assert ended == [], f"after {number} kills; a signal is negative, as {-signal.SIGABRT}"
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def _kafka(at: Instance) -> PartStatus:
    status = Status.read(status_file(at))
    assert status is not None
    return status.parts["kafka"]


def _is_back(at: Instance, restarts: int) -> None:
    deadline = time.monotonic() + _START_WITHIN
    while time.monotonic() < deadline:
        part = _kafka(at)
        if part.restarts > restarts and part.state is State.READY:
            return
        time.sleep(0.1)
    raise AssertionError("the broker does not start again")
