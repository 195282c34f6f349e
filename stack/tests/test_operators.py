"""The accounts of operators, at the real servers: they read everything and change nothing."""

from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from stoa_contracts.declarations import Store
from stoa_services import SERVICES
from stoa_stack.instance import Instance

pytestmark = pytest.mark.stack


def kept_in(store: Store) -> list[str]:
    """The services that keep their own data there; read models, which can be made anew, are not looked at."""
    return [name for name, service in SERVICES.items() if service.store is store]


@pytest.fixture
def folder() -> Path:
    return Instance.current().state / "operator"


@pytest.mark.parametrize("service", kept_in(Store.POSTGRES))
async def test_every_table_of_a_database_can_be_read_and_none_changed(folder: Path, service: str) -> None:
    connection = await asyncpg.connect((folder / f"{service}_url").read_text())
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert tables
        for (table,) in tables:
            await connection.fetch(f'SELECT * FROM "{table}" LIMIT 1')
            for attempt in (f'DELETE FROM "{table}"', f'DROP TABLE "{table}"', f'TRUNCATE "{table}"'):
                await connection.execute("SET default_transaction_read_only = off")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(attempt)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE mine (id int)")
    finally:
        await connection.close()


@pytest.mark.parametrize("service", kept_in(Store.REDIS))
async def test_keys_can_be_read_and_none_changed(folder: Path, service: str) -> None:
    async with Redis.from_url((folder / f"{service}_url").read_text()) as client:
        assert await client.get("stoa:ready") == b"yes"
        assert await client.scan()
        for attempt in (
            ("SET", "stoa:ready", "no"),
            ("DEL", "stoa:ready"),
            ("FLUSHALL",),
            ("CONFIG", "GET", "*"),
        ):
            with pytest.raises(NoPermissionError):
                await client.execute_command(*attempt)  # type: ignore[no-untyped-call]  # the library has no annotation


def test_every_service_can_be_found(folder: Path) -> None:
    for service in SERVICES:
        assert (folder / f"{service}_target").exists()
        assert (folder / f"{service}_metrics_url").exists()
