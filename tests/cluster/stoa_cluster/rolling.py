"""Nobody notices when pods go: not when a release replaces them, and hardly when one is killed."""

from __future__ import annotations

import asyncio
import json
import random
import time
from datetime import datetime

from stoa_cluster.books import audit
from stoa_cluster.installation import Installation
from stoa_cluster.kubernetes import is_ready
from stoa_cluster.stages import Figures, prove
from stoa_cluster.traffic import traffic
from stoa_services import SERVICES
from stoa_stack.percentile import percentile

_REPLICAS = 2
_BACK_WITHIN = 120.0  # seconds
_LOOK_EVERY = 0.5
_CALM = 5.0  # seconds before the first and after the last that is done
_BEGAN = """
import os, time
started = int(open("/proc/1/stat").read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
print(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + started)
"""


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
    figures["seconds from a process's start until it serves"] = {
        name: await _slowest_start(shop, name) for name in SERVICES
    }
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


async def _slowest_start(shop: Installation, service: str) -> float:
    """Of the pods of a service, the longest that one took from its first instruction until it served."""
    return max([await _start(shop, pod["metadata"]["name"]) for pod in await shop.cluster.pods(service)])


async def _start(shop: Installation, pod: str) -> float:
    lines = [json.loads(line) for line in (await shop.cluster.logs(pod)).splitlines() if line[:1] == "{"]
    serves = next(line["timestamp"] for line in lines if line["event"] == "serving")
    began = float(await shop.cluster.python(pod, _BEGAN))
    return round(datetime.fromisoformat(serves).timestamp() - began, 1)


async def _until_ready(shop: Installation, name: str, gone: str) -> None:
    deadline = time.monotonic() + _BACK_WITHIN
    while time.monotonic() < deadline:
        pods = [pod for pod in await shop.cluster.pods(name) if pod["metadata"]["name"] != gone]
        if sum(map(is_ready, pods)) >= _REPLICAS:
            return
        await asyncio.sleep(_LOOK_EVERY)
    prove(False, f"{name} has not two ready pods {_BACK_WITHIN:g} s after one was killed")
