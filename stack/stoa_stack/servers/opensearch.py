"""OpenSearch: one node, put together from its published jars, since its distribution comes from elsewhere.

It has the modules that the services use and no others: no scripting, no security plugin. So it knows no
users, and who reaches it may do anything.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from stoa_stack.fetch import OPENSEARCH, Cache
from stoa_stack.files import write_atomically
from stoa_stack.instance import Instance
from stoa_stack.part import Part, Report
from stoa_stack.servers import java, unprivileged

_HEAP_MB = 256
_GREEN_SECONDS = 5


# What a module consists of: its class, and how the names of its jars begin. All other jars are the server's.
_MODULES = {
    "transport-netty4": (
        "org.opensearch.transport.Netty4ModulePlugin",
        ("transport-netty4-client-", "opensearch-netty4-", "netty-"),
    ),
    "analysis-common": (
        "org.opensearch.analysis.common.CommonAnalysisModulePlugin",
        ("analysis-common-",),
    ),
}

_DESCRIPTOR = """\
name={name}
description={name}
version={version}
opensearch.version={version}
java.version=21
classname={classname}
extended.plugins=
has.native.controller=false
"""

# It has to share two cores with everything else: few threads, small caches, no watch over a disk that others
# fill as well. `action.auto_create_index`: a mistyped name is an error.
_CONFIGURATION = """\
cluster.name: stoa
node.name: stoa
discovery.type: single-node
http.host: {host}
http.port: {http}
transport.host: 127.0.0.1
transport.port: {transport}
path.data: {data}
path.logs: {logs}
node.processors: 2
action.auto_create_index: false
bootstrap.system_call_filter: false
cluster.routing.allocation.disk.threshold_enabled: false
cluster.info.update.interval: 10m
monitor.jvm.gc.enabled: false
monitor.fs.refresh_interval: 1m
indices.memory.index_buffer_size: 16mb
indices.fielddata.cache.size: 24mb
indices.requests.cache.size: 4mb
indices.queries.cache.size: 8mb
"""

_LOGGING = f"""{java.LOGGING}\
# What they advise for a large cluster, and a module for arithmetic that the runtime does not have.
logger.bootstrap.name=org.opensearch.bootstrap.BootstrapChecks
logger.bootstrap.level=error
logger.vectors.name=org.apache.lucene.internal.vectorization.VectorizationProvider
logger.vectors.level=error
logger.dangling.name=org.opensearch.gateway.DanglingIndicesState
logger.dangling.level=error
"""


def part(at: Instance, cache: Cache) -> Part:
    """The server; not to be started when STOA_OPENSEARCH_URL names another."""
    folder = at.state / "opensearch"
    home, data, logs = folder / "home", folder / "data", folder / "logs"
    jars = cache.path(OPENSEARCH)
    names = [pin.file_name for pin in cache.pins(OPENSEARCH)]
    archive = java.archive_of(jars)

    def prepare(report: Report) -> None:
        cache.fetch(OPENSEARCH, report)
        _lay_out(jars, names, home)
        for each in (data, logs):
            at.folder("opensearch", each.name)
        unprivileged.give(java.JAVA, folder)

    def files() -> dict[Path, bytes]:
        configuration = _CONFIGURATION.format(
            host=at.listen_host,
            http=at.port("opensearch"),
            transport=at.port("opensearch-transport"),
            data=data,
            logs=logs,
        )
        config = home / "config"
        return {
            config / "opensearch.yml": configuration.encode(),
            config / "log4j2.properties": _LOGGING.encode(),
        }

    async def ready() -> None:
        import httpx

        async with httpx.AsyncClient(timeout=_GREEN_SECONDS + 2, trust_env=False) as client:
            asked = {"wait_for_status": "green", "timeout": f"{_GREEN_SECONDS}s"}
            answer = await client.get(f"http://{at.address('opensearch')}/_cluster/health", params=asked)
            answer.raise_for_status()  # 408 while shards are being opened

    return Part(
        name="opensearch",
        command=[
            *unprivileged.prefix(java.JAVA),
            java.JAVA,
            *java.flags(heap_mb=_HEAP_MB),
            *java.archived(archive),
            "-Djava.locale.providers=SPI,CLDR",
            "--enable-native-access=ALL-UNNAMED",
            "-Dlog4j2.disable.jmx=true",
            "-Dlog4j.shutdownHookEnabled=false",  # the server ends its log itself, after its last line
            f"-Dopensearch.path.home={home}",
            f"-Dopensearch.path.conf={home / 'config'}",
            "-Dopensearch.distribution.type=tar",
            "-Dopensearch.bundled_jdk=false",
            "-cp",
            ":".join(str(jars / name) for name in names if _module(name) is None),
            "org.opensearch.bootstrap.OpenSearch",
        ],
        prepare=prepare,
        files=files,
        ready=ready,
        setup=java.archiving(at, "opensearch", archive),
        cwd=folder,
        ports=[at.port("opensearch"), at.port("opensearch-transport")],
        url=f"http://{at.address('opensearch')}",
    )


def opensearch_url(at: Instance) -> str:
    """Where indices are kept: on the instance's own server, or the one that its environment names."""
    return at.opensearch_url or f"http://{at.address('opensearch')}"


def _lay_out(jars: Path, names: Sequence[str], home: Path) -> None:
    """Make the folder that the server expects of its distribution, its modules being links to the jars."""
    for name in ("bin", "config", "lib", "modules", "plugins"):
        (home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(home / "modules")
    for module, (classname, _) in _MODULES.items():
        folder = home / "modules" / module
        descriptor = _DESCRIPTOR.format(name=module, version=OPENSEARCH.version, classname=classname)
        write_atomically(folder / "plugin-descriptor.properties", descriptor)
        for name in names:
            if _module(name) == module:
                (folder / name).symlink_to(jars / name)


def _module(jar: str) -> str | None:
    """The module that a jar belongs to; None if it is the server's own."""
    for name, (_, beginnings) in _MODULES.items():
        if jar.startswith(beginnings):
            return name
    return None
