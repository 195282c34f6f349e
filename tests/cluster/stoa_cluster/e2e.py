"""The end-to-end tests of the shop, through the ingress of the cluster."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from xml.etree import ElementTree

from stoa_cluster.installation import Installation
from stoa_cluster.stages import Figures, prove
from stoa_stack.instance import CHECKOUT

_TESTS = "tests/e2e"
_WITHIN = 1200.0  # seconds
_LONGER = "240"  # seconds that a test may take: everything shares the cores with the cluster


async def the_shop_does_all_that_it_does_at_home(shop: Installation, figures: Figures) -> None:
    """Run tests/e2e on the cluster; what needs more of a shop than its addresses says so, and is left out."""
    results = shop.state / "e2e.xml"
    results.unlink(missing_ok=True)
    async with shop.at_hand():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-q", _TESTS, "--junitxml", results, "--timeout", _LONGER),
            cwd=CHECKOUT,
            env={**os.environ, "STOA_STATE": str(shop.state), "STOA_TEST_ON": "cluster"},
        )
        try:
            async with asyncio.timeout(_WITHIN):
                await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
    prove(results.exists(), "the tests did not run")
    cases = ElementTree.parse(results).getroot().findall(".//testcase")
    outcomes = Counter(_outcome(case) for case in cases)
    figures["tests passed"] = outcomes["passed"]
    figures["failed"] = [_name(case) for case in cases if _outcome(case) == "failed"]
    figures["left out"] = _left_out(cases)
    prove(outcomes["passed"] and not figures["failed"], f"{outcomes['failed']} tests failed")


def _outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"


def _left_out(cases: list[ElementTree.Element]) -> list[str]:
    """How many tests were left out for each reason."""
    skipped = [case.find("skipped") for case in cases]
    reasons = Counter(each.get("message", "") for each in skipped if each is not None)
    return [f"{count}: {reason}" for reason, count in reasons.items()]
