"""Releases of the shop: installed, changed, and taken back by Helm."""

from __future__ import annotations

from importlib.resources import as_file, files

from stoa_cluster.installation import Installation
from stoa_stack.instance import CHECKOUT

NAME = "stoa"
CHART = CHECKOUT / "gen" / "charts" / "stoa"
_ENVIRONMENT = CHECKOUT / "charts" / "environments" / "test.yaml"
_WITHIN = 900.0  # seconds


async def install(shop: Installation) -> None:
    """Install the shop with what it is to have on a cluster for tests, and wait until all of it is ready."""
    await _upgrade(shop)


async def change(shop: Installation, *settings: str, within: float = _WITHIN) -> None:
    """Release the shop with some other values (`catalog.scale.min=3`) and wait until all of it is ready.

    What deploys topics and migrates databases has run, and is left out. Raises CommandFailed.
    """
    await _upgrade(
        shop, "--no-hooks", *(word for each in settings for word in ("--set", each)), within=within
    )


async def take_back(shop: Installation) -> None:
    """Go back to the release before."""
    await shop.cluster.helm("rollback", NAME, "--no-hooks", "--wait", within=_WITHIN)


async def _upgrade(shop: Installation, *options: str, within: float = _WITHIN) -> None:
    await shop.cluster.helm("dependency", "build", str(CHART))
    with as_file(files("stoa_cluster").joinpath("values.yaml")) as own:
        image = f"global.defaults.image.registry={shop.registry},global.defaults.image.tag={shop.tag}"
        await shop.cluster.helm(
            *("upgrade", "--install", NAME, str(CHART), "--values", str(_ENVIRONMENT), "--values", str(own)),
            *("--set", image, *options, "--wait", "--timeout", f"{within:.0f}s"),
            within=within + 30,
        )
