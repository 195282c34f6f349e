"""What the mesh lets through is what the chassis admits, no more and no less."""

from typing import Any

import pytest
import yaml

from stoa_cluster.matrix import IDENTITIES, STRANGER, matrix
from stoa_contracts.declarations import EDGE, Service
from stoa_contracts.descriptors import Contracts
from stoa_services import SERVICES
from stoa_stack.instance import CHECKOUT

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


def declared(service: str) -> dict[str, Any]:
    """What the chart of a service renders its policies from."""
    values = yaml.safe_load((CHECKOUT / "gen" / "charts" / service / "values.yaml").read_text())
    declared: dict[str, Any] = values["declared"]
    return declared


@every_service
def test_a_call_passes_the_mesh_if_the_chassis_would_admit_it(service: Service) -> None:
    callers = declared(service.name)["callers"]
    calls = [call for call in matrix() if call.service == service.name]
    assert {(call.identity, call.method) for call in calls if call.allowed} == {
        (caller, path) for caller, paths in callers.items() for path in paths
    }


@every_service
def test_a_proxy_knows_only_those_whom_its_service_calls(contracts: Contracts, service: Service) -> None:
    allowed = {call.service for call in matrix() if call.identity == service.name and call.allowed}
    assert set(declared(service.name)["calls"]) == allowed == set(service.calls)


def test_most_calls_are_refused() -> None:
    calls = list(matrix())
    assert len(calls) == len(IDENTITIES) * len({call.method for call in calls})
    assert not any(call.allowed for call in calls if call.identity == STRANGER)
    refused = [call for call in calls if not call.allowed]
    assert len(refused) > len(calls) / 2
    assert any(call.identity == EDGE for call in refused)
