import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stoa_aws import handover
from stoa_aws.environment import Environment
from stoa_services import SERVICES

from .conftest import Synthesise

AT = Environment.of({})
CHART = Path(__file__).parents[3] / "gen" / "charts" / "stoa"


def of_kind(objects: Any, kind: str) -> dict[str, Any]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def test_every_service_is_given_its_role_and_every_role_is_there(synthesise: Synthesise) -> None:
    roles = {
        resource["Properties"].get("RoleName")
        for resource in synthesise("small")["stoa-production-identities"]["Resources"].values()
        if resource["Type"] == "AWS::IAM::Role"
    }
    values = handover.values(AT)
    for name in (*SERVICES, "ops"):
        arn = values[name]["serviceAccount"]["annotations"]["eks.amazonaws.com/role-arn"]
        assert arn.rpartition("/")[2] in roles


def test_every_secret_that_is_fetched_is_there(synthesise: Synthesise) -> None:
    there = {
        resource["Properties"]["Name"]
        for resource in synthesise("small")["stoa-production-identities"]["Resources"].values()
        if resource["Type"] == "AWS::SecretsManager::Secret"
    }
    fetched = of_kind(handover.secrets(AT), "ExternalSecret")
    assert set(fetched) == {*SERVICES, "operator", "accounts"}
    for secret in fetched.values():
        assert {each["extract"]["key"] for each in secret["spec"]["dataFrom"]} <= there


def test_secrets_are_fetched_by_an_account_of_the_service_itself() -> None:
    objects = handover.secrets(AT)
    stores, accounts = of_kind(objects, "SecretStore"), of_kind(objects, "ServiceAccount")
    for name, secret in of_kind(objects, "ExternalSecret").items():
        reader = stores[secret["spec"]["secretStoreRef"]["name"]]["spec"]["provider"]["aws"]["auth"]["jwt"]
        account = accounts[reader["serviceAccountRef"]["name"]]
        role = account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
        assert role.endswith(f"-{'ops' if name == 'operator' else name}")


def test_the_chart_admits_the_job_that_makes_accounts_to_the_stores() -> None:
    labels = handover.accounts(AT)["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "ops"
    assert labels["app.kubernetes.io/part-of"] == "stoa"


def test_mail_is_sent_from_where_its_role_may_send_it() -> None:
    values = handover.values(AT)
    assert values["notification"]["settings"]["aws_region"] == AT.region
    assert values["notification"]["settings"]["sender_address"].endswith(f"@{AT.domain}")
    assert values["global"]["infrastructure"]["mail"]["egress"] == [f"email.{AT.region}.amazonaws.com"]


def test_operators_find_the_authorities_of_stores_where_their_pods_have_them(synthesise: Synthesise) -> None:
    resources = synthesise("small")["stoa-production-identities"]["Resources"].values()
    (stores,) = [
        json.dumps(resource["Properties"]["SecretString"])
        for resource in resources
        if resource["Type"] == "AWS::SecretsManager::Secret"
        and resource["Properties"]["Name"] == "stoa/production/operator/stores"
    ]
    assert "/var/run/stoa/operator/rds-ca.pem" in stores
    assert "/var/run/stoa/secrets" not in stores
    assert "http://order.stoa:9100/metrics" in stores


def test_of_the_infrastructure_the_schema_registry_alone_is_left() -> None:
    chart = yaml.safe_load((CHART.parents[2] / "charts" / "infrastructure" / "values.yaml").read_text())
    out = {name for name, it in handover.infrastructure()["operators"].items() if not it["enabled"]}
    assert set(chart["operators"]) - out == {"registry"}


@pytest.mark.skipif(not CHART.exists(), reason="the charts are not generated")
def test_the_chart_knows_the_values() -> None:
    """Workloads and what they share, by name; `stoa charts` checks a release against the whole schema."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = handover.values(AT)
    assert set(values) <= set(schema["properties"])
    shared = schema["definitions"]["global"]
    assert set(values["global"]) <= set(shared["properties"])
    assert set(values["global"]["network"]) <= set(shared["properties"]["network"]["properties"])


def test_files_are_yaml(tmp_path: Path) -> None:
    handover.write(AT, tmp_path)
    for path in tmp_path.iterdir():
        assert all(yaml.safe_load_all(path.read_text()))
