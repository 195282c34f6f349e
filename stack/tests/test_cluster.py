"""A shop in a Kubernetes cluster: addresses, Secrets, and the chart that runs its servers."""

import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from stoa_services import SERVICES
from stoa_stack import cluster, cluster_secrets
from stoa_stack.cluster import Namespaces
from stoa_stack.cluster_secrets import Secret
from stoa_stack.instance import CHECKOUT, Instance
from stoa_stack.servers.table import SERVERS
from stoa_stack.services import place_secrets
from stoa_stack.stores import stores_of

NAMESPACES = Namespaces("shop", "servers")


@pytest.fixture
def at(tmp_path: Path) -> Instance:
    return cluster.instance(tmp_path / "state", NAMESPACES)


@pytest.fixture
def values() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHECKOUT / "charts/infrastructure/values.yaml").read_text())
    return found


def secrets(folder: Path, found: list[Secret] | None = None) -> dict[tuple[str, str], Secret]:
    at = cluster.instance(folder, NAMESPACES)
    wanted = cluster_secrets.wanted_secrets(at, NAMESPACES, found or ())
    return {(secret.namespace, secret.name): secret for secret in wanted}


def test_each_part_is_found_on_a_host_of_its_own_at_the_port_that_is_usual(at: Instance) -> None:
    assert at.address("postgres") == "postgres.servers:5432"
    assert at.address("mail-page") == "mail.servers:8080"
    assert at.address("order") == "order.shop:9000"
    assert at.address("order-metrics") == "order.shop:9100"
    assert at.address("kafka-controller") == "127.0.0.1:9093"  # nobody else speaks to it
    assert at.edge_url == "http://edge.shop:8080"


@pytest.mark.parametrize("service", SERVICES)
def test_the_secret_of_a_service_has_the_files_that_it_has_here(tmp_path: Path, service: str) -> None:
    local = {path.name for path in place_secrets(Instance(tmp_path / "here"), SERVICES[service])}
    assert secrets(tmp_path / "there")["shop", service].files.keys() == local


def test_a_service_finds_its_stores_in_the_cluster_with_the_password_that_the_server_has(
    tmp_path: Path,
) -> None:
    made = secrets(tmp_path)
    for service in SERVICES.values():
        files = made["shop", service.name].files
        for store in stores_of(service):
            url = urlsplit(files[f"stoa_{store.setting}"])
            assert url.hostname == f"{store.part}.servers"
            if url.password:
                known = made["servers", store.part].files
                assert url.password == known[f"{store.part}_{url.username}_password"]


def test_operators_and_people_who_sign_in_find_what_they_need(tmp_path: Path) -> None:
    made = secrets(tmp_path)
    assert made["shop", "operator"].files["kafka_bootstrap"] == "kafka.servers:9092"
    assert made["shop", "operator"].files["order_metrics_url"] == "http://order.shop:9100/metrics"
    account = yaml.safe_load(made["shop", "access"].files["access.json"])["staff"]
    assert account["password"] == made["shop", "user"].files["stoa_staff_password"]


def test_a_secret_that_is_there_stays_and_only_what_is_missing_is_made(tmp_path: Path) -> None:
    first = secrets(tmp_path / "first")
    left = [Secret.read(secret.manifest()) for name, secret in first.items() if name != ("shop", "cart")]
    assert secrets(tmp_path / "second", left) == first  # the cart's has nothing of its own
    assert secrets(tmp_path / "third") != first


def test_what_is_not_declared_any_more_does_not_stay(tmp_path: Path) -> None:
    known = Secret("shop", "order", {"stoa_guest_link_key": "kept", "stoa_gone": "of a removed setting"})
    files = secrets(tmp_path, [known])["shop", "order"].files
    assert files["stoa_guest_link_key"] == "kept"
    assert "stoa_gone" not in files


def test_the_chart_has_the_servers_of_the_stack(at: Instance, values: dict[str, Any]) -> None:
    assert values["servers"].keys() == SERVERS.keys()
    for name, server in values["servers"].items():
        part = SERVERS[name](at)
        assert server.get("secret", False) == bool(part.secrets), name
        assert server.get("stops", False) == (part.stop_signal is not signal.SIGTERM), name
        ports = {each["port"] for each in server["ports"]}
        open_to_others = {
            int(address.rpartition(":")[2])
            for address in at.addresses.values()
            if address.startswith(f"{name}.servers:")
        }
        assert ports == open_to_others, name


def test_a_server_listens_where_it_is_told_and_nowhere_else_here(tmp_path: Path) -> None:
    here = [SERVERS[name](Instance(tmp_path / "here")) for name in SERVERS]
    assert "0.0.0.0" not in str([part.command for part in here] + [part.env for part in here])
    there = cluster.instance(tmp_path / "there", NAMESPACES, listen_host="0.0.0.0")
    assert "listen_addresses=0.0.0.0" in SERVERS["postgres"](there).command
    files = SERVERS["kafka"](there).files
    assert files is not None
    properties = b"".join(files().values()).decode()
    assert "listeners=PLAINTEXT://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093" in properties
    assert "advertised.listeners=PLAINTEXT://kafka.servers:9092" in properties
