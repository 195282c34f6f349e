"""Accounts at servers that somebody else runs: on PostgreSQL itself, and what the others are told."""

import os
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from rich.console import Console

from stoa_ops import accounts


def url_of(server: str, user: str, password: str, database: str) -> str:
    where = urlsplit(server)
    return f"postgresql://{user}:{password}@{where.hostname}:{where.port}/{database}"


async def refused(url: str, statement: str) -> bool:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError):
        return True
    finally:
        await connection.close()
    return False


@pytest.mark.stack
async def test_a_service_owns_its_database_and_operators_read_it() -> None:
    server = os.environ["STOA_TEST_POSTGRES"]
    name, reader = f"test_{uuid4().hex}", f"reader_{uuid4().hex}"
    urls = {
        "master_postgres_shared_url": server,
        "coupon_database_url": url_of(server, name, "first", name),
        "reader_coupon_url": url_of(server, reader, "other", name),
    }
    master = await asyncpg.connect(server)
    try:
        await accounts.make(urls)
        owner = await asyncpg.connect(urls["coupon_database_url"])
        await owner.execute("CREATE TABLE coupons (code text)")
        await owner.close()
        assert not await refused(urls["reader_coupon_url"], "SELECT * FROM coupons")
        assert await refused(urls["reader_coupon_url"], "INSERT INTO coupons VALUES ('SPRING')")

        urls["coupon_database_url"] = url_of(server, name, "second", name)
        await accounts.make(urls)
        await (await asyncpg.connect(urls["coupon_database_url"])).close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url_of(server, name, "first", name))
    finally:
        await master.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await master.execute(f'DROP ROLE IF EXISTS "{name}"')
        await master.execute(f'DROP ROLE IF EXISTS "{reader}"')
        await master.close()


def test_postgres_is_given_what_it_keeps_and_no_password() -> None:
    """The example of RFC 7677, of which PostgreSQL keeps the salt and two keys."""
    kept = accounts.scram("pencil", salt=bytes.fromhex("5b6d99689d123596898e5abf6d8a4aa4"))
    assert kept.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNZaJjlq/bYpKpA==$")
    assert "pencil" not in kept
    assert accounts.scram("pencil") != accounts.scram("pencil"), "a salt of its own"


async def test_a_server_of_which_nobody_may_make_accounts_is_named() -> None:
    with pytest.raises(accounts.NoMaster, match=r"order_database_url.*db\.example"):
        await accounts.make({"order_database_url": "postgresql://order:x@db.example/order"})


def test_without_a_folder_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("", str(tmp_path / "missing")):
        monkeypatch.setenv(accounts.FOLDER, folder)
        assert accounts.command(Console(quiet=True)) == 2


def test_files_that_are_no_urls_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "rds-ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    monkeypatch.setenv(accounts.FOLDER, str(tmp_path))
    assert accounts.command(Console(quiet=True)) == 0
