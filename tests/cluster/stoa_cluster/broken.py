"""A release that does not come up hurts nobody: the one before it goes on."""

from __future__ import annotations

import asyncio

from stoa_cluster.installation import Installation
from stoa_cluster.kubernetes import CommandFailed, is_ready
from stoa_cluster.stages import Figures, prove
from stoa_cluster.traffic import traffic

_SERVICE = "cart"
# The broker is never reached, so readiness is never true.
_BREAK = "STOA_KAFKA_BOOTSTRAP=nowhere.invalid:9092"
_GIVEN_UP_AFTER = 45.0  # seconds
_WATCHED = 10.0


async def a_release_that_is_never_ready_replaces_nothing(shop: Installation, figures: Figures) -> None:
    """Roll a service out so that no pod of it becomes ready, look, and take it back."""
    before = {pod["metadata"]["name"] for pod in await shop.cluster.pods(_SERVICE) if is_ready(pod)}
    async with traffic(shop) as tally:
        await shop.cluster.kubectl("set", "env", f"deployment/{_SERVICE}", _BREAK)
        try:
            await shop.cluster.rolled_out(_SERVICE, _GIVEN_UP_AFTER)
        except CommandFailed:
            given_up = True
        else:
            given_up = False
        await asyncio.sleep(_WATCHED)
        pods = await shop.cluster.pods(_SERVICE)
        after = {pod["metadata"]["name"] for pod in pods if is_ready(pod)}
        figures["pods that came up"] = len(after - before)
        figures["pods that waited in vain"] = len(pods) - len(after)
        await shop.cluster.kubectl("rollout", "undo", f"deployment/{_SERVICE}")
        figures["seconds to take it back"] = round(await shop.cluster.rolled_out(_SERVICE), 1)
    tally.write(figures)
    prove(given_up, "the broken release was taken for a good one")
    prove(after == before, f"{before} served before the broken release, {after} after it")
    tally.judge()
