"""The whole shop on an empty cluster, by the commands of docs/deploy.md."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from stoa_cluster import mesh, releases
from stoa_cluster.installation import Installation, namespace
from stoa_cluster.kubernetes import has_sidecar, is_ready, run
from stoa_cluster.stages import Figures, prove
from stoa_cluster.traffic import buy_once
from stoa_services import SERVICES
from stoa_stack import demo_catalogue, shopping
from stoa_stack.instance import CHECKOUT
from stoa_stack.rest import ApiError

_TOOLS = ("edge", "ops", "servers")
_INFRASTRUCTURE = CHECKOUT / "charts" / "infrastructure"
_WHO_USES_WHAT = CHECKOUT / "gen" / "charts" / "infrastructure.yaml"
_TIMEOUT_ANSWER_SECONDS = 20  # as in the tests at home: after this the payment gateway answers what timed out
_INSTALLED_WITHIN = 900.0  # seconds
_ANSWERS_WITHIN = 120.0


async def everything(shop: Installation, figures: Figures) -> None:
    """Install what the shop needs around it and the shop itself; then somebody buys something."""
    async with _timed(figures, "seconds to load the images"):
        await _load_images(shop)
    await mesh.proxies_fetch_keys()
    async with _timed(figures, "seconds to install"):
        async with _timed(figures, "of them for the infrastructure"):
            await _install_infrastructure(shop)
        async with _timed(figures, "of them for topics, schemas, migrations and the shop"):
            await releases.install(shop)
        async with _timed(figures, "of them until the ingress leads to it"):
            await _until_answered(shop)
    await _check_pods(shop, figures)
    async with _timed(figures, "seconds to load the demo catalogue"):
        await _load_catalogue(shop)
    async with _timed(figures, "seconds from an empty cart to a confirmed order"):
        await buy_once(shop)


async def _load_images(shop: Installation) -> None:
    if not shop.load:
        return
    for name in (*SERVICES, *_TOOLS):
        await run("sh", "-c", shop.load.replace("{image}", shop.image(name)), within=300)


async def _install_infrastructure(shop: Installation) -> None:
    await shop.cluster.apply(*(namespace(each, in_mesh=True) for each in _namespaces(shop)))
    await run(str(Path(sys.executable).with_name("stoa")), "secrets")
    await shop.sign_in_as_operator()
    await shop.infrastructure.helm(
        *("upgrade", "--install", "infrastructure", str(_INFRASTRUCTURE)),
        *("--values", str(_WHO_USES_WHAT), "--set", f"image.registry={shop.registry},image.tag={shop.tag}"),
        *("--set-string", f"servers.gateway.env.GATEWAY_TIMEOUT_ANSWER_SECONDS={_TIMEOUT_ANSWER_SECONDS}"),
        *("--wait", "--timeout", f"{_INSTALLED_WITHIN:.0f}s"),
        within=_INSTALLED_WITHIN + 30,
    )


async def _until_answered(shop: Installation) -> None:
    deadline = time.monotonic() + _ANSWERS_WITHIN
    async with shop.http() as http:
        while True:
            try:
                await shop.staff(http)
            except (ApiError, httpx.TransportError) as error:
                prove(time.monotonic() < deadline, f"nobody can sign in through the ingress: {error!r}")
                await asyncio.sleep(1)
            else:
                return


async def _check_pods(shop: Installation, figures: Figures) -> None:
    pods = [
        pod
        for each in _namespaces(shop)
        for pod in await shop.cluster.elsewhere(each).pods()
        if pod["status"]["phase"] != "Succeeded"
    ]
    figures["pods"] = len(pods)
    figures["ready, with their sidecars"] = sum(is_ready(pod) and has_sidecar(pod) for pod in pods)
    figures["containers started again"] = sum(
        each["restartCount"]
        for pod in pods
        for kind in ("containerStatuses", "initContainerStatuses")
        for each in pod["status"].get(kind, ())
    )
    without = [pod["metadata"]["name"] for pod in pods if not (is_ready(pod) and has_sidecar(pod))]
    prove(not without, f"not ready with a sidecar: {', '.join(without)}")


async def _load_catalogue(shop: Installation) -> None:
    known = shopping.access(shop.instance())
    staff, customer = known["staff"], known["demo_customer"]
    await demo_catalogue.load(
        *(shop.url, staff["email"], staff["password"], customer["email"], customer["password"]),
        currency=shop.instance().currency,
    )


def _namespaces(shop: Installation) -> tuple[str, str]:
    return shop.namespaces.shop, shop.namespaces.infrastructure


@asynccontextmanager
async def _timed(figures: Figures, what: str) -> AsyncIterator[None]:
    began = time.monotonic()
    yield
    figures[what] = round(time.monotonic() - began, 1)
