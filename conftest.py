"""What tests share: stores of their own, see `stoa_chassis.testing_stores`."""

import pytest

pytest_plugins = ["stoa_chassis.testing_stores"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what starts a stack of its own: it takes longest, and others run beside it (`stoa test`)."""
    items.sort(key=lambda item: item.get_closest_marker("own_stack") is None)
