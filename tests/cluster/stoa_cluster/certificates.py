"""The identities of the mesh are renewed while shoppers buy.

In the values for tests a proxy asks for certificates that are good for minutes, and so for the next one
before the stage has lasted long.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping

from stoa_cluster.installation import Installation
from stoa_cluster.kubernetes import has_sidecar
from stoa_cluster.stages import Figures, Skipped, prove
from stoa_cluster.traffic import traffic

_PROXY = "istio-proxy"
_LONGEST = 15 * 60.0  # seconds: with certificates that are good for longer nothing can be seen
_LOOK_EVERY = 10.0
_AT_ONCE = 4
_SPARE = 90.0  # seconds beyond the time by which all should be new


async def certificates_are_renewed(shop: Installation, figures: Figures) -> None:
    """Let shoppers buy until every proxy of the shop has another certificate than before."""
    before = await _certificates(shop)
    seconds = max((each.seconds for each in before.values()), default=0.0)
    if not before or seconds > _LONGEST:
        raise Skipped(f"the certificates are good for {seconds / 60:.0f} min: set SECRET_TTL of the proxies")
    figures["proxies"] = len(before)
    figures["certificates are good for, s"] = round(seconds)
    old, began = dict(before), time.monotonic()
    async with traffic(shop) as tally:
        while old and time.monotonic() - began < seconds + _SPARE:
            await asyncio.sleep(_LOOK_EVERY)
            now = await _certificates(shop)
            old = {pod: each for pod, each in old.items() if pod in now and now[pod].serial == each.serial}
        figures["seconds until all were new"] = round(time.monotonic() - began)
    figures["renewed"] = len(before) - len(old)
    tally.write(figures)
    prove(not old, f"still the old certificate: {', '.join(sorted(old))}")
    tally.judge(may_fail=0)


class _Certificate:
    def __init__(self, chain: Mapping[str, str]) -> None:
        self.serial = chain["serial_number"]
        self.seconds = _moment(chain["expiration_time"]) - _moment(chain["valid_from"])


async def _certificates(shop: Installation) -> dict[str, _Certificate]:
    """The certificate that each proxy of the shop shows."""
    running = [pod for pod in await shop.cluster.pods() if pod["status"]["phase"] == "Running"]
    pods = [pod["metadata"]["name"] for pod in running if has_sidecar(pod)]
    slots = asyncio.Semaphore(_AT_ONCE)

    async def shown(pod: str) -> _Certificate:
        async with slots:
            said = await shop.cluster.kubectl(
                "exec", pod, "--container", _PROXY, "--", "pilot-agent", "request", "GET", "certs"
            )
        chains = [chain for each in json.loads(said)["certificates"] for chain in each.get("cert_chain", ())]
        return _Certificate(chains[0])

    return dict(zip(pods, await asyncio.gather(*map(shown, pods)), strict=True))


def _moment(text: str) -> float:
    return time.mktime(time.strptime(text.partition(".")[0].rstrip("Z"), "%Y-%m-%dT%H:%M:%S"))
