"""Kafka: one node that is broker and KRaft controller."""

from __future__ import annotations

import asyncio
import base64
import secrets
import subprocess
from pathlib import Path

from stoa_stack.fetch import KAFKA, Cache
from stoa_stack.files import write_atomically
from stoa_stack.instance import Instance
from stoa_stack.part import Part, Report
from stoa_stack.servers import java

_PROBE_TOPIC = "stoa.ready"

# After a kill the controller waits for the end of the broker's session before the new broker may come in; a
# consumer that was killed is replaced at the end of its own, which by default may not be shorter than 6 s.
# The broker reads the last segment of every partition again, and makes its indexes anew: so both are small.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
listeners=PLAINTEXT://{listen},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{broker}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=100
log.segment.bytes=67108864
log.index.size.max.bytes=262144
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
background.threads=2
"""


def part(at: Instance, cache: Cache) -> Part:
    """The broker."""
    folder = at.state / "kafka"
    jars = cache.path(KAFKA)
    archive = java.archive_of(jars)

    def prepare(report: Report) -> None:
        cache.fetch(KAFKA, report)
        if not (folder / "data" / "meta.properties").exists():
            report("formatting the log")
            for path, content in files().items():
                write_atomically(path, content)
            _format(jars, folder)

    def files() -> dict[Path, bytes]:
        properties = _PROPERTIES.format(
            listen=f"{at.listen_host}:{at.port('kafka')}",
            broker=at.address("kafka"),
            controller=at.address("kafka-controller"),
            data=folder / "data",
        )
        return {
            folder / "server.properties": properties.encode(),
            folder / "log4j2.properties": java.LOGGING.encode(),
        }

    async def ready() -> None:
        await asyncio.to_thread(_probe, at.address("kafka"))

    return Part(
        name="kafka",
        command=[
            java.JAVA,
            *java.flags(heap_mb=192),
            *java.archived(archive),
            f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
            "-cp",
            f"{jars}/*",
            "kafka.Kafka",
            folder / "server.properties",
        ],
        prepare=prepare,
        files=files,
        ready=ready,
        setup=java.archiving(at, "kafka", archive),
        cwd=folder,
        ports=[at.port("kafka"), at.port("kafka-controller")],
        url=at.address("kafka"),
    )


def cluster_id() -> str:
    """A fresh id of a cluster: 16 bytes in base64url, as Kafka writes an id.

    It begins with a letter, since the first bit is 0: no program takes it for an option.
    """
    first, *others = secrets.token_bytes(16)
    return base64.urlsafe_b64encode(bytes([first & 0x7F, *others])).decode().rstrip("=")


def _format(jars: Path, folder: Path) -> None:
    tool = [str(java.JAVA), *java.flags(heap_mb=128), "-cp", f"{jars}/*", "kafka.tools.StorageTool", "format"]
    result = subprocess.run(
        [
            *tool,
            "--ignore-formatted",
            f"--cluster-id={cluster_id()}",
            f"--config={folder / 'server.properties'}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise RuntimeError(f"formatting Kafka's log failed: {(result.stderr or result.stdout).strip()}")


def _probe(bootstrap: str) -> None:
    """Produce a record and have it acknowledged, on a topic of our own; raises if that does not work."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

    quiet: dict[str, str | int | float | bool] = {
        "bootstrap.servers": bootstrap,
        "log_level": 0,
        "socket.timeout.ms": 3000,
    }
    admin = AdminClient(quiet)
    if _PROBE_TOPIC not in admin.list_topics(timeout=3).topics:
        topic = NewTopic(_PROBE_TOPIC, num_partitions=1, config={"retention.ms": "60000"})
        admin.create_topics([topic])[_PROBE_TOPIC].result(timeout=5)
    producer = Producer(quiet | {"message.timeout.ms": 3000})
    problems: list[object] = []
    producer.produce(_PROBE_TOPIC, b"ready", on_delivery=lambda error, _: problems.append(error))
    producer.flush(5)
    if problems != [None]:
        raise ConnectionError(f"produce: {problems[0] if problems else 'not acknowledged'}")
