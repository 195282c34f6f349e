"""The client of the search engine, against one that does not answer, or says that it can't."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from stoa_chassis import context
from stoa_chassis.opensearch import EngineUnavailable, connect
from stoa_chassis.testing import CertificateAuthority

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server that answers everything in one way, and return its address."""
    servers: list[TestServer] = []

    async def start(answer: Answer, **options: Any) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        servers.append(TestServer(app, scheme="https" if options else "http"))
        await servers[-1].start_server(**options)
        return str(servers[-1].make_url("/"))

    yield start
    for server in servers:
        await server.close()


async def test_who_waits_in_vain_says_so_before_its_caller_gives_up(serve: Serve) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError

    async with connect(await serve(silent), connect_timeout=0) as client:
        with context.bound("", deadline=time.monotonic() + 1):
            with pytest.raises(EngineUnavailable):
                await client.search(body={})
            left = context.remaining()
    assert left is not None
    assert 0 < left < 0.5


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_an_engine_that_says_that_it_can_not_now_is_down(serve: Serve, status: int) -> None:
    async def busy(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"type": "busy"}, "status": status}, status=status)

    async with connect(await serve(busy), connect_timeout=0) as client:
        with pytest.raises(EngineUnavailable):
            await client.search(body={})


async def test_a_url_names_the_authority_of_a_certificate_that_the_system_does_not_know(
    serve: Serve, tmp_path: Path
) -> None:
    async def well(_: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "green"})

    folder = CertificateAuthority().issue("opensearch", tmp_path)
    certified = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certified.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    address = await serve(well, ssl=certified)
    async with connect(f"{address}?ca={folder / 'ca.pem'}", connect_timeout=0) as client:
        assert await client.cluster.health() == {"status": "green"}
    async with connect(address, connect_timeout=0) as client:
        with pytest.raises(EngineUnavailable):
            await client.cluster.health()
