"""Apicurio, the schema registry, with the Confluent API; it keeps its schemas in an H2 file."""

from __future__ import annotations

from stoa_stack.fetch import REGISTRY, Cache
from stoa_stack.instance import Instance
from stoa_stack.part import Part, Report
from stoa_stack.servers import java


def part(at: Instance, cache: Cache) -> Part:
    """The registry."""
    home = cache.path(REGISTRY)
    properties = {
        "quarkus.http.host": at.listen_host,
        "quarkus.http.port": at.port("registry"),
        "quarkus.http.access-log.enabled": "false",
        "quarkus.management.host": "127.0.0.1",
        "quarkus.management.port": at.port("registry-management"),
        "apicurio.storage.kind": "sql",
        "apicurio.storage.sql.kind": "h2",
        "apicurio.datasource.url": f"jdbc:h2:file:{at.state / 'registry' / 'registry'}",
        "apicurio.datasource.jdbc.initial-size": 1,
        "apicurio.datasource.jdbc.min-size": 1,
        "apicurio.datasource.jdbc.max-size": 8,
    }

    def prepare(report: Report) -> None:
        at.folder("registry")
        cache.fetch(REGISTRY, report)

    async def ready() -> None:
        import httpx

        async with httpx.AsyncClient(timeout=5) as client:
            (await client.get(f"{at.registry_url}/subjects")).raise_for_status()

    return Part(
        name="registry",
        command=[
            java.JAVA,
            *java.flags(heap_mb=256),
            *(f"-D{name}={value}" for name, value in properties.items()),
            "-jar",
            home / "quarkus-run.jar",
        ],
        prepare=prepare,
        ready=ready,
        cwd=home,
        ports=[at.port("registry"), at.port("registry-management")],
        url=f"http://{at.address('registry')}",
    )
