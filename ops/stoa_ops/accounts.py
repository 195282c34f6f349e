"""`stoa accounts`: the roles, databases and users of a shop at servers that somebody else runs.

The folder STOA_OPS_ACCOUNTS_DIR has a file for each account, `…_url`, with the URL by which it will connect,
and one for each server, `master_…_url`, with that of who may make accounts there. Each owns its database, but
for `reader_…_url`, which reads it. What is there already gets the password of its file and its rights again:
so servers learn of new passwords.

The local stack and charts/infrastructure make their accounts themselves.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
from opensearchpy import AsyncOpenSearch
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure
from rich.console import Console

FOLDER = "STOA_OPS_ACCOUNTS_DIR"
_MASTER = "master_"
_READER = "reader_"
_ROUNDS = 4096
_USER_EXISTS = 51003  # MongoDB's code
_OWNED_INDICES = ["*"]  # the domain is the shop's; its security is not in an index that these reach


class NoMaster(Exception):
    """Nobody who may make an account is known for its server; the message names both."""


@dataclass(frozen=True)
class Account:
    """Who connects to what, as a URL says it."""

    scheme: str
    host: str
    user: str
    password: str
    database: str
    reads: bool
    """And changes nothing."""

    @classmethod
    def of(cls, url: str, *, reads: bool = False) -> Account:
        """Read a URL."""
        parts = urlsplit(url)
        return cls(
            parts.scheme,
            parts.hostname or "",
            unquote(parts.username or ""),
            unquote(parts.password or ""),
            parts.path.strip("/"),
            reads,
        )


def command(console: Console) -> int:
    """Make all accounts that the folder has; 2 if there is no folder, 1 if a server has no master."""
    folder = Path(os.environ.get(FOLDER, ""))
    if not os.environ.get(FOLDER) or not folder.is_dir():
        console.print(f"{FOLDER} names no folder.")
        return 2
    urls = {path.name: path.read_text().strip() for path in sorted(folder.glob("*_url"))}
    try:
        asyncio.run(make(urls))
    except NoMaster as missing:
        console.print(str(missing), soft_wrap=True)
        return 1
    console.print(f"{sum(not name.startswith(_MASTER) for name in urls)} accounts are as they should be")
    return 0


async def make(urls: Mapping[str, str]) -> None:
    """Make the accounts of these files, server by server. Raises NoMaster, and what a client raises."""
    masters = {Account.of(url).host: url for name, url in urls.items() if name.startswith(_MASTER)}
    at_servers: dict[str, list[Account]] = defaultdict(list)
    for name, url in urls.items():
        if not name.startswith(_MASTER):
            account = Account.of(url, reads=name.startswith(_READER))
            if account.host not in masters:
                raise NoMaster(f"{name}: no {_MASTER}… is of {account.host}")
            at_servers[account.host].append(account)
    for host, accounts in at_servers.items():
        await _MAKERS[accounts[0].scheme](masters[host], accounts)


async def _postgres(master: str, accounts: Collection[Account]) -> None:
    connection = await asyncpg.connect(master, timeout=10)
    try:
        for account in sorted(accounts, key=lambda account: account.reads):  # databases before who reads them
            await _role(connection, account)
            if account.reads:
                await _reader(connection, account)
            else:
                await _database(connection, account)
    finally:
        await connection.close()


async def _role(connection: asyncpg.Connection, account: Account) -> None:
    if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", account.user):
        await connection.execute(f'CREATE ROLE "{account.user}" LOGIN')
    # The server is given what it keeps, not the password: statements like this one are logged.
    await connection.execute(f"ALTER ROLE \"{account.user}\" PASSWORD '{scram(account.password)}'")


async def _database(connection: asyncpg.Connection, account: Account) -> None:
    if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", account.database):
        # A master that is no superuser gives a database only to a role that it may be itself.
        await connection.execute(f'GRANT "{account.user}" TO CURRENT_USER')
        await connection.execute(f'CREATE DATABASE "{account.database}" OWNER "{account.user}"')
    await connection.execute(f'REVOKE CONNECT ON DATABASE "{account.database}" FROM PUBLIC')


async def _reader(connection: asyncpg.Connection, account: Account) -> None:
    await connection.execute(f'GRANT pg_read_all_data, pg_read_all_stats TO "{account.user}"')
    await connection.execute(f'ALTER ROLE "{account.user}" SET default_transaction_read_only = on')
    await connection.execute(f'GRANT CONNECT ON DATABASE "{account.database}" TO "{account.user}"')


async def _mongo(master: str, accounts: Collection[Account]) -> None:
    rights: dict[str, list[dict[str, str]]] = defaultdict(list)
    for account in accounts:
        role = "read" if account.reads else "readWrite"
        rights[account.user].append({"role": role, "db": account.database})
    passwords = {account.user: account.password for account in accounts}
    async with AsyncMongoClient[dict[str, object]](master) as client:
        for user, roles in rights.items():
            told: dict[str, Any] = {"pwd": passwords[user], "roles": roles}
            try:
                await client.admin.command({"createUser": user, **told})
            except OperationFailure as error:
                if error.code != _USER_EXISTS:
                    raise
                await client.admin.command({"updateUser": user, **told})


async def _opensearch(master: str, accounts: Collection[Account]) -> None:
    async with AsyncOpenSearch(hosts=[master]) as client:
        for account in accounts:
            actions = ["read", "indices_monitor"] if account.reads else ["indices_all"]
            where = {"index_patterns": _OWNED_INDICES, "allowed_actions": actions}
            rights = {
                "cluster_permissions": ["cluster_monitor", "cluster_composite_ops"],
                "index_permissions": [where],
            }
            user = {"password": account.password, "opendistro_security_roles": [account.user]}
            for kind, content in (("roles", rights), ("internalusers", user)):
                await client.transport.perform_request(
                    "PUT", f"/_plugins/_security/api/{kind}/{account.user}", body=content
                )


def scram(password: str, salt: bytes = b"") -> str:
    """What PostgreSQL keeps of a password (RFC 5803)."""
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ROUNDS)
    stored = hashlib.sha256(_keyed(salted, b"Client Key")).digest()
    kept = f"{_text(stored)}:{_text(_keyed(salted, b'Server Key'))}"
    return f"SCRAM-SHA-256${_ROUNDS}:{_text(salt)}${kept}"


def _keyed(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


_MAKERS: Mapping[str, Callable[[str, Collection[Account]], Awaitable[None]]] = {
    "postgresql": _postgres,
    "mongodb": _mongo,
    "https": _opensearch,
}
