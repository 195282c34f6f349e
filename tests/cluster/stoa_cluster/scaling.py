"""There are as many pods of a service as its load needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httpx

from stoa_cluster import releases
from stoa_cluster.installation import Installation
from stoa_cluster.kubernetes import CommandFailed, Thing
from stoa_cluster.stages import Figures, Skipped, prove
from stoa_stack.rest import ApiError, Client

_SERVICE = "catalog"
# Readers and proxies leave a pod little of two cores: it is busy if it uses three times what it does at rest,
# and wanted for half a minute after.
_SETTINGS = ("autoscaling.enabled=true", "autoscaling.cpu=20m", "autoscaling.calmSeconds=30", "scale.max=4")
_READERS = 48
_UP_WITHIN = 180.0  # seconds
_DOWN_WITHIN = 600.0
_LOOK_EVERY = 2.0


async def pods_follow_the_load(shop: Installation, figures: Figures) -> None:
    """Read the catalogue without a pause until there are more pods, then stop until there are no more."""
    try:
        await shop.cluster.kubectl("top", "pods")
    except CommandFailed as error:
        raise Skipped(f"the cluster does not measure what pods use: {error}") from error
    await releases.change(shop, *(f"{_SERVICE}.{setting}" for setting in _SETTINGS))
    try:
        await _follow(shop, figures)
    finally:
        await releases.change(shop)


async def _follow(shop: Installation, figures: Figures) -> None:
    least = (await _scaler(shop))["spec"]["minReplicas"]
    figures["pods at least"] = least
    figures["pods at most"] = (await _scaler(shop))["spec"]["maxReplicas"]
    await _until(shop, lambda pods: pods == least, _DOWN_WITHIN, "did not come to rest before the load")
    ended = asyncio.Event()
    failed: list[str] = []
    async with shop.http(limits=httpx.Limits(max_connections=_READERS)) as http:
        reading = [
            asyncio.create_task(_read_on(Client(http, tries=1), ended, failed)) for _ in range(_READERS)
        ]
        try:
            began = time.monotonic()
            await _until(shop, lambda pods: pods > least, _UP_WITHIN, "was not scaled up")
            figures["seconds until more were wanted"] = round(time.monotonic() - began)
            await shop.cluster.rolled_out(_SERVICE)
            figures["seconds until they were ready"] = round(time.monotonic() - began)
            figures["pods under load"] = (await _scaler(shop))["status"]["desiredReplicas"]
            figures["CPU of a pod under load"] = _used(await _scaler(shop))
        finally:
            ended.set()
            requests = sum(await asyncio.gather(*reading))
    figures["requests"] = requests
    figures["failed requests"] = len(failed)
    began = time.monotonic()
    await _until(shop, lambda pods: pods == least, _DOWN_WITHIN, "was not scaled down")
    figures["seconds until they were gone"] = round(time.monotonic() - began)
    prove(not failed, f"{len(failed)} of {requests} reads failed: {failed[0] if failed else ''}")


async def _scaler(shop: Installation) -> Thing:
    return await shop.cluster.get("hpa", _SERVICE)


def _used(scaler: Thing) -> str:
    for metric in scaler["status"].get("currentMetrics") or ():
        if metric["type"] == "ContainerResource":
            used: str = metric["containerResource"]["current"]["averageValue"]
            return used
    return "unknown"


async def _until(shop: Installation, holds: Callable[[int], bool], within: float, otherwise: str) -> None:
    deadline = time.monotonic() + within
    while not holds(wanted := (await _scaler(shop))["status"].get("desiredReplicas", 0)):
        prove(time.monotonic() < deadline, f"{_SERVICE} {otherwise} within {within:g} s: {wanted} pods")
        await asyncio.sleep(_LOOK_EVERY)


async def _read_on(client: Client, ended: asyncio.Event, failed: list[str]) -> int:
    count = 0
    while not ended.is_set():
        count += 1
        try:
            await client.list_products(page_size=50)
        except (ApiError, httpx.TransportError) as error:
            failed.append(repr(error))
    return count
