"""Tells at the end of a run how much was explored."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from tests.model.explorer import Report
from tests.model.services import SURVIVED
from tests.model.shop import Scenario, Shop

_SEEN = pytest.StashKey[dict[str, Report]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SEEN] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    seen = config.stash.get(_SEEN, {})
    if not seen:
        return
    terminalreporter.section("model check")
    for name, report in seen.items():
        terminalreporter.write_line(f"{name}: {report}")
    states, transitions = (sum(getattr(r, what) for r in seen.values()) for what in ("states", "transitions"))
    seconds = sum(report.seconds for report in seen.values())
    terminalreporter.write_line(f"in all {states:,} states, {transitions:,} transitions, {seconds:.0f} s CPU")


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """Note the errors that services log and survive; what else they log is dropped."""
    before = structlog.get_config()
    structlog.configure(processors=[SURVIVED])
    yield
    structlog.configure(**before)


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, Report], None]:
    """Take a report for the summary."""
    seen = request.config.stash[_SEEN]

    def add(name: str, report: Report) -> None:
        seen[name] = report

    return add


@pytest.fixture
def shop() -> Iterator[Callable[..., Shop]]:
    """Make shops that are closed at the end of the test."""
    shops: list[Shop] = []

    def make(scenario: Scenario, **parts: Any) -> Shop:
        shops.append(Shop(scenario, **parts))
        return shops[-1]

    yield make
    for each in shops:
        each.close()
