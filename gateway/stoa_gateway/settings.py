"""The settings of an edge: where it listens, where the services are, whose tokens it trusts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stoa_contracts.descriptors import DESCRIPTORS, OPENAPI


@dataclass(frozen=True)
class Limit:
    """A token bucket: so many requests a second, and so many at once after a pause."""

    per_second: int
    burst: int


@dataclass(frozen=True)
class RateLimits:
    """Limits for each address and each user, and for each address where accounts are made or opened."""

    by_address: Limit = Limit(per_second=100, burst=400)
    by_user: Limit = Limit(per_second=30, burst=150)
    sign_in: Limit = Limit(per_second=5, burst=30)


@dataclass(frozen=True)
class EdgeSettings:
    """Where the edge listens, where the services are (name → host:port), and which tokens it trusts.

    `tls_dir` has the edge's own cert.pem, key.pem and ca.pem; without it services are called in plaintext.
    In a mesh there is a `sidecar`, which does mTLS: an upstream is a name by which the sidecar finds all
    instances of a service, so it is for the sidecar to watch which of them answer.

    `jwks_url` is the issuer's key set, fetched again every `jwks_seconds`; by default the edge asks itself,
    which leads to the user service. `trusted_hops` says how many proxies in front of the edge may add to
    x-forwarded-for. `timeouts` has the seconds of RPCs that differ from the rest, by name
    (stoa.payment.v1.PaymentService/RefundPayment). `access_log` is a file, by default standard output.
    `trace_endpoint` is the host:port of an OTLP collector (gRPC); without it the edge makes no spans.
    """

    upstreams: Mapping[str, str]
    tls_dir: Path | None = None
    sidecar: bool = False
    host: str = "127.0.0.1"
    port: int = 8080
    admin_port: int = 18081
    jwks_url: str = ""
    jwks_seconds: int = 60
    jwt_issuer: str = "stoa"
    jwt_audience: str = "stoa"
    spiffe_prefix: str = "spiffe://stoa.local/ns/stoa/sa/"
    rate_limits: RateLimits | None = field(default_factory=RateLimits)
    cors_origins: tuple[str, ...] = ("http://localhost:5173", "http://127.0.0.1:5173")
    trusted_hops: int = 0
    max_body_bytes: int = 1024 * 1024
    max_response_bytes: int = 16 * 1024 * 1024
    timeouts: Mapping[str, float] = field(default_factory=dict)
    access_log: str = ""
    trace_endpoint: str = ""
    descriptors: Path = DESCRIPTORS
    openapi: Path | None = OPENAPI
