"""A new version of the catalogue gets a growing share of the calls, and then all or none, by what it answers.

Argo Rollouts does it, by its own manifests and from its own source; what it measures by comes from
VictoriaMetrics, which stands in for Prometheus (metrics.yaml). Both are built here at their first use, into
images of one file each.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from pathlib import Path

import httpx

from stoa_cluster import releases
from stoa_cluster.installation import METRICS_PORT, Installation, namespace
from stoa_cluster.kubernetes import CommandFailed, Thing, run
from stoa_cluster.stages import Figures, Skipped, prove
from stoa_cluster.traffic import Tally, traffic
from stoa_stack.rest import ApiError, Client
from stoa_tools.images.builders import Builder, BuilderFailed
from stoa_tools.programs import PROGRAMS, BuildFailed, program, source

_SERVICE = "catalog"
_CONTROLLER, _METRICS = "rollouts-controller", "victoria-metrics"
_CONTROLLERS = "argo-rollouts"
_RECIPE = 'FROM scratch\nCOPY program /program\nUSER 65534:65534\nENTRYPOINT ["/program"]\n'
_UNNAMED = "quay.io/argoproj/argo-rollouts:latest"
_WEIGHTS = (20, 50)
_DELIVERY = (
    "rollout.enabled=true",
    "rollout.pause=30s",
    f"rollout.weights={{{','.join(map(str, _WEIGHTS))}}}",
    "rollout.analysis.prometheus=http://prometheus.monitoring:9090",
    "rollout.analysis.interval=10s",
    "rollout.analysis.count=2",
    "rollout.analysis.failures=0",
)
# Another version by an annotation that nobody reads; a bad one can check no token, so who has one is failed.
_GOOD = "podAnnotations.version=good"
_BAD = "settings.jwks_url=http://127.0.0.1:9/none"
_DECIDED_WITHIN = 300.0  # seconds
_LOOK_EVERY = 1.0
_ASKED = 20
_PUBLIC = "/api/v1/products?page_size=1"
_KNOWN_WITHIN = 20.0  # seconds
_ANSWERED = f"""
import urllib.request
page = urllib.request.urlopen("http://127.0.0.1:{METRICS_PORT}/metrics").read().decode()
lines = [line for line in page.splitlines() if line.startswith("stoa_rpc_handled_total")]
print(sum(float(line.rsplit(" ", 1)[1]) for line in lines if "ListProducts" in line))
"""


async def a_version_is_judged_by_what_it_answers(shop: Installation, figures: Figures) -> None:
    """Release a good version and a bad one, while shoppers buy; raises Skipped if Rollouts can't be had."""
    await _install(shop, figures)
    await releases.change(shop, *_of_the_service(*_DELIVERY))
    try:
        await _until(shop, lambda status: status.get("phase") == "Healthy", "took over")
        await _good(shop, figures)
        await _bad(shop, figures)
    finally:
        await releases.change(shop)


async def _good(shop: Installation, figures: Figures) -> None:
    before = (await _status(shop))["stableRS"]
    async with _released(shop, _GOOD) as tally:
        asked_for = await _only_who_asks_gets_it(shop, before)
        began, weights = time.monotonic(), set[int]()
        while (status := await _status(shop)).get("phase") != "Healthy":
            weights.add(_weight(status))
            prove(
                status.get("phase") != "Degraded", f"a good version was taken back: {status.get('message')}"
            )
            prove(time.monotonic() - began < _DECIDED_WITHIN, f"a good version is not promoted: {status}")
            await asyncio.sleep(_LOOK_EVERY)
    figures["calls that asked for the new version by x-canary, and got it"] = asked_for
    figures["shares of the calls that it had, %"] = sorted(weights)
    figures["seconds until it was promoted"] = round(time.monotonic() - began)
    _write(figures, "while a good version came", tally)
    prove(weights >= {*_WEIGHTS}, f"the new version had {sorted(weights)} % of the calls, not {_WEIGHTS}")
    prove((await _status(shop))["stableRS"] != before, "the version before is still the stable one")
    tally.judge()


async def _bad(shop: Installation, figures: Figures) -> None:
    before = (await _status(shop))["stableRS"]
    async with _released(shop, _GOOD, _BAD) as tally:
        began = time.monotonic()
        status = await _until(shop, lambda status: bool(status.get("abort")), "took a bad version back")
        figures["seconds until a bad version was taken back"] = round(time.monotonic() - began)
        await _until(shop, lambda status: _weight(status) == 0, "has no call go to a bad version")
    figures["why"] = status.get("message", "")
    _write(figures, "while a bad version came and went", tally)
    prove((await _status(shop))["stableRS"] == before, "a bad version has become the stable one")
    prove(not tally.lost, f"{len(tally.lost)} orders were lost, such as: {'; '.join(tally.lost[:3])}")


async def _only_who_asks_gets_it(shop: Installation, before: str) -> int:
    """Ask as somebody who wants the new version; returns how many of these calls it has answered."""

    def paused(status: Thing) -> bool:
        return bool(status.get("pauseConditions")) and status["currentPodHash"] != before

    await _until(shop, paused, "waits with the new version")
    prove(_weight(await _status(shop)) == 0, "the new version has calls that nobody meant for it")
    (pod,) = [
        each["metadata"]["name"]
        for each in await shop.cluster.pods(_SERVICE)
        if each["metadata"]["labels"].get("rollouts-pod-template-hash") not in (None, before)
    ]
    deadline = time.monotonic() + _KNOWN_WITHIN  # proxies learn of a new route one by one
    async with shop.http() as http:
        while (answered := await _ask_for_it(shop, http, pod)) != _ASKED:
            known = f"of {_ASKED} calls that asked for the new version, it answered {answered}"
            prove(time.monotonic() < deadline, known)
    return answered


async def _ask_for_it(shop: Installation, http: httpx.AsyncClient, pod: str) -> int:
    before = await _answered_by(shop, pod)
    for _ in range(_ASKED):
        await http.get(_PUBLIC, headers={"x-canary": _SERVICE})
    return int(await _answered_by(shop, pod) - before)


async def _answered_by(shop: Installation, pod: str) -> float:
    return float(await shop.cluster.python(pod, _ANSWERED))


@asynccontextmanager
async def _released(shop: Installation, *settings: str) -> AsyncIterator[Tally]:
    """Release the service with these settings, under load that sees much of the catalogue."""
    ended = asyncio.Event()
    async with traffic(shop) as tally, shop.http() as http:
        staff = await shop.staff(http)
        reading = asyncio.create_task(_read_on(staff, ended))
        try:
            await releases.change(shop, *_of_the_service(*_DELIVERY, *settings))
            yield tally
        finally:
            ended.set()
            await reading


async def _read_on(client: Client, ended: asyncio.Event) -> None:
    while not ended.is_set():
        with suppress(ApiError, httpx.TransportError):
            await client.list_products(page_size=5)
        await asyncio.sleep(0.05)


def _of_the_service(*settings: str) -> list[str]:
    return [f"{_SERVICE}.{setting}" for setting in settings]


def _weight(status: Thing) -> int:
    return int(((status.get("canary") or {}).get("weights") or {}).get("canary", {}).get("weight", 0))


async def _status(shop: Installation) -> Thing:
    """What the controller says of the version that was released last; nothing before it has seen that."""
    rollout = await shop.cluster.get("rollout", _SERVICE)
    status: Thing = rollout.get("status", {})
    return status if status.get("observedGeneration") == str(rollout["metadata"]["generation"]) else {}


async def _until(shop: Installation, holds: Callable[[Thing], bool], what: str) -> Thing:
    deadline = time.monotonic() + _DECIDED_WITHIN
    while not holds(status := await _status(shop)):
        prove(
            time.monotonic() < deadline, f"it is not so within {_DECIDED_WITHIN:g} s that it {what}: {status}"
        )
        await asyncio.sleep(_LOOK_EVERY)
    return status


def _write(figures: Figures, when: str, tally: Tally) -> None:
    own: Figures = {}
    tally.write(own)
    figures[when] = own


# ------------------------------------------------------------------------------------- what it takes


async def _install(shop: Installation, figures: Figures) -> None:
    began = time.monotonic()
    try:
        images = {name: await _image(shop, name) for name in (_CONTROLLER, _METRICS)}
        manifests = await asyncio.to_thread(lambda: source(_CONTROLLERS) / "manifests" / "install.yaml")
    except (BuilderFailed, BuildFailed, CommandFailed) as error:
        raise Skipped(f"Argo Rollouts and VictoriaMetrics can't be built here: {error}") from error
    figures["seconds to build and load what delivers"] = round(time.monotonic() - began)
    theirs = shop.cluster.elsewhere(_CONTROLLERS)
    await shop.cluster.apply(namespace(_CONTROLLERS, in_mesh=False))
    install = manifests.read_text().replace(_UNNAMED, images[_CONTROLLER])
    install = install.replace("imagePullPolicy: Always", "imagePullPolicy: IfNotPresent")
    await theirs.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", given=install)
    metrics = files("stoa_cluster").joinpath("metrics.yaml").read_text()
    monitoring = shop.cluster.elsewhere("monitoring")
    await monitoring.kubectl("apply", "-f", "-", given=metrics.replace("IMAGE", images[_METRICS]))
    await theirs.rolled_out(_CONTROLLERS)
    await monitoring.rolled_out("prometheus")


async def _image(shop: Installation, name: str) -> str:
    """Build a program and an image of it, and hand that to the nodes; returns its name."""
    tag = f"localhost/{name}:{PROGRAMS[name].version}"
    binary = await asyncio.to_thread(program, name, shop.console.print)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shutil.copy(binary, place / "program")
        (place / "Containerfile").write_text(_RECIPE)
        await asyncio.to_thread(Builder.find().build, place, place / "Containerfile", tag, {})
    if shop.load:
        await run("sh", "-c", shop.load.replace("{image}", tag), within=300)
    return tag
