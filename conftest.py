"""What tests share: stores of their own, see `stoa_chassis.testing_stores`."""

pytest_plugins = ["stoa_chassis.testing_stores"]
