"""What the programs that play staff and a shopper do to a running shop."""

import asyncio
import sys
from pathlib import Path

from tests.e2e.shop import Shop


async def run(*module: str) -> str:
    """Run a module to its end, which must be a good one, and return what it showed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *module, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    shown, _ = await process.communicate()
    assert process.returncode == 0, shown.decode()
    return shown.decode()


async def stock(shop: Shop) -> dict[str, int]:
    """Return the stock of the demo catalogue's lamps by SKU."""
    nobody, token = shop.nobody(), ""
    variants = []
    while True:
        page = await nobody.list_products(category="Lighting", page_size=100, page_token=token)
        every = [variant for product in page["products"] for variant in product["variants"]]
        variants += [variant for variant in every if variant["sku"].startswith("LIG-")]
        if not (token := page["next_page_token"]):
            break
    assert variants
    found = [await shop.nobody().get_inventory(variant["variant_id"]) for variant in variants]
    return {variant["sku"]: each["stock_count"] for variant, each in zip(variants, found, strict=True)}


async def test_a_repeated_load_of_the_catalogue_adds_nothing(shop: Shop, state: Path) -> None:
    marker = state / "demo-catalogue.loaded"
    marker.unlink(missing_ok=True)
    await run("stoa_stack.demo_catalogue")
    before = await stock(shop)
    marker.unlink()
    shown = await run("stoa_stack.demo_catalogue")
    assert "0 products added" in shown
    after = await stock(shop)
    assert after.keys() == before.keys()
    assert [sku for sku in after if after[sku] > before[sku]] == []  # less: what others have bought leaves


async def test_the_demo_goes_as_it_should() -> None:
    assert "Everything went as it should." in await run("stoa_stack.cli", "demo")
