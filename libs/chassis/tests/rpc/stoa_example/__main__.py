"""The example service as a process, for tests of start, drain and workers."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chassis_example import echo_pb2_grpc

from stoa_chassis.app import App, run
from stoa_chassis.errors import Unavailable
from stoa_chassis.settings import ServiceSettings
from stoa_example.servicer import EchoServicer, PagedServicer


class Settings(ServiceSettings):
    mode: str = ""
    journal: str = ""


def note(settings: Settings, line: str) -> None:
    if settings.journal:
        with Path(settings.journal).open("a") as journal:
            journal.write(f"{os.getpid()} {line}\n")


async def compose(app: App[Settings]) -> None:
    settings = app.settings

    @asynccontextmanager
    async def resource(name: str) -> AsyncIterator[str]:
        note(settings, f"open {name}")
        try:
            yield name
        finally:
            note(settings, f"close {name}")

    async def work() -> None:
        note(settings, "work begins")
        if settings.mode == "work-fails":
            raise ValueError("work failed")
        if settings.mode == "work-meets-outage":
            raise Unavailable("the database is away")
        try:
            await asyncio.Event().wait()
        finally:
            note(settings, "work ends")

    await app.enter(resource("first"))
    await app.enter(resource("second"))
    match settings.mode:
        case "compose-fails":
            raise RuntimeError("no database today")
        case "unguarded":
            app.serve(echo_pb2_grpc.add_UnguardedServicer_to_server, echo_pb2_grpc.UnguardedServicer())
        case "paged":
            app.serve(echo_pb2_grpc.add_PagedServicer_to_server, PagedServicer())
        case "compose-hangs":
            note(settings, "composing")
            await asyncio.Event().wait()
        case "not-ready":
            app.ready("never", lambda: asyncio.sleep(0, False))
    app.serve(echo_pb2_grpc.add_EchoServicer_to_server, EchoServicer())
    app.background("work", work)


if __name__ == "__main__":
    run("example", Settings, compose)
