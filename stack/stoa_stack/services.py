"""How a service becomes a part: its environment, its secrets, its identity and its readiness.

All of it follows from the service's declaration and from what the instance is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import stoa_events
from stoa_contracts.declarations import Service
from stoa_stack import fork_server
from stoa_stack.companies import COMPANIES
from stoa_stack.credentials import Secrets, password, signing_key
from stoa_stack.instance import DEFAULT_CURRENCY, Instance
from stoa_stack.part import Part
from stoa_stack.stores import stores_of

STAFF_EMAIL = "staff@stoa.example"
STAFF_SECRET = "staff_password"
STACK_IDENTITY = "stack"  # the identity under which the stack itself asks a service for its health


# What every service takes from the environment of `stoa up`, with the value it has otherwise.
_PASSED_TO_ALL = {
    "STOA_WORKERS": "1",
    "STOA_OTLP_ENDPOINT": "",
    "STOA_LOG_LEVEL": "INFO",
    "STOA_CURRENCY": DEFAULT_CURRENCY,
    "STOA_RATE_LIMITS": "on",
}
# Packages that list what all services have: a service counts as changed by its own entries only.
_REGISTERS = ("stoa_services", "stoa_events")


def part(at: Instance, service: Service, *, contracts: str) -> Part:
    """The service as a part; `contracts` names the step that deploys topics and schemas.

    It is started when its stores, the event contracts and the companies that it calls are there; the services
    that it calls may come later.
    """
    stores = [each.part for each in stores_of(service) if not each.elsewhere(at)]

    async def ready() -> None:
        await check_health(at, service.name)

    return Part(
        name=service.name,
        command=[sys.executable, "-m", service.package],
        needs=(*stores, contracts, *(COMPANIES[name].part for name in service.companies), fork_server.NAME),
        ready=ready,
        # The process that is started again is the same member of its group; one beside it is another.
        env={"STOA_GROUP_INSTANCE_ID": service.name} | environment(at, service),
        packages=[service.package],
        apart=_REGISTERS,
        declared=repr(service),
        reads=[secrets_folder(at, service.name), *_event_modules(service)],
        forked_by=fork_server.NAME,
        ports=[at.port(service.name), at.port(f"{service.name}-metrics")],
        url=f"grpcs://{at.address(service.name)}",
    )


def environment(at: Instance, service: Service) -> dict[str, str]:
    """The environment of a service; its secrets are files in STOA_SECRETS_DIR."""
    place_secrets(at, service)
    variables = {
        "PYTHONUNBUFFERED": "1",
        "STOA_HOST": "127.0.0.1",
        "STOA_PORT": str(at.port(service.name)),
        "STOA_METRICS_PORT": str(at.port(f"{service.name}-metrics")),
        "STOA_TLS_DIR": str(at.state / "certs" / service.name),
        "STOA_SECRETS_DIR": str(secrets_folder(at, service.name)),
        "STOA_JWKS_URL": f"{at.edge_url}/api/v1/auth/jwks",
        "STOA_SHOP_URL": at.edge_url,
        "STOA_JWT_ISSUER": "stoa",
        "STOA_JWT_AUDIENCE": "stoa",
        "STOA_KAFKA_BOOTSTRAP": at.address("kafka"),
        "STOA_SCHEMA_REGISTRY_URL": at.registry_url,
    }
    variables |= {name: at.settings.get(name, default) for name, default in _PASSED_TO_ALL.items()}
    variables |= {f"STOA_{callee.upper()}_TARGET": at.address(callee) for callee in service.calls}
    for company in (COMPANIES[name] for name in service.companies):
        for setting, path in company.url_settings.items():
            variables[f"STOA_{setting.upper()}"] = f"{company.url(at)}{path}"
    # STOA_ORDER__LOG_LEVEL=DEBUG for `stoa up` is STOA_LOG_LEVEL=DEBUG for the order service, and so on.
    own = f"STOA_{service.name.upper()}__"
    overrides = {name: value for name, value in at.settings.items() if name.startswith(own)}
    return variables | {f"STOA_{name.removeprefix(own)}": value for name, value in overrides.items()}


def secrets_folder(at: Instance, service: str) -> Path:
    """The folder that holds one service's secrets, and nobody else's."""
    return at.folder("secrets", service)


def staff_credentials(at: Instance) -> tuple[str, str]:
    """Email and password of the first member of staff."""
    return STAFF_EMAIL, Secrets(at.folder("secrets", "stack")).get(STAFF_SECRET, password)


def place_secrets(at: Instance, service: Service) -> list[Path]:
    """Put what the service keeps secret into its folder: its stores' URLs and what its declaration names.

    Returns the files.
    """
    own = Secrets(secrets_folder(at, service.name))
    for store in stores_of(service):
        own.put(f"stoa_{store.setting}", store.url(at, service.name))
    shared = {name: COMPANIES[company] for company in service.companies for name in COMPANIES[company].shared}
    email, staff_password = staff_credentials(at)
    known = {"staff_email": email, "staff_password": staff_password}
    for name in service.secrets:
        if name in shared:
            own.put(f"stoa_{name}", shared[name].secret(at, name))
        elif name in known:
            own.put(f"stoa_{name}", known[name])
        else:
            own.get(f"stoa_{name}", signing_key if name == "signing_key" else password)
    settings = [store.setting for store in stores_of(service)]
    return [own.folder / f"stoa_{name}" for name in (*settings, *service.secrets)]


def _event_modules(service: Service) -> list[Path]:
    """The generated code of the events that the service knows, and of what events have in common."""
    known = {*service.publishes, *service.consumes}
    others = {payload.TOPIC.replace(".", "_") for payload in stoa_events.TOPICS if payload.TOPIC not in known}
    folder = Path(stoa_events.__file__).parent
    return [
        path for path in sorted(folder.rglob("*.py")) if path.stem not in others and path.stem != "__init__"
    ]


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
