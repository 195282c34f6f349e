"""Each size is synthesised once: templates as CloudFormation gets them, which cdk-nag has let pass."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
from aws_cdk.assertions import Template

from stoa_aws.shop import build
from stoa_aws.sizes import SIZES

Templates = Mapping[str, Mapping[str, Any]]
Synthesise = Callable[[str], Templates]


@pytest.fixture(scope="session")
def synthesise(tmp_path_factory: pytest.TempPathFactory) -> Synthesise:
    """Templates of a size, by the names of their stacks."""

    @cache
    def synthesised(size: str) -> Templates:
        folder = tmp_path_factory.mktemp(size)
        build({"size": size}, str(folder)).synth()
        return {
            path.name.split(".")[0]: json.loads(path.read_text())
            for path in sorted(folder.glob("*.template.json"))
        }

    return synthesised


@pytest.fixture(scope="session", params=SIZES)
def templates(request: pytest.FixtureRequest, synthesise: Synthesise) -> Templates:
    return synthesise(request.param)


@pytest.fixture(scope="session")
def shop(templates: Templates) -> Template:
    """All stacks of a size as one template, for the CDK's assertions."""
    resources = {
        f"{stack.replace('-', '')}{name}": {
            key: value for key, value in resource.items() if key != "DependsOn"
        }
        for stack, template in templates.items()
        for name, resource in template["Resources"].items()
    }
    return Template.from_json({"Resources": resources}, skip_cyclical_dependencies_check=True)
