"""What is known of the charts without Helm; `stoa charts` checks what they render."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from stoa_contracts.declarations import Service, read_all
from stoa_contracts.descriptors import read
from stoa_services import SERVICES
from stoa_stack.instance import CHECKOUT, Instance
from stoa_stack.servers import postgres
from stoa_stack.services import environment, secrets_folder
from stoa_tools.charts import policy, schemas
from stoa_tools.charts.releases import ENVIRONMENTS, SHOP
from stoa_tools.charts.schemas import Schemas
from stoa_tools.gen import charts

CONTRACTS = read()
GENERATED = CHECKOUT / "gen" / "charts"
every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def values(folder: Path) -> Any:
    return load(folder / "values.yaml")


@every_service
def test_a_chart_says_of_its_service_what_is_declared(service: Service) -> None:
    declared = values(GENERATED / service.name)["declared"]
    assert declared["scale"] == {"min": service.scale.min, "max": service.scale.max}
    assert declared["memory_mb"] == service.resources.memory_mb
    assert declared["calls"] == list(service.calls)
    assert len(declared["needs"]) == len(set(declared["needs"]))
    events = {"kafka", "registry"} if service.publishes or service.consumes else set()
    stores_and_companies = set(declared["needs"]) - events
    assert events <= set(declared["needs"])
    assert len(stores_and_companies) == len(service.stores) + len(service.companies)


@every_service
def test_a_chart_names_the_callers_that_the_policies_admit(service: Service) -> None:
    callers = values(GENERATED / service.name)["declared"]["callers"]
    for rpc in CONTRACTS.rpcs:
        if rpc.service == service.name:
            assert rpc.policy is not None
            admitted = {*rpc.policy.services, *(["edge"] if rpc.policy.admits_users else [])}
            assert {name for name, paths in callers.items() if f"/{rpc.call_path}" in paths} == admitted


@every_service
def test_a_secret_has_the_keys_that_a_service_has_as_files_at_home(service: Service, tmp_path: Path) -> None:
    at = Instance(state=tmp_path)
    environment(at, service)
    placed = {path.name for path in secrets_folder(at, service.name).iterdir()}
    assert set(values(GENERATED / service.name)["declared"]["secrets"]) == placed


def test_the_edge_knows_every_service_that_it_has_a_route_to() -> None:
    called = values(CHECKOUT / SHOP)["edge"]["declared"]["calls"]
    assert called == sorted({rpc.service for rpc in CONTRACTS.rpcs if rpc.routes})


def test_a_new_service_needs_nothing_but_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "services" / "parcel"
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    (folder / "stoa_parcel").mkdir()
    (folder / "stoa_parcel" / "settings.py").write_text(
        "class Settings(PostgresSettings):\n    seal: str = Field(default='', repr=False)\n"
        "    patience_days: int = 3\n    tone: Literal['kind'] = 'kind'\n    log_level: str = 'DEBUG'\n"
    )
    (folder / "service.toml").write_text(
        'port = 150\nstore = "postgres"\nsecrets = ["seal"]\ncompanies = ["carriers"]\n'
        "[scale]\nmin = 3\nmax = 5\n[resources]\nmemory_mb = 96\n"
    )
    services = [*SERVICES.values(), *read_all(tmp_path)]
    for name in ("charts", "libs", *(f"services/{name}" for name in SERVICES)):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    out = tmp_path / "gen"
    charts.generate(tmp_path, CONTRACTS, services, out)
    declared = values(out / "parcel")["declared"]
    assert declared["scale"] == {"min": 3, "max": 5}
    assert declared["needs"] == ["postgres", "carriers"]
    assert declared["secrets"] == ["stoa_database_url", "stoa_seal"]
    assert declared["addresses"]["ups_url"] == {"of": "carriers", "form": "http://%s/ups"}
    umbrella = load(out / "stoa" / "Chart.yaml")["dependencies"]
    assert "file://../parcel" in [each["repository"] for each in umbrella]
    assert "parcel" in values(out / "stoa")["ops"]["declared"]["databases"]
    told = {"patience_days": "5", "tone": "kind", "database_pool_size": "20", "kafka_bootstrap": "one:9092"}
    schema(out / "stoa").validate({"parcel": {"scale": {"min": 4}, "settings": told}})
    assert same_files(out, GENERATED) == {Path("parcel"), Path("stoa")}


@every_service
def test_no_secret_of_a_service_is_a_value(service: Service) -> None:
    [_, own] = load(CHECKOUT / SHOP / "values.schema.json")["properties"][service.name]["allOf"]
    secrets = values(GENERATED / service.name)["declared"]["secrets"]
    assert not {f"stoa_{name}" for name in own["properties"]["settings"]["properties"]} & {*secrets}


def same_files(one: Path, other: Path) -> set[Path]:
    """The charts that differ."""
    files = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    return {
        Path(path.parts[0])
        for path in files
        if not (other / path).exists() or (one / path).read_text() != (other / path).read_text()
    }


def schema(folder: Path) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads((folder / "values.schema.json").read_text()))


def test_the_umbrella_s_own_values_are_as_its_schema_wants_them() -> None:
    schema(CHECKOUT / SHOP).validate(values(CHECKOUT / SHOP))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_values_of_an_environment_are_known(name: str) -> None:
    schema(CHECKOUT / SHOP).validate(load(CHECKOUT / "charts" / "environments" / f"{name}.yaml"))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_says_where_all_is_that_services_need(name: str) -> None:
    known = load(CHECKOUT / "charts" / "environments" / f"{name}.yaml")["global"]["infrastructure"]
    needed = {need for each in SERVICES for need in values(GENERATED / each)["declared"]["needs"]}
    assert needed <= known.keys()


@pytest.mark.parametrize(
    "place",
    [
        "charts/infrastructure/templates/operators/postgres.yaml",
        "infra/aws/stoa_aws/postgres.py",
        "docs/operations.md",
    ],
)
def test_postgres_logs_nowhere_more_of_a_row_than_at_home(place: str) -> None:
    written = (CHECKOUT / place).read_text()
    for name, value in postgres.ROWS_UNLOGGED.items():
        assert re.search(rf'\b{name}("?: "?|=){value}\b', written), name


@pytest.mark.parametrize(
    "mistyped",
    [
        {"ordr": {}},
        {"order": {"replicas": 3}},
        {"order": {"settings": {"TAX_RATE": "0.2"}}},
        {"order": {"settings": {"tax_rate": 0.2}}},
        {"order": {"settings": {"tax_rate": "a fifth"}}},
        {"order": {"settings": {"tax_rat": "0.2"}}},
        {"order": {"settings": {"guest_link_key": "of everybody who may read pods"}}},
        {"global": {"defaults": {"settings": {"page_token_key": "the same"}}}},
        {"global": {"defaults": {"settings": {"group_session_seconds": "three"}}}},
        {"global": {"defaults": {"settings": {"kafka_bootstrap": "sasl_ssl://order:secret@one:9092"}}}},
        {"edge": {"settings": {"cors_origins": "*"}}},
        {"payment": {"settings": {"gateway_provider": "strip"}}},
        {"review": {"settings": {"moderated": "maybe"}}},
        {"global": {"defaults": {"settings": {"shop_ulr": "https://shop.example"}}}},
        {"global": {"defaults": {"image": {"tag": "latest"}}}},
        {"global": {"mesh": {"enable": True}}},
        {"edge": {"trusted_hops": 1}},
    ],
    ids=str,
)
def test_mistyped_values_are_refused(mistyped: Any) -> None:
    assert list(schema(CHECKOUT / SHOP).iter_errors(mistyped))


GOOD = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "order"},
    "spec": {
        "template": {
            "spec": {
                "serviceAccountName": "order",
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "order",
                        "image": "registry.example:5000/stoa/order:1.0.0",
                        "resources": {
                            "requests": {"cpu": "10m", "memory": "1Mi"},
                            "limits": {"cpu": "1", "memory": "1Mi"},
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }
                ],
            }
        }
    },
}


def test_a_pod_as_it_should_be_breaks_no_policy() -> None:
    assert policy.violations(GOOD) == []


@pytest.mark.parametrize(
    ("where", "value", "problem"),
    [
        ("serviceAccountName", None, "default service account"),
        ("hostNetwork", True, "hostNetwork"),
        ("volumes", [{"name": "node", "hostPath": {"path": "/"}}], "folder of its node"),
        ("container.image", "registry.example:5000/stoa/order", "neither a digest nor a tag"),
        ("container.image", "stoa/order:latest", "neither a digest nor a tag"),
        ("container.resources", {"requests": {"cpu": "1", "memory": "1Mi"}}, "no limits of cpu and memory"),
        ("container.securityContext.privileged", True, "privileged"),
        ("container.securityContext.readOnlyRootFilesystem", False, "root file system"),
        ("container.securityContext.allowPrivilegeEscalation", None, "gain privileges"),
        ("container.securityContext.runAsUser", 0, "root"),
        ("container.securityContext.capabilities", {"drop": ["ALL"], "add": ["NET_ADMIN"]}, "capabilities"),
        ("container.securityContext.capabilities", None, "capabilities"),
        ("securityContext.seccompProfile", None, "seccomp"),
    ],
)
def test_a_pod_that_breaks_a_policy_is_named(where: str, value: Any, problem: str) -> None:
    bad = copy.deepcopy(GOOD)
    place: Any = bad["spec"]["template"]["spec"]  # type: ignore[index]
    *path, last = where.split(".")
    for key in path:
        place = place["containers"][0] if key == "container" else place[key]
    place.pop(last, None)
    if value is not None:
        place[last] = value
    (said,) = policy.violations(bad)
    assert said.startswith("Deployment/order: ")
    assert problem in said


def test_two_objects_of_one_name_are_named() -> None:
    certificate = {"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "edge"}}
    elsewhere = {**certificate, "metadata": {"name": "edge", "namespace": "other"}}
    assert policy.named_twice([certificate, elsewhere]) == []
    assert policy.named_twice([certificate, elsewhere, certificate]) == ["Certificate/edge is there 2 times"]


def test_an_object_that_no_schema_is_known_of_is_told_from_one_that_is_wrong() -> None:
    unpublished = {"apiVersion": "kafka.strimzi.io/v1", "kind": "Kafka", "metadata": {"name": "kafka"}}
    assert schemas.unpublished(unpublished)
    assert list(Schemas({"$defs": {}}, []).violations(unpublished)) == []
    assert not schemas.unpublished(GOOD)


DEFINITION = {
    "spec": {
        "group": "example.io",
        "names": {"kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "schema": {
                    "openAPIV3Schema": {
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "size": {"type": "integer"},
                                    "port": {
                                        "x-kubernetes-int-or-string": True,
                                        "anyOf": [{"type": "integer"}],
                                    },
                                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                },
                            }
                        }
                    }
                },
            }
        ],
    }
}


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"size": 1, "port": "http", "free": {"any": 1}}, ""),
        ({"size": "big"}, "$.spec.size"),
        ({"sise": 1}, "sise"),
    ],
)
def test_a_custom_resource_is_as_its_definition_wants_it(spec: Any, problem: str) -> None:
    thing = {"apiVersion": "example.io/v1", "kind": "Thing", "metadata": {"name": "one"}, "spec": spec}
    said = list(Schemas({"$defs": {}}, [DEFINITION]).violations(thing))
    assert (not said) if not problem else (len(said) == 1 and problem in said[0])


KUBERNETES = {
    "$defs": {
        "Pod": {
            "type": "object",
            "properties": {"apiVersion": {}, "kind": {}, "metadata": {}, "spec": {"$ref": "#/$defs/PodSpec"}},
            "additionalProperties": False,
            "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Pod"}],
        },
        "PodSpec": {
            "type": "object",
            "properties": {"nodeName": {"type": "string"}},
            "additionalProperties": False,
        },
    }
}


@pytest.mark.parametrize(
    ("kind", "spec", "problem"),
    [
        ("Pod", {"nodeName": "one"}, ""),
        ("Pod", {"nodename": "one"}, "nodename"),
        ("Pood", {}, "nobody knows a Pood of v1"),
    ],
)
def test_an_object_is_as_kubernetes_wants_it(kind: str, spec: Any, problem: str) -> None:
    thing = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "one"}, "spec": spec}
    said = list(Schemas(KUBERNETES, []).violations(thing))
    assert (not said) if not problem else (len(said) == 1 and problem in said[0])
