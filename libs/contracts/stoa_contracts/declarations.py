"""What is declared of each service: the one place that says what the platform must know of it.

A service's folder has a `service.toml`. What the contracts say already isn't repeated there: whom a service
calls follows from the policies in proto/. `stoa gen` joins the two in the generated package stoa_services, in
which programs find them; this module reads and checks the files. Their form:

    port = 104                # offset from the instance's port base (gRPC); its metrics are a hundred further
    store = "postgres"        # postgres | mongo | redis | opensearch; none for a service without data
    read_model = "postgres"   # the same; only where reads are answered from another store than the data is in
    publishes = []            # topics; a topic has one publisher
    consumes = []             # topics, as the consumer group of the service's name, with a dead-letter topic
    secrets = []              # files that it gets beside those of its store
    companies = []            # companies outside that it calls
    [scale]
    min = 2                   # instances
    max = 6
    [resources]
    memory_mb = 128           # what one process may take
"""

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_TOPIC = re.compile(r"[a-z_]+\.[a-z_]+\Z")
_COMPANY = re.compile(r"[a-z][a-z0-9-]*\Z")
_PORTS = range(100, 200)
_METRICS = 100  # further than the port
_LISTS = ("publishes", "consumes", "secrets", "companies")
_TABLES = {"scale": {"min", "max"}, "resources": {"memory_mb"}}
_KEYS = {"port", "store", "read_model", *_LISTS, *_TABLES}


EDGE = "edge"
"""Whose identity calls for users; no service may have the name."""


class InvalidDeclaration(ValueError):
    """A declaration breaks the form or contradicts another; the message names the file and the key."""


class Store(StrEnum):
    """What keeps a service's data."""

    POSTGRES = "postgres"
    MONGO = "mongo"
    REDIS = "redis"
    OPENSEARCH = "opensearch"


@dataclass(frozen=True, slots=True)
class Scale:
    """How many instances of a service there are, at least and at most."""

    min: int
    max: int


@dataclass(frozen=True, slots=True)
class Resources:
    """What one process of a service may take."""

    memory_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the platform must know of a service."""

    name: str
    """Of its folder, its proto package (stoa.<name>.v1), its consumer group and its SPIFFE id."""

    port: int
    """Where it listens (gRPC), as the offset from the instance's port base."""

    store: Store | None
    """What keeps its data, if it keeps any."""

    read_model: Store | None = None
    """What its processes answer reads from, if that is another store: it can be made anew from the first."""

    publishes: tuple[str, ...]
    """The topics that are its own."""

    consumes: tuple[str, ...]
    """The topics that it reads as a consumer group."""

    calls: tuple[str, ...]
    """The other services that it calls: those whose policies admit it."""

    secrets: tuple[str, ...]
    """The settings that it finds as files beside those of its store."""

    companies: tuple[str, ...]
    """The companies outside that it calls."""

    scale: Scale
    resources: Resources

    @property
    def package(self) -> str:
        """The Python package: `python -m <package>` is the service."""
        return f"stoa_{self.name}"

    @property
    def stores(self) -> tuple[Store, ...]:
        """All that keep something of it."""
        return tuple(store for store in (self.store, self.read_model) if store is not None)

    @property
    def metrics_port(self) -> int:
        """Where its metrics are, as the offset from the instance's port base."""
        return self.port + _METRICS

    @property
    def dead_letters(self) -> str | None:
        """The topic where its consumer group parks what it can't process; None without a group."""
        return f"{self.name}.dlq" if self.consumes else None


def read_all(checkout: Path, calls: Mapping[str, Collection[str]] | None = None) -> tuple[Service, ...]:
    """Read and check services/*/service.toml, in the order of their ports.

    `calls` maps each service to those that it calls, which the files don't say. Raises InvalidDeclaration.
    """
    topics = {path.stem for path in (checkout / "events").glob("*.*.avsc")}
    services = []
    for folder in sorted((checkout / "services").glob("*/")):
        if (folder / "pyproject.toml").exists():  # else a folder that a removed service left behind
            services.append(_Declaration(folder / "service.toml", checkout, topics).read(calls or {}))
    _check_together(services)
    return tuple(sorted(services, key=lambda service: service.port))


def _check_together(services: Collection[Service]) -> None:
    owners: dict[tuple[str, str], str] = {}
    for service in services:
        own = [("port", str(service.port)), *(("publishes", topic) for topic in service.publishes)]
        for key, value in own:
            if (owner := owners.setdefault((key, value), service.name)) != service.name:
                raise InvalidDeclaration(
                    f"services/{service.name}/service.toml: {key} has {value}, which is {owner}'s already"
                )


class _Declaration:
    """One file."""

    def __init__(self, path: Path, checkout: Path, topics: Collection[str]) -> None:
        self._path = path
        self._where = path.relative_to(checkout).as_posix()
        self._topics = topics
        self._values: dict[str, Any] = {}

    def read(self, calls: Mapping[str, Collection[str]]) -> Service:
        name = self._path.parent.name
        try:
            self._values = tomllib.loads(self._path.read_text())
        except FileNotFoundError:
            raise InvalidDeclaration(f"{self._where} is missing") from None
        except ValueError as error:
            raise InvalidDeclaration(f"{self._where} is not TOML: {error}") from None
        if not _NAME.match(name):
            raise self._wrong("the folder's name", "must be small letters, digits and underscores")
        if name == EDGE:
            raise self._wrong("the folder's name", "is the edge's, which speaks for users")
        given = set(self._values)
        for table, keys in _TABLES.items():
            inner = self._values.get(table)
            if isinstance(inner, dict):
                given |= {f"{table}.{key}" for key in inner.keys() - keys}
        if unknown := sorted(given - _KEYS):
            raise self._wrong(unknown[0], "is not known")
        scale = Scale(self._number("scale.min", range(1, 1000)), self._number("scale.max", range(1, 1000)))
        if scale.min > scale.max:
            raise self._wrong("scale.min", "must not be more than scale.max")
        return Service(
            name=name,
            port=self._number("port", _PORTS),
            store=self._store("store"),
            read_model=self._read_model(),
            publishes=self._topics_of("publishes"),
            consumes=self._topics_of("consumes"),
            calls=tuple(sorted(calls.get(name, ()))),
            secrets=self._texts("secrets", _NAME),
            companies=self._texts("companies", _COMPANY),
            scale=scale,
            resources=Resources(self._number("resources.memory_mb", range(16, 1_000_000))),
        )

    def _wrong(self, key: str, what: str) -> InvalidDeclaration:
        return InvalidDeclaration(f"{self._where}: {key} {what}")

    def _number(self, key: str, allowed: range) -> int:
        value: Any = self._values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if type(value) is not int or value not in allowed:
            raise self._wrong(key, f"must be a number from {allowed[0]} to {allowed[-1]}")
        return value

    def _store(self, key: str) -> Store | None:
        value = self._values.get(key)
        if value is None:
            return None
        try:
            return Store(value)
        except ValueError:
            raise self._wrong(key, f"must be one of {', '.join(Store)}") from None

    def _read_model(self) -> Store | None:
        read_model = self._store("read_model")
        if read_model is not None and read_model is self._store("store"):
            raise self._wrong("read_model", f"is {read_model}, which is the store itself")
        return read_model

    def _texts(self, key: str, form: re.Pattern[str]) -> tuple[str, ...]:
        values = self._values.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self._wrong(key, "must be a list of texts")
        for value in values:
            if not form.match(value):
                raise self._wrong(key, f"has {value!r}, which is no name")
            if values.count(value) > 1:
                raise self._wrong(key, f"has {value!r} twice")
        return tuple(values)

    def _topics_of(self, key: str) -> tuple[str, ...]:
        topics = self._texts(key, _TOPIC)
        for topic in topics:
            if topic not in self._topics:
                raise self._wrong(key, f"has {topic!r}, but there is no events/{topic}.avsc")
        return topics
