"""gRPC reads its settings while it is imported: whatever a process imports first, they have to be there."""

import os
import subprocess
import sys

import pytest

# Stands in for gRPC's core and tells what it would have found.
_PROGRAM = """
import os, sys
class Look:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            print(os.environ.get("GRPC_EXPERIMENTS", "nothing"))
sys.meta_path.insert(0, Look())
import {module}
"""


@pytest.mark.parametrize(
    "module",
    ["stoa.order.v1.order_pb2_grpc", "stoa_chassis.app", "stoa_chassis.clients", "stoa_order.__main__"],
)
def test_grpc_is_tuned_before_it_is_imported(module: str) -> None:
    assert _found(module) == "-event_engine_client,-event_engine_listener"


def test_whoever_starts_a_process_can_tune_grpc_otherwise() -> None:
    assert _found("stoa_order.__main__", GRPC_EXPERIMENTS="event_engine_fork") == "event_engine_fork"


def _found(module: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    command = [sys.executable, "-c", _PROGRAM.format(module=module)]
    answer = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()[0]
