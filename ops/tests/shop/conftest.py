"""The running shop, and its operator's view of it. Every test leaves the books as balanced as they were."""

from pathlib import Path

import pytest

from stoa_stack.instance import Instance
from tests.e2e.conftest import shop, state

__all__ = ["shop", "state"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.stack)
            item.add_marker(pytest.mark.timeout(300))  # each command is a process, on a machine under load


@pytest.fixture(scope="session")
def at(state: Path) -> Instance:
    """The instance under test."""
    return Instance.current({"STOA_STATE": str(state)})
