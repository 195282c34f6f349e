"""Nobody notices when pods go: not when a release replaces them, and hardly when one is killed."""

from __future__ import annotations

import asyncio
import random
import time

from stoa_cluster.books import audit
from stoa_cluster.installation import Installation
from stoa_cluster.kubernetes import is_ready
from stoa_cluster.stages import Figures, prove
from stoa_cluster.traffic import traffic
from stoa_stack.percentile import percentile

_REPLICAS = 2
_BACK_WITHIN = 120.0  # seconds
_LOOK_EVERY = 0.5
_CALM = 5.0  # seconds before the first and after the last that is done


async def every_service_is_rolled(shop: Installation, figures: Figures) -> None:
    """Replace all pods of every service and of the edge, one after the other, while shoppers buy."""
    await _two_of_each(shop)
    seconds: dict[str, float] = {}
    async with traffic(shop) as tally:
        await asyncio.sleep(_CALM)
        for name in shop.deployments:
            await shop.cluster.kubectl("rollout", "restart", f"deployment/{name}")
            seconds[name] = round(await shop.cluster.rolled_out(name), 1)
        await asyncio.sleep(_CALM)
    figures["seconds to roll"] = seconds
    figures["seconds to roll all"] = round(sum(seconds.values()))
    tally.write(figures)
    tally.judge()
    await audit(shop, figures)


async def any_pod_is_killed(shop: Installation, figures: Figures) -> None:
    """Kill a pod of every service and of the edge, without a word to it, while shoppers buy."""
    await _two_of_each(shop)
    seconds: dict[str, float] = {}
    async with traffic(shop) as tally:
        await asyncio.sleep(_CALM)
        for name in shop.deployments:
            victim = random.choice(await shop.cluster.pods(name))["metadata"]["name"]
            began = time.monotonic()
            await shop.cluster.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
            await _until_ready(shop, name, victim)
            seconds[name] = round(time.monotonic() - began, 1)
        await asyncio.sleep(_CALM)
    figures["killed pods"] = len(seconds)
    figures["seconds until two were ready again"] = seconds
    figures["the same, p50"] = round(percentile(list(seconds.values()), 50), 1)
    tally.write(figures)
    tally.judge()
    await audit(shop, figures)


async def _two_of_each(shop: Installation) -> None:
    for name in shop.deployments:
        ready = [pod for pod in await shop.cluster.pods(name) if is_ready(pod)]
        prove(len(ready) >= _REPLICAS, f"{name} has {len(ready)} pods that are ready, not {_REPLICAS}")


async def _until_ready(shop: Installation, name: str, gone: str) -> None:
    deadline = time.monotonic() + _BACK_WITHIN
    while time.monotonic() < deadline:
        pods = [pod for pod in await shop.cluster.pods(name) if pod["metadata"]["name"] != gone]
        if sum(map(is_ready, pods)) >= _REPLICAS:
            return
        await asyncio.sleep(_LOOK_EVERY)
    prove(False, f"{name} has not two ready pods {_BACK_WITHIN:g} s after one was killed")
