"""Envoy, the edge: its configuration comes from `stoa_gateway`, its place in the stack from here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import stoa_gateway
from stoa_gateway import envoy
from stoa_stack.instance import Instance
from stoa_stack.part import Part


def part(at: Instance, services: Sequence[str]) -> Part:
    """The edge in front of these services."""
    folder = at.state / "edge"
    settings = stoa_gateway.EdgeSettings(
        upstreams={service: at.address(service) for service in services},
        tls_dir=at.state / "certs" / "edge",
        port=at.port("edge"),
        admin_port=at.port("edge-admin"),
        rate_limits=stoa_gateway.RateLimits() if at.rate_limits else None,
    )

    def files() -> dict[Path, bytes]:
        return {folder / name: content for name, content in stoa_gateway.render(settings, folder).items()}

    async def ready() -> None:
        import httpx

        async with httpx.AsyncClient(timeout=5) as client:
            (await client.get(f"http://{at.address('edge-admin')}/ready")).raise_for_status()
            # A request through the edge to a service; its answer is what the edge checks tokens by.
            (await client.get(f"{at.edge_url}/api/v1/auth/jwks")).raise_for_status()

    return Part(
        name="edge",
        command=envoy.command(folder / "envoy.yaml"),
        needs=tuple(services),
        files=files,
        ready=ready,
        ports=[at.port("edge"), at.port("edge-admin")],
        url=at.edge_url,
    )
