"""What runs as a Job, where the local stack is not: the service's own program, in the Job's environment."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stoa_ops import local
from stoa_ops.__main__ import app


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOA_OPS_DIR", str(tmp_path))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were started, in the place of programs."""
    commands: list[list[str]] = []

    def run(command: list[str], *, env: Any, **_: Any) -> subprocess.CompletedProcess[str]:
        assert env is os.environ
        commands.append(command[1:])
        report = json.dumps({"replayed": 3, "differed": ["o-1"]})
        return subprocess.CompletedProcess(command, 0, stdout=f"a line before\n{report}\n")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def stoa(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, words)
    return done.exit_code, done.output


def test_a_replay_is_the_service_s_own_program_and_says_what_differed(started: list[list[str]]) -> None:
    code, output = stoa("replay", "order")
    assert (code, started) == (0, [["-m", "stoa_order.replay"]])
    assert "3 replayed, 1 differed" in output
    assert "o-1" in output


def test_reindexing_is_the_search_service_s_replay(started: list[list[str]]) -> None:
    assert stoa("reindex")[0] == 0
    assert started == [["-m", "stoa_search.replay"]]


def test_what_has_nothing_to_replay_is_told_what_has(started: list[list[str]]) -> None:
    code, output = stoa("replay", "cart")
    assert (code, started) == (2, [])
    assert "order" in output


def test_a_migration_runs_with_the_service_s_environment(started: list[list[str]]) -> None:
    assert stoa("migrate", "order", "catalog")[0] == 0
    assert started == [["-m", "stoa_chassis.migrations", name] for name in ("order", "catalog")]


def test_all_databases_are_migrated_if_none_is_named(started: list[list[str]]) -> None:
    assert stoa("migrate")[0] == 0
    assert {command[-1] for command in started} == {
        "catalog", "inventory", "notification", "order", "payment", "shipping", "user",
    }  # fmt: skip


def test_a_service_without_a_database_is_named(started: list[list[str]]) -> None:
    code, output = stoa("migrate", "order", "cart")
    assert (code, started) == (2, [])
    assert "cart: no database" in output


def test_of_a_migration_that_failed_the_service_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, int(command[-1] == "order"))

    monkeypatch.setattr(subprocess, "run", run)
    code, output = stoa("migrate", "catalog", "order", "user")
    assert code == 1
    assert "order was not migrated" in output
    assert "user" not in output


def test_where_no_stack_is_meant_a_program_has_the_environment_of_the_job() -> None:
    assert local.environment("order") is os.environ
