"""What the stack takes from the declarations: environments, secrets, topics, operators' settings."""

from dataclasses import replace
from pathlib import Path

import pytest

from stoa_contracts.declarations import Service, Store
from stoa_services import SERVICES
from stoa_stack import fingerprint, operators
from stoa_stack.certificates import Authority
from stoa_stack.instance import Instance
from stoa_stack.parts import parts
from stoa_stack.services import environment, part, secrets_folder
from stoa_stack.stores import STORES, stores_of


@pytest.fixture
def at(tmp_path: Path) -> Instance:
    return Instance(tmp_path, port_base=30000)


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_service_finds_those_it_calls_and_nobody_else(at: Instance, service: Service) -> None:
    variables = environment(at, service)
    targets = {name for name in variables if name.endswith("_TARGET")}
    assert targets == {f"STOA_{callee.upper()}_TARGET" for callee in service.calls}
    assert variables["STOA_PORT"] == str(30000 + service.port)


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_service_gets_the_secrets_it_declares_and_its_stores_and_no_others(
    at: Instance, service: Service
) -> None:
    environment(at, service)
    names = {f"stoa_{name}" for name in (*service.secrets, *(store.setting for store in stores_of(service)))}
    assert {path.name for path in secrets_folder(at, service.name).iterdir()} == names


def test_a_secret_that_is_shared_with_a_company_is_the_one_its_fake_has(at: Instance) -> None:
    environment(at, SERVICES["payment"])
    [fake] = [part for part in parts(at) if part.name == "gateway"]
    own = secrets_folder(at, "payment") / "stoa_gateway_api_key"
    assert fake.env["GATEWAY_API_KEY"] == own.read_text()


def test_what_is_started_again_has_a_name_in_its_group_and_what_runs_beside_it_has_none(at: Instance) -> None:
    for name, service in SERVICES.items():
        assert part(at, service, contracts="contracts").env["STOA_GROUP_INSTANCE_ID"] == name
        assert "STOA_GROUP_INSTANCE_ID" not in environment(at, service)


def test_a_store_that_no_server_keeps_is_named_with_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(STORES, Store.OPENSEARCH)
    with pytest.raises(ValueError, match="user: the stack has no server for the store opensearch"):
        stores_of(replace(SERVICES["user"], store=Store.OPENSEARCH))


def test_a_service_counts_as_changed_by_its_own_declaration_only(at: Instance) -> None:
    user = SERVICES["user"]
    before = fingerprint.of(part(at, user, contracts="contracts"))
    assert fingerprint.of(part(at, user, contracts="contracts")) == before
    changed = replace(user, publishes=("user.registered",))
    assert fingerprint.of(part(at, changed, contracts="contracts")) != before


def test_the_code_of_a_service_is_what_it_imports(at: Instance) -> None:
    units = fingerprint.imported("stoa_order")
    assert {"stoa_order", "stoa_chassis", "stoa_contracts", "stoa.order.v1", "stoa.cart.v1"} <= units.keys()
    assert "stoa_cart" not in units
    assert "stoa_stack" not in units


def test_operators_get_addresses_read_only_accounts_and_an_identity(at: Instance) -> None:
    folder = at.folder("operator")
    (folder / "gone_url").write_text("of a service that was removed")
    authority = Authority(at.folder("certs"))
    operators.write(at, authority)
    operators.write(at, authority)
    found = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
    assert found["kafka_bootstrap"] == "127.0.0.1:30013"
    assert found["order_url"].startswith("postgresql://stoa_readonly:")
    assert found["order_url"].endswith("@127.0.0.1:30010/order")
    assert found["cart_url"].startswith("redis://stoa_readonly:")
    assert found["catalog_url"] == "mongodb://127.0.0.1:30012"
    assert found["order_metrics_url"] == "http://127.0.0.1:30204/metrics"
    assert found["order_target"] == "127.0.0.1:30104"
    assert found["payment_gateway_url"] == "http://127.0.0.1:30020"
    assert "payment_gateway_api_key" in found
    assert "gone_url" not in found
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir() if path.is_file()} == {"0o600"}
    assert (folder / "certs" / "cert.pem").exists()
