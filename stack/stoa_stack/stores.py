"""Which server of the stack keeps what kind of store, and how services and operators get to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stoa_contracts.declarations import Service, Store
from stoa_services import SERVICES
from stoa_stack.instance import Instance
from stoa_stack.servers import mongo, opensearch, postgres, valkey


@dataclass(frozen=True)
class StoreServer:
    """A server that keeps the data of services.

    `part` is its name in the stack, `setting` the one by which a service finds it. `url` has the account of a
    service, `read_only_url` one that may read the service's data and change nothing. `elsewhere` tells
    whether the instance was told of another server, so that the part is not started.
    """

    part: str
    setting: str
    url: Callable[[Instance, str], str]
    read_only_url: Callable[[Instance, str], str]
    elsewhere: Callable[[Instance], bool] = lambda _: False


STORES: Mapping[Store, StoreServer] = {
    Store.POSTGRES: StoreServer("postgres", "database_url", postgres.database_url, postgres.read_only_url),
    Store.REDIS: StoreServer("valkey", "redis_url", valkey.redis_url, lambda at, _: valkey.read_only_url(at)),
    # What stands in for MongoDB here knows no users.
    Store.MONGO: StoreServer(
        "mongo",
        "mongo_url",
        lambda at, _: mongo.mongo_url(at),
        lambda at, _: mongo.mongo_url(at),
        lambda at: bool(at.mongo_url),
    ),
    # Without its security plugin OpenSearch knows none either.
    Store.OPENSEARCH: StoreServer(
        "opensearch",
        "opensearch_url",
        lambda at, _: opensearch.opensearch_url(at),
        lambda at, _: opensearch.opensearch_url(at),
        lambda at: bool(at.opensearch_url),
    ),
}


def stores_of(service: Service) -> list[StoreServer]:
    """The servers that keep a service's data and its read model; ValueError if no server here does."""
    try:
        return [STORES[store] for store in service.stores]
    except KeyError as missing:
        raise ValueError(f"{service.name}: the stack has no server for the store {missing.args[0]}") from None


def users_of(store: Store) -> list[str]:
    """The services that keep their data, or their read model, in this kind of store."""
    return [service.name for service in SERVICES.values() if store in service.stores]
