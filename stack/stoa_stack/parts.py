"""The whole stack in one table. To add a server or a service, declare it here; all else follows.

Arrows point from a part to what it needs:

    catalogue → edge → services → contracts → kafka, registry
                                → postgres | mongo | valkey
                       payment  → gateway
"""

from __future__ import annotations

import sys
from pathlib import Path

from stoa_stack import deploy, fingerprint, services
from stoa_stack.fetch import Cache
from stoa_stack.instance import Instance
from stoa_stack.part import Part, with_needs
from stoa_stack.servers import edge, kafka, mongo, postgres, registry, valkey
from stoa_stack.services import Service

SERVICES = (
    Service("user", stores=("postgres",)),
    Service("catalog", stores=("mongo",)),
    Service("cart", stores=("valkey",), calls=("catalog", "inventory")),
    Service("order", stores=("postgres",), calls=("user", "catalog", "cart", "payment")),
    Service("payment", stores=("postgres",), needs=("gateway",)),
    Service("inventory", stores=("postgres",), calls=("catalog",)),
)


def parts(at: Instance) -> list[Part]:
    """All parts of an instance."""
    cache = Cache.of_user()
    servers = [
        postgres.part(at, databases=_users_of("postgres")),
        valkey.part(at, users=_users_of("valkey")),
        mongo.part(at, cache),
        kafka.part(at, cache),
        registry.part(at, cache),
        _gateway(at),
    ]
    if at.mongo_url:
        servers = [server for server in servers if server.name != "mongo"]
    contracts = Part(
        name="contracts",  # topics and event schemas
        command=[sys.executable, "-m", "stoa_stack.deploy"],
        needs=("kafka", "registry"),
        env={"STOA_KAFKA_BOOTSTRAP": at.address("kafka"), "STOA_SCHEMA_REGISTRY_URL": at.registry_url},
        reads=[Path(deploy.__file__), *fingerprint.imported("stoa_events").values()],
    )
    ours = [services.part(at, service, contracts=contracts.name) for service in SERVICES]
    front = edge.part(at, services=[service.name for service in SERVICES])
    catalogue = Part(
        name="catalogue",  # of the demo shop, loaded once
        command=[sys.executable, "-m", "stoa_stack.demo_catalogue"],
        needs=(front.name,),
        env={"STOA_STATE": str(at.state)},
        ready_within_seconds=300,
    )
    return [*servers, contracts, *ours, front, catalogue]


def chosen(at: Instance) -> list[Part]:
    """The parts that the instance was asked for, with what they need; all if none was named."""
    every = parts(at)
    names = [part.name for part in every]
    return with_needs(every, [name for name in at.only if name in names] or names)


def _users_of(store: str) -> list[str]:
    return [service.name for service in SERVICES if store in service.stores]


def _gateway(at: Instance) -> Part:
    """The mock of the payment gateway, a company of its own: all it knows of us is a webhook's address."""
    api_key, webhook_secret = services.gateway_secrets(at)

    async def ready() -> None:
        import httpx

        async with httpx.AsyncClient(timeout=3) as client:
            (await client.get(f"http://{at.address('gateway')}/healthz")).raise_for_status()

    return Part(
        name="gateway",
        command=[sys.executable, "-m", "stoa_fakes.payment_gateway"],
        ready=ready,
        env={
            "PYTHONUNBUFFERED": "1",
            "GATEWAY_PORT": str(at.port("gateway")),
            "GATEWAY_STATE": str(at.folder("gateway") / "gateway.sqlite"),
            "GATEWAY_API_KEY": api_key,
            "GATEWAY_WEBHOOK_SECRET": webhook_secret,
            "GATEWAY_WEBHOOK_URL": f"{at.edge_url}/api/v1/payments/webhook",
        }
        | {name: value for name, value in at.settings.items() if name.startswith("GATEWAY_")},
        packages=["stoa_fakes"],
        ports=[at.port("gateway")],
        url=f"http://{at.address('gateway')}",
    )
