"""The service that does nothing: `python -m stoa_load.empty`, with the settings of any service."""

from typing import Any

from google.protobuf.empty_pb2 import Empty

# Compiled by `baseline` when the bench begins. The messages' module registers the descriptors.
import stoa_bench.empty_pb2  # type: ignore[import-not-found]  # noqa: F401
import stoa_contracts.grpc_tuning  # noqa: F401  # these stubs, compiled elsewhere, do not see to it
from stoa_bench.empty_pb2_grpc import (  # type: ignore[import-not-found]
    BenchServiceServicer,
    add_BenchServiceServicer_to_server,
)
from stoa_chassis.app import App, run
from stoa_chassis.settings import ServiceSettings


class _Servicer(BenchServiceServicer):  # type: ignore[misc]  # generated when the bench begins
    async def Empty(self, request: Empty, context: Any) -> Empty:  # as in the contract
        return request


async def compose(app: App[ServiceSettings]) -> None:
    """Serve it."""
    app.serve(add_BenchServiceServicer_to_server, _Servicer())


if __name__ == "__main__":
    run("bench", ServiceSettings, compose)
