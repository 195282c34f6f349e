"""The three sizes of a shop: the only numbers that a stack asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The machines that pods run on, x86-64.

    `always` of type `type` are a managed node group, spread over the zones, and hold what the cluster itself
    needs. Karpenter adds others when pods find no room, up to `limit_vcpu` in all; `usual` says how many of
    `usual_type` that is on an average day, for the estimate alone.
    """

    type: str
    always: int
    usual_type: str
    usual: int
    limit_vcpu: int


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """RDS for PostgreSQL: each instance has a standby in another zone, and `replicas` that may be read from.

    `per_service` gives each service an instance of its own; otherwise they share one, with a database each.
    """

    type: str
    storage_gb: int
    storage_limit_gb: int
    per_service: bool
    replicas: int


@dataclass(frozen=True, kw_only=True)
class Kafka:
    """MSK: a multiple of three brokers, as many in each zone."""

    type: str
    brokers: int
    storage_gb: int
    """Of each broker."""


@dataclass(frozen=True, kw_only=True)
class Documents:
    """DocumentDB: a primary, and the rest replicas in other zones that take over."""

    type: str
    instances: int


@dataclass(frozen=True, kw_only=True)
class Cache:
    """ElastiCache for Valkey: one primary with replicas in other zones, one of which takes over."""

    type: str
    replicas: int


@dataclass(frozen=True, kw_only=True)
class Search:
    """OpenSearch Service: a multiple of three data nodes; without a type for masters, they elect one."""

    type: str
    nodes: int
    storage_gb: int
    """Of each node."""
    master_type: str | None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a month brings, as far as it is paid for by use; only the estimate reads it."""

    orders: int
    requests_millions: int
    """Requests to the front door, pages and pictures included."""
    out_gb: int
    """What visitors download."""
    between_zones_gb: int
    through_nat_gb: int
    logs_gb: int
    pictures_gb: int
    documents_gb: int
    document_io_millions: int
    backups_gb: int
    """Kept backups, beyond what the stores have free."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """All that differs between a small shop and a large one."""

    name: str
    nat_gateways: int
    """One for all zones saves money and is an outage of whatever calls companies if its zone fails."""
    endpoint_zones: int
    """In how many zones AWS' own services are reached without the NAT; from the others across zones."""
    nodes: Nodes
    postgres: Postgres
    kafka: Kafka
    documents: Documents
    cache: Cache
    search: Search
    budget_usd: int
    """What a month may cost before operators are told: the estimate and a quarter."""
    usage: Usage


SMALL = Size(
    name="small",
    nat_gateways=1,
    endpoint_zones=1,
    nodes=Nodes(type="m7i.large", always=3, usual_type="m7i.large", usual=1, limit_vcpu=16),
    postgres=Postgres(type="t4g.medium", storage_gb=50, storage_limit_gb=200, per_service=False, replicas=1),
    kafka=Kafka(type="kafka.t3.small", brokers=3, storage_gb=50),
    documents=Documents(type="t4g.medium", instances=2),
    cache=Cache(type="cache.t4g.small", replicas=1),
    search=Search(type="t3.medium.search", nodes=3, storage_gb=20, master_type=None),
    budget_usd=1500,
    usage=Usage(
        orders=15_000,
        requests_millions=10,
        out_gb=200,
        between_zones_gb=200,
        through_nat_gb=50,
        logs_gb=30,
        pictures_gb=50,
        documents_gb=10,
        document_io_millions=50,
        backups_gb=100,
    ),
)

MEDIUM = Size(
    name="medium",
    nat_gateways=3,
    endpoint_zones=3,
    nodes=Nodes(type="m7i.large", always=3, usual_type="m7i.xlarge", usual=5, limit_vcpu=64),
    postgres=Postgres(
        type="r6g.xlarge", storage_gb=400, storage_limit_gb=1600, per_service=False, replicas=1
    ),
    kafka=Kafka(type="kafka.m7g.large", brokers=3, storage_gb=250),
    documents=Documents(type="r6g.large", instances=3),
    cache=Cache(type="cache.m7g.large", replicas=2),
    search=Search(type="r6g.large.search", nodes=3, storage_gb=100, master_type="m6g.large.search"),
    budget_usd=7300,
    usage=Usage(
        orders=300_000,
        requests_millions=200,
        out_gb=4_000,
        between_zones_gb=4_000,
        through_nat_gb=300,
        logs_gb=400,
        pictures_gb=500,
        documents_gb=50,
        document_io_millions=800,
        backups_gb=1_000,
    ),
)

LARGE = Size(
    name="large",
    nat_gateways=3,
    endpoint_zones=3,
    nodes=Nodes(type="m7i.xlarge", always=3, usual_type="m7i.2xlarge", usual=20, limit_vcpu=512),
    postgres=Postgres(
        type="r6g.2xlarge", storage_gb=500, storage_limit_gb=4000, per_service=True, replicas=1
    ),
    kafka=Kafka(type="kafka.m7g.xlarge", brokers=6, storage_gb=1000),
    documents=Documents(type="r6g.xlarge", instances=3),
    cache=Cache(type="cache.r7g.xlarge", replicas=2),
    search=Search(type="r6g.xlarge.search", nodes=6, storage_gb=200, master_type="m6g.large.search"),
    budget_usd=49000,
    usage=Usage(
        orders=3_000_000,
        requests_millions=2_000,
        out_gb=40_000,
        between_zones_gb=40_000,
        through_nat_gb=2_000,
        logs_gb=3_000,
        pictures_gb=2_000,
        documents_gb=200,
        document_io_millions=6_000,
        backups_gb=8_000,
    ),
)

SIZES: Mapping[str, Size] = {size.name: size for size in (SMALL, MEDIUM, LARGE)}
"""The sizes by name, the smallest first."""
