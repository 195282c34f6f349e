"""What tests share: stores of their own, see `stoa_chassis.testing_stores`."""

import pytest

pytest_plugins = ["stoa_chassis.testing_stores"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the upgrade, which takes longest, so that all others run beside it (`stoa test`)."""
    items.sort(key=lambda item: item.get_closest_marker("upgrade") is None)
