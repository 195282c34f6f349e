"""The typed client of the REST API knows all of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import stoa_rest
from stoa_stack.instance import CHECKOUT
from stoa_tools.gen import rest
from stoa_tools.gen.errors import GenerationFailed


def test_every_operation_whose_body_is_json_has_a_method_and_its_route() -> None:
    document: dict[str, Any] = yaml.safe_load((CHECKOUT / "gen/openapi/openapi.yaml").read_text())
    routes = {
        each["operationId"]: (verb.upper(), path)
        for path, verbs in document["paths"].items()
        for verb, each in verbs.items()
        if "*/*" not in each.get("requestBody", {}).get("content", {})
    }
    known = {each.name: (each.method, each.path) for each in stoa_rest.OPERATIONS}
    assert known == routes
    methods = {name.replace("_", "") for name in vars(stoa_rest.Operations)}
    assert {name.lower() for name in routes} <= methods


def test_a_schema_without_a_type_in_python_is_refused(tmp_path: Path) -> None:
    document = {"paths": {}, "components": {"schemas": {"Odd": {"properties": {"x": {"type": "null"}}}}}}
    (tmp_path / "openapi.yaml").write_text(yaml.dump(document))
    with pytest.raises(GenerationFailed, match="null"):
        rest.generate(tmp_path / "openapi.yaml", tmp_path / "out")
