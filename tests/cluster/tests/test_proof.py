"""The proof on a cluster, as far as it can be seen without one."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stoa_cluster import command, report
from stoa_cluster.callers import Answer
from stoa_cluster.proof import STAGES
from stoa_cluster.stages import NotProven
from stoa_cluster.traffic import Tally


def test_a_refusal_of_the_mesh_is_told_from_one_of_the_service() -> None:
    mesh = Answer("PERMISSION_DENIED", "RBAC: access denied")
    service = Answer("PERMISSION_DENIED", "the service cart may not call this")
    assert mesh.refused_by_mesh
    assert not mesh.answered
    assert service.answered
    assert not service.refused_by_mesh
    for code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        assert not Answer(code, "").answered


@pytest.mark.parametrize("named", ["", "/nowhere/admin.conf"])
def test_without_a_cluster_nothing_is_proven_and_nothing_fails(
    named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for program in ("kubectl", "helm"):
        (tmp_path / program).touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KUBECONFIG", named)
    console = Console(record=True, width=200, file=(tmp_path / "screen").open("w"))
    report_file = tmp_path / "report.json"
    code = command.command(console, [], load="", registry="r", tag="t", report_file=report_file)
    assert code == 0
    assert "skipped: there is no cluster" in console.export_text()
    assert not report_file.exists()


def test_a_stage_that_does_not_exist_is_no_proof(tmp_path: Path) -> None:
    console = Console(record=True, width=200, file=(tmp_path / "screen").open("w"))
    code = command.command(console, ["rollling"], load="", registry="r", tag="t", report_file=None)
    said = console.export_text()
    assert code == 2
    assert all(stage.name in said for stage in STAGES)


def test_an_order_that_was_lost_or_one_request_in_a_thousand_that_failed_is_no_proof() -> None:
    good = Tally(requests=10_000, confirmed=100)
    good.failures["503"] = 10
    good.judge()
    with pytest.raises(NotProven, match="11 of 10000"):
        Tally(requests=10_000, confirmed=100, failures=good.failures + Counter(["503"])).judge()
    with pytest.raises(NotProven, match="lost"):
        Tally(requests=10_000, confirmed=100, lost=["it is cancelled"]).judge()
    with pytest.raises(NotProven, match="nobody"):
        Tally().judge()


def test_the_report_says_what_was_proven_and_with_which_figures() -> None:
    stage: dict[str, Any] = {"what": "it rolls", "verdict": "proven", "why": "", "seconds": 12.3, "at": ""}
    figures = {"requests": 12345, "seconds": {"cart": 3.5}, "books balance": True, "examples": ["a", "b"]}
    text = report.markdown({"cluster": {"nodes": 1}, "stages": {"rolling": {**stage, "figures": figures}}})
    assert "| rolling | it rolls | proven | 12 |" in text
    for line in ("- requests: 12,345", "- seconds: cart 3.5", "- books balance: yes", "  - b"):
        assert line in text.splitlines()
