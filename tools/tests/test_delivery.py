"""Workflows and Argo CD's objects say what is true of this checkout."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stoa_stack.instance import CHECKOUT

GITHUB = CHECKOUT / ".github"
ENVIRONMENTS = sorted(path.parent for path in CHECKOUT.glob("gitops/environments/*/applicationset.yaml"))
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yaml"))
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def lines_of(pattern: str) -> Iterator[tuple[str, str]]:
    """Each line of the workflows and their actions that has the pattern in it, with its file."""
    for path in sorted(GITHUB.rglob("*.yaml")):
        for line in path.read_text().splitlines():
            if re.search(pattern, line):
                yield path.name, line


def test_actions_of_others_are_pinned_by_their_commit() -> None:
    loose = [(name, line) for name, line in lines_of("uses: (?![.]/)") if not PINNED.search(line)]
    assert loose == []


def test_jobs_call_targets_that_run_here_as_well() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    called = {target for _, line in lines_of("make ") for target in re.findall(r"run: make ([a-z-]+)", line)}
    matrix = yaml.safe_load((GITHUB / "workflows/ci.yaml").read_text())["jobs"]["check"]["strategy"]["matrix"]
    called |= {job["target"] for job in matrix["include"]}
    assert called <= targets


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_each_job_names_what_more_it_may(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text())
    assert content["permissions"] == {"contents": "read"}
    assert "concurrency" in content
    assert all("timeout-minutes" in job for job in content["jobs"].values())


def test_environments_are_run_alike() -> None:
    alike = {
        (environment / "applicationset.yaml").read_text().replace(environment.name, "ENVIRONMENT")
        for environment in ENVIRONMENTS
    }
    assert len(alike) == 1


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda path: path.name)
def test_charts_and_settings_of_an_environment_are_in_the_repository(environment: Path) -> None:
    content: dict[str, Any] = yaml.safe_load((environment / "applicationset.yaml").read_text())
    parts = content["spec"]["generators"][0]["matrix"]["generators"][1]["list"]["elements"]
    for part in parts:
        assert (CHECKOUT / part["chart"] / "Chart.yaml").exists()
        assert (CHECKOUT / part["generated"].lstrip("/")).exists()
        assert (CHECKOUT / part["settings"].lstrip("/")).exists()


def test_what_is_synced_comes_from_where_the_project_allows_it() -> None:
    project = yaml.safe_load((CHECKOUT / "gitops/project.yaml").read_text())["spec"]
    namespaces = {destination["namespace"] for destination in project["destinations"]}
    for environment in ENVIRONMENTS:
        content = yaml.safe_load((environment / "applicationset.yaml").read_text())["spec"]
        generators = content["generators"][0]["matrix"]["generators"]
        assert content["template"]["spec"]["source"]["repoURL"] in project["sourceRepos"]
        assert generators[0]["git"]["repoURL"] in project["sourceRepos"]
        assert {part["namespace"] for part in generators[1]["list"]["elements"]} <= namespaces
