"""`stoa deploy`, the deploy step of the event contracts: topics at Kafka, schemas at the registry.

Topics are those that a service declares to publish or read, and a dead-letter topic for each service that
consumes. Services never create a topic nor register a schema; what they find there was deployed by this step,
which can run any number of times: the stack runs it before the services, and so does a Job in a cluster.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # re-exported without saying so
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError
from rich.console import Console
from rich.markup import escape

from stoa_chassis.kafka import connection
from stoa_contracts.events import Payload
from stoa_events import PAYLOADS, TOPICS
from stoa_ops.settings import OperatorSettings
from stoa_services import SERVICES

_log = logging.getLogger(__name__)

_PARTITIONS = 4
_DEAD_LETTER_PARTITIONS = 1  # there are few, and a broker that starts reads every partition there is
_HOUR_MS = 60 * 60 * 1000
_DAY_MS = 24 * _HOUR_MS
_EVENTS = {"retention.ms": str(7 * _DAY_MS)}
_DEAD_LETTERS = {"retention.ms": str(30 * _DAY_MS)}
_TIMEOUT_SECONDS = 30.0
COMPATIBILITY = "FULL_TRANSITIVE"


class ContractRefused(Exception):
    """The registry or the broker does not accept a contract."""


def command(settings: OperatorSettings, console: Console, *, replication: int) -> int:
    """Deploy to the servers that the settings name; 1 if a contract was refused."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    _log.setLevel(logging.INFO)
    try:
        deploy(settings.kafka_bootstrap, settings.schema_registry_url, replication=replication)
    except ContractRefused as refusal:
        console.print(f"[red]Refused:[/] {escape(str(refusal))}")
        return 1
    return 0


def deploy(bootstrap: str, registry_url: str, *, replication: int = 1) -> None:
    """Bring topics and schemas to what the event contracts say; raises ContractRefused, naming which."""
    create_topics(bootstrap, replication=replication)
    used = _topics()
    subjects = {f"{payload.TOPIC}-value": payload.SCHEMA for payload in TOPICS if payload.TOPIC in used}
    register_schemas(registry_url, subjects.items())


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """How a topic is to be created."""

    partitions: int
    config: dict[str, str]


def wanted_topics() -> dict[str, WantedTopic]:
    """The topics that there are to be, dead letters among them."""
    dead_letters = [service.dead_letters for service in SERVICES.values() if service.dead_letters is not None]
    events = {topic: WantedTopic(_PARTITIONS, _retention(PAYLOADS[topic])) for topic in sorted(_topics())}
    return events | dict.fromkeys(dead_letters, WantedTopic(_DEAD_LETTER_PARTITIONS, _DEAD_LETTERS))


def _retention(payload: type[Payload]) -> dict[str, str]:
    """How long the events of a topic are kept: as long as all, unless its contract says how many hours."""
    fields = json.loads(payload.SCHEMA)["fields"]
    (described,) = [each["type"] for each in fields if each["name"] == "payload"]
    if (hours := described.get("stoa.retention_hours")) is None:
        return _EVENTS
    # A segment is deleted as a whole, when the newest in it is old enough.
    milliseconds = str(hours * _HOUR_MS)
    return {"retention.ms": milliseconds, "segment.ms": milliseconds}


def _topics() -> set[str]:
    """The topics that a service publishes or reads."""
    return {topic for service in SERVICES.values() for topic in (*service.publishes, *service.consumes)}


def create_topics(bootstrap: str, *, replication: int) -> None:
    """Create the topics that are missing; those that are there stay as they are."""
    admin = AdminClient(connection(bootstrap))
    there = admin.list_topics(timeout=_TIMEOUT_SECONDS).topics
    missing = [
        NewTopic(name, wanted.partitions, replication, config=wanted.config)
        for name, wanted in wanted_topics().items()
        if name not in there
    ]
    if not missing:
        return
    for name, outcome in admin.create_topics(missing, operation_timeout=_TIMEOUT_SECONDS).items():
        try:
            outcome.result()
        except KafkaException as error:
            if (
                error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS
            ):  # a deploy at the same time was faster
                raise ContractRefused(f"topic {name}: {error}") from error
        _log.info("created topic %s", name)


def register_schemas(registry_url: str, schemas: Iterable[tuple[str, str]]) -> None:
    """Register each subject's schema, if it isn't, under FULL_TRANSITIVE compatibility."""
    registry = SchemaRegistryClient({"url": registry_url})
    there = set(registry.get_subjects())
    for subject, text in schemas:
        schema = Schema(text, "AVRO")
        try:
            if subject not in there:
                registry.register_schema(subject, schema)
                registry.set_compatibility(subject, COMPATIBILITY)
                _log.info("registered %s", subject)
                continue
            registry.set_compatibility(subject, COMPATIBILITY)
            registry.register_schema(subject, schema)
        except SchemaRegistryError as error:
            raise ContractRefused(f"schema {subject}: {error}") from error
