"""What `stoa lint` and `stoa test` do with what fails."""

import io
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from stoa_stack.cli import app
from stoa_tools import lock, quality, workspace


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that ran; style and imports fail."""
    steps: list[str] = []

    def run(_: Console, title: str, *command: str) -> None:
        steps.append(title)
        if title in ("style", "imports"):
            raise typer.Exit(1)

    monkeypatch.setattr(quality, "run", run)
    return steps


def test_lint_runs_all_its_steps_and_names_those_that_failed(ran: list[str]) -> None:
    output = io.StringIO()
    with pytest.raises(typer.Exit):
        quality.lint(Console(file=output))
    assert ran == ["style", "format", "types", "imports", "lock", "generated", "contracts", "migrations"]
    assert output.getvalue().splitlines()[-1] == "failed: style, imports"


def test_lint_runs_the_steps_that_are_asked_for(ran: list[str]) -> None:
    quality.lint(Console(file=io.StringIO()), ["types"])
    assert ran == ["types"]
    with pytest.raises(typer.Exit):
        quality.lint(Console(file=io.StringIO()), ["nonsense"])


def test_arguments_of_pytest_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(quality, "run", lambda _, title, *command: calls.append(command))
    words = ["test", "services/order/tests", "-k", "cancel and not late", "-x", "--last-failed"]
    assert CliRunner().invoke(app, words).exit_code == 0
    ((*_, path, k, expression, x, last_failed),) = calls
    assert (k, expression, x, last_failed) == ("-k", "cancel and not late", "-x", "--last-failed")
    assert Path(path) == Path("services/order/tests").resolve()


def test_tests_of_all_parts_are_type_checked_under_names_of_their_own() -> None:
    found = workspace.packages_of_tests()
    assert len(found) == len(set(found))
    assert {"libs.chassis.tests", "tests.e2e", "tests.chaos.tests", "tools.tests"} <= set(found)


def test_a_lock_that_cannot_be_checked_says_so_and_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stamp = tmp_path / "stamp"
    monkeypatch.setattr(lock, "_STAMP", stamp)
    monkeypatch.setattr(lock, "_stale", lambda: "")
    monkeypatch.setattr(lock, "_without_wheels", lambda *_: "Failed to fetch: https://…")
    output = io.StringIO()
    assert lock.check(Console(file=output)) == 0
    assert "not checked: the package registry can't be reached" in output.getvalue()
    assert not stamp.exists()


def test_a_package_without_a_wheel_is_named_and_a_good_lock_is_checked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lock, "_STAMP", tmp_path / "stamp")
    monkeypatch.setattr(lock, "_stale", lambda: "")
    missing = ["slowpoke has no wheels", *[""] * 7]
    monkeypatch.setattr(lock, "_without_wheels", lambda *_: missing.pop())
    output = io.StringIO()
    assert lock.check(Console(file=output)) == 1
    assert "slowpoke has no wheels" in output.getvalue()
    missing = [""] * 8
    assert lock.check(Console(file=output)) == 0
    assert lock.check(Console(file=output)) == 0
    assert missing == []
