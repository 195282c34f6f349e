"""Settings that every service has, each from the environment or a mounted file, with local defaults."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from stoa_chassis.currency import known_currency
from stoa_chassis.declared import declaration, default_metrics_port, default_port


class ServiceSettings(BaseSettings):
    """Common variables of all services; a service subclasses those of its store and adds its own.

    `STOA_PORT` sets `port`, and so on. Secrets are files in the folder `STOA_SECRETS_DIR`, named like the
    variable in lower case (`stoa_database_url`), so that they never show in a process list; the environment
    wins over a file.
    """

    model_config = SettingsConfigDict(env_prefix="STOA_", extra="ignore", hide_input_in_errors=True)

    # The ports are those of the service's declaration unless they are set; 0 is none for metrics, else any.
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0)
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0)
    workers: int = Field(default=1, ge=1)
    # A second port, in plaintext, for health checks alone: a kubelet has no certificate. 0 is none.
    health_port: int = Field(default=0, ge=0)

    # Folder with cert.pem, key.pem and ca.pem; empty when a mesh sidecar does mTLS.
    tls_dir: str = ""
    # Identities of callers are SPIFFE ids that start so; the rest is the service's name.
    spiffe_prefix: str = "spiffe://stoa.local/ns/stoa/sa/"
    # True when a sidecar does mTLS and names the caller in x-forwarded-client-cert. Anyone who reaches the
    # port could write that header: a service does not start with it unless both hosts are loopback.
    sidecar_mtls: bool = False

    # More calls at once are refused with RESOURCE_EXHAUSTED: a queue would only make all of them late.
    max_concurrent_rpcs: int = Field(default=200, ge=1)
    # How long running calls may take to finish after SIGTERM.
    drain_seconds: float = Field(default=20, ge=0)

    jwks_url: str = "http://127.0.0.1:8080/api/v1/auth/jwks"
    jwt_issuer: str = "stoa"
    jwt_audience: str = "stoa"

    # host:port, or a URL with an account in it (kafka/connection.py), which is then a file among the secrets.
    kafka_bootstrap: str = Field(default="127.0.0.1:18013", repr=False)
    # Names this process among those of its service, and is the same when it is started again: its consumer
    # then takes its partitions back at once, even after a kill. No two processes may have the same. Empty: it
    # is a new member after each start, and the group waits for one that was killed.
    group_instance_id: str = ""
    # After so long without a sign of life others take a process's partitions. Brokers have a least value.
    group_session_seconds: float = Field(default=3, gt=0)
    schema_registry_url: str = "http://127.0.0.1:18015/apis/ccompat/v7"
    otlp_endpoint: str = ""
    log_level: str = "INFO"

    # How long a start waits for a server that isn't up yet.
    connect_timeout_seconds: float = Field(default=60, gt=0)
    # The one that the whole shop sells in (ISO 4217); a store that was filled in another one is refused.
    currency: Annotated[str, AfterValidator(known_currency)] = "USD"
    # Signs page tokens; all instances of a service need the same. Empty: made from the store's address.
    page_token_key: str = Field(default="", repr=False)

    @classmethod
    def load(cls, service: str) -> Self:
        """Read the settings of a service. Raises ValidationError."""
        settings = cls()
        if (declared := declaration(service)) is not None:
            if "port" not in settings.model_fields_set:
                settings.port = default_port(declared)
            if "metrics_port" not in settings.model_fields_set:
                settings.metrics_port = default_metrics_port(declared)
        return settings

    def become_worker(self, index: int) -> None:
        """Be the settings of one of several workers of a process: what names the process names the worker."""
        if self.group_instance_id:
            self.group_instance_id += f"-{index}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add the secrets folder, which is itself known only from the environment."""
        folder = os.environ.get("STOA_SECRETS_DIR", "")
        if not folder:
            return init_settings, env_settings
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_dir=Path(folder))


class PostgresSettings(ServiceSettings):
    """What a service with a PostgreSQL database has as well."""

    database_url: str = Field(default="", repr=False)
    database_pool_size: int = Field(default=10, ge=1)
    # Who brings the schema up to date: each process as it starts (one does, the others wait), or never one of
    # these: then something else does before, and a process waits for it.
    migrate: Literal["at_start", "never"] = "at_start"

    # A streaming replica that answers reads that may lag. Empty: the primary answers all.
    database_replica_url: str = Field(default="", repr=False)
    # The primary answers instead while the replica is further behind.
    database_replica_max_lag_seconds: float = Field(default=5, gt=0)


class MongoSettings(ServiceSettings):
    """What a service with a MongoDB database has as well."""

    mongo_url: str = Field(default="", repr=False)
    # Empty: named like the service.
    mongo_database: str = ""


class RedisSettings(ServiceSettings):
    """What a service with keys in Redis has as well."""

    redis_url: str = Field(default="", repr=False)


class OpenSearchSettings(ServiceSettings):
    """What a service with indices in OpenSearch has as well."""

    # With user and password, where it asks for them.
    opensearch_url: str = Field(default="", repr=False)
