"""Compiles the example contract, whose code is needed by nothing but these tests."""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc_tools  # type: ignore[import-untyped]  # no types
import pytest
from grpc_tools import protoc

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
_compiled = TemporaryDirectory(prefix="chassis-example-")
_status = protoc.main(
    [
        "protoc",
        *(f"-I{folder}" for folder in (HERE / "protos", ROOT / "proto", ROOT / "third_party")),
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        f"--python_out={_compiled.name}",
        f"--grpc_python_out={_compiled.name}",
        "chassis_example/echo.proto",
    ]
)
assert _status == 0, "the example contract does not compile"
sys.path[:0] = [_compiled.name, str(HERE)]
# For services that tests start as processes of their own.
os.environ["PYTHONPATH"] = os.pathsep.join([_compiled.name, str(HERE), os.environ.get("PYTHONPATH", "")])


@pytest.fixture
async def echo() -> AsyncIterator[object]:
    """The example service, in this process."""
    from chassis_example import echo_pb2_grpc

    from stoa_chassis.testing import serve_in_process
    from stoa_example.servicer import EchoServicer

    async with serve_in_process(echo_pb2_grpc.add_EchoServicer_to_server, EchoServicer()) as server:
        yield server
