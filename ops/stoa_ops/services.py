"""Finds what each service brings for its operators: its module `audit` (see stoa_chassis.audit)."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stoa_chassis.audit import Finding, Waiting
from stoa_contracts.declarations import Service
from stoa_services import SERVICES


@dataclass(frozen=True, slots=True)
class ServiceAudit:
    """What a service's module has, None for a function that it has not.

    `noted` are the topics whose events the service's consumer group notes in its inbox.
    """

    service: Service
    read: Callable[[Any], Awaitable[Any]] | None
    findings: Callable[[Any], Iterable[Finding]] | None
    waiting: Callable[[Any], Awaitable[Iterable[Waiting]]] | None
    noted: Collection[str]


@functools.cache
def audits() -> Sequence[ServiceAudit]:
    """What every service brings; raises ModuleNotFoundError if one is not installed."""
    return [_audit(service) for service in SERVICES.values()]


def consuming() -> Sequence[Service]:
    """The services that consume events as a group."""
    return [service for service in SERVICES.values() if service.consumes]


def _audit(service: Service) -> ServiceAudit:
    importlib.import_module(service.package)
    name = f"{service.package}.audit"
    module = importlib.import_module(name) if importlib.util.find_spec(name) else None
    return ServiceAudit(
        service,
        read=getattr(module, "read", None),
        findings=getattr(module, "findings", None),
        waiting=getattr(module, "waiting", None),
        noted=getattr(module, "NOTED", service.consumes),
    )
