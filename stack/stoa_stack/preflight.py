"""What must hold before anything is started."""

from __future__ import annotations

import errno
import platform
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # no types

from stoa_contracts.declarations import InvalidDeclaration, Service, read_all
from stoa_services import SERVICES
from stoa_stack.instance import CHECKOUT
from stoa_stack.part import Part

DISK_GB = 2.0
MEMORY_GB = 3.0
_GB = 2**30
_PLATFORMS = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "x86_64"), ("Darwin", "arm64")}


class NotPossible(Exception):
    """The stack can't be started here and now; the message says why and what to do."""


def check_machine(state: Path, *, whole: bool) -> None:
    """Raise NotPossible on an unknown platform, or with too little disk or, for the whole stack, memory."""
    here = (platform.system(), platform.machine())
    if here not in _PLATFORMS:
        raise NotPossible(
            f"the servers come for Linux and macOS on x86-64 and ARM; this is {here[0]} on {here[1]}"
        )
    place = next(folder for folder in (state, *state.parents) if folder.exists())
    free = shutil.disk_usage(place).free / _GB
    if free < DISK_GB:
        raise NotPossible(f"{free:.1f} GB are free at {place}; {DISK_GB:.0f} GB are needed")
    memory = psutil.virtual_memory().available / _GB
    if whole and memory < MEMORY_GB:
        raise NotPossible(f"{memory:.1f} GB of memory are available; {MEMORY_GB:.0f} GB are needed")


def check_declarations(checkout: Path = CHECKOUT, generated: Mapping[str, Service] = SERVICES) -> None:
    """Raise NotPossible if a service.toml is wrong or says something else than what was generated from it.

    Services run with what was generated: one whose new topic is not there fails at the first event. The
    services that a service calls are not compared, since no service.toml has them.
    """
    try:
        services = read_all(checkout, {name: service.calls for name, service in generated.items()})
    except InvalidDeclaration as problem:
        raise NotPossible(str(problem)) from problem
    declared = {service.name: service for service in services}
    stale = [
        f"services/{name}/service.toml {difference}"
        for name in dict.fromkeys((*declared, *generated))
        if (difference := _difference(declared.get(name), generated.get(name)))
    ]
    if stale:
        raise NotPossible("\n".join([*stale, "`make gen` generates it anew."]))


def _difference(declared: Service | None, generated: Service | None) -> str:
    if declared is None:
        return "is gone, but gen/ still has the service"
    if generated is None:
        return "is new, and gen/ does not have the service yet"
    keys = [each.name for each in fields(Service)
            if getattr(declared, each.name) != getattr(generated, each.name)]  # fmt: skip
    return f"was edited, and gen/ has other values of {', '.join(keys)}" if keys else ""


def check_ports(parts: Sequence[Part]) -> None:
    """Raise NotPossible if a port of a part is in use, naming both and, if it can be seen, the user of it."""
    taken = [f"port {port}, which {part.name} needs, is taken{_by_whom(port)}"
             for part in parts for port in part.ports if _is_taken(port)]  # fmt: skip
    if taken:
        hint = (
            "Stop what uses it, or choose others: STOA_EDGE_PORT for the edge, STOA_PORT_BASE for the rest."
        )
        raise NotPossible("\n".join([*taken, hint]))


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # a connection in TIME_WAIT is no hindrance
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno in (errno.EADDRINUSE, errno.EACCES)
    return False


def _by_whom(port: int) -> str:
    try:
        pids = {
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid
        }
        return "".join(f" by {psutil.Process(pid).name()} (pid {pid})" for pid in sorted(pids))
    except psutil.Error:
        return ""
