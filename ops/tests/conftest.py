"""What an operator is told."""

from pathlib import Path

import pytest

from stoa_ops.settings import OperatorSettings
from stoa_services import SERVICES


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """A folder with the settings of a shop elsewhere, as a Job gets them mounted."""
    files = {
        "kafka_bootstrap": "kafka.internal:9092",
        "schema_registry_url": "http://registry.internal/apis/ccompat/v7",
        "edge_url": "https://shop.example",
        "payment_gateway_url": "https://gateway.example",
        "payment_gateway_api_key": "secret",
        "carriers_url": "https://carriers.example",
        "carriers_api_key": "secret",
    }
    for name in SERVICES:
        files[f"{name}_url"] = f"store://readonly@{name}.internal"
        files[f"{name}_metrics_url"] = f"http://{name}.internal:9090/metrics"
    for name, value in files.items():
        (tmp_path / name).write_text(value + "\n")
    return tmp_path


@pytest.fixture
def settings(mounted: Path) -> OperatorSettings:
    """The settings of a shop elsewhere."""
    return OperatorSettings.load(mounted)
