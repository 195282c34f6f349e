"""How a service of ours becomes a part: its environment, its secrets, its identity and its readiness."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from stoa_stack.credentials import Secrets, password, signing_key
from stoa_stack.instance import Instance
from stoa_stack.part import Part
from stoa_stack.servers import mongo, postgres, valkey

STAFF_EMAIL = "staff@stoa.example"
STACK_IDENTITY = "stack"  # the identity under which the stack itself asks a service for its health


@dataclass(frozen=True)
class Service:
    """A Python service: `python -m stoa_<name>`.

    `stores` are the servers that keep its data, `calls` the services that it calls over gRPC. It is started
    when its stores and the event contracts are there; whom it calls may come later.
    """

    name: str
    stores: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


# What every service takes from the environment of `stoa up`, with the value it has otherwise.
_PASSED_TO_ALL = {"STOA_WORKERS": "1", "STOA_OTLP_ENDPOINT": "", "STOA_LOG_LEVEL": "INFO"}


def part(at: Instance, service: Service, *, contracts: str) -> Part:
    """The service as a part; `contracts` names the step that deploys topics and schemas."""
    stores = tuple(store for store in service.stores if not (store == "mongo" and at.mongo_url))

    async def ready() -> None:
        await check_health(at, service.name)

    return Part(
        name=service.name,
        command=[sys.executable, "-m", f"stoa_{service.name}"],
        needs=(*stores, contracts, *service.needs),
        ready=ready,
        env=environment(at, service),
        packages=[f"stoa_{service.name}"],
        reads=[secrets_folder(at, service.name)],
        ports=[at.port(service.name), at.port(f"{service.name}-metrics")],
        url=f"grpcs://{at.address(service.name)}",
    )


def environment(at: Instance, service: Service) -> dict[str, str]:
    """Everything a service is told from outside, secrets apart: those are files in STOA_SECRETS_DIR."""
    _place_secrets(at, service)
    variables = {
        "PYTHONUNBUFFERED": "1",
        "STOA_HOST": "127.0.0.1",
        "STOA_PORT": str(at.port(service.name)),
        "STOA_METRICS_PORT": str(at.port(f"{service.name}-metrics")),
        "STOA_TLS_DIR": str(at.state / "certs" / service.name),
        "STOA_SECRETS_DIR": str(secrets_folder(at, service.name)),
        "STOA_JWKS_URL": f"{at.edge_url}/api/v1/auth/jwks",
        "STOA_JWT_ISSUER": "stoa",
        "STOA_JWT_AUDIENCE": "stoa",
        "STOA_KAFKA_BOOTSTRAP": at.address("kafka"),
        "STOA_SCHEMA_REGISTRY_URL": at.registry_url,
    }
    variables |= {name: at.settings.get(name, default) for name, default in _PASSED_TO_ALL.items()}
    variables |= {f"STOA_{callee.upper()}_TARGET": at.address(callee) for callee in service.calls}
    if "gateway" in service.needs:
        variables["STOA_GATEWAY_URL"] = f"http://{at.address('gateway')}"
    # STOA_ORDER__LOG_LEVEL=DEBUG for `stoa up` is STOA_LOG_LEVEL=DEBUG for the order service, and so on.
    own = f"STOA_{service.name.upper()}__"
    overrides = {name: value for name, value in at.settings.items() if name.startswith(own)}
    return variables | {f"STOA_{name.removeprefix(own)}": value for name, value in overrides.items()}


def secrets_folder(at: Instance, service: str) -> Path:
    """The folder that holds one service's secrets, and nobody else's."""
    return at.folder("secrets", service)


def gateway_secrets(at: Instance) -> tuple[str, str]:
    """The payment gateway's API key and its webhook secret: shared with it by the payment service alone."""
    stack = Secrets(at.folder("secrets", "stack"))
    return stack.get("gateway_api_key"), stack.get("gateway_webhook_secret")


def staff_credentials(at: Instance) -> tuple[str, str]:
    """Email and password of the first member of staff."""
    return STAFF_EMAIL, Secrets(at.folder("secrets", "stack")).get("staff_password", password)


def _place_secrets(at: Instance, service: Service) -> None:
    own = Secrets(secrets_folder(at, service.name))
    if "postgres" in service.stores:
        own.put("stoa_database_url", postgres.database_url(at, service.name))
    if "valkey" in service.stores:
        own.put("stoa_redis_url", valkey.redis_url(at, service.name))
    if "mongo" in service.stores:
        own.put("stoa_mongo_url", mongo.mongo_url(at))
    if "gateway" in service.needs:
        api_key, webhook_secret = gateway_secrets(at)
        own.put("stoa_gateway_api_key", api_key)
        own.put("stoa_gateway_webhook_secret", webhook_secret)
    if service.name == "user":
        email, staff_password = staff_credentials(at)
        own.put("stoa_staff_email", email)
        own.put("stoa_staff_password", staff_password)
        own.get("stoa_signing_key", signing_key)


async def check_health(at: Instance, service: str) -> None:
    """Ask the service, as a member of the mesh, if it serves; raises if it does not."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # no types

    folder = at.state / "certs" / STACK_IDENTITY
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(folder / "ca.pem").read_bytes(),
        private_key=(folder / "key.pem").read_bytes(),
        certificate_chain=(folder / "cert.pem").read_bytes(),
    )
    options = [("grpc.ssl_target_name_override", f"{service}.stoa.internal")]
    async with grpc.aio.secure_channel(at.address(service), credentials, options) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=3)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise ConnectionError(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
