"""New services in a copy of the tree: they pass every check, run beside the others and answer at the edge."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from stoa_stack.instance import CHECKOUT

pytestmark = [pytest.mark.stack, pytest.mark.own_stack, pytest.mark.slow, pytest.mark.timeout(1200)]

SERVICES = {"parcel": "postgres", "notice": "mongo", "badge": "redis"}


def run(checkout: Path, *command: str) -> str:
    """Run a command that must succeed, by its path or one of the virtual environment; return what it said."""
    program = checkout / command[0] if "/" in command[0] else checkout / ".venv" / "bin" / command[0]
    done = subprocess.run(
        [program, *command[1:]], cwd=checkout, text=True, check=False,
        env={**os.environ, "STOA_STATE": str(checkout / ".stoa-test")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}"
    return done.stdout


def git(checkout: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the tree as it is, committed, with a service on each store and a test stack of its own."""
    copy = tmp_path_factory.mktemp("new") / "stoa"
    for name in git(CHECKOUT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (CHECKOUT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, copy / name, follow_symlinks=False)
    git(copy, "init", "--quiet", "--initial-branch", "main")
    git(copy, "add", "--all")
    git(
        copy,
        "-c",
        "user.name=Stoa",
        "-c",
        "user.email=stoa@example.com",
        "commit",
        "--quiet",
        "-m",
        "As it is",
    )
    run(copy, "stack/bootstrap")
    for name, store in SERVICES.items():
        run(copy, "stoa", "new", name, "--store", store)
    yield copy
    run(copy, "stoa", "test", "--down")


def test_no_file_that_was_there_is_changed_but_generated_ones(checkout: Path) -> None:
    changed = [line[3:] for line in git(checkout, "status", "--porcelain").splitlines() if line[0] != "?"]
    assert changed
    assert [path for path in changed if not path.startswith("gen/") and "/stoa_contracts/" not in path] == []


def test_every_check_passes(checkout: Path) -> None:
    run(checkout, "stoa", "lint", "style", "format", "imports", "generated", "contracts")
    packages = [word for name in SERVICES for word in ("-p", f"stoa_{name}", "-p", f"services.{name}.tests")]
    run(checkout, "mypy", *packages)


def test_their_tests_pass_on_memory_and_on_their_stores(checkout: Path) -> None:
    output = run(checkout, "stoa", "test", *(f"services/{name}" for name in SERVICES))
    assert " skipped" not in output


def test_each_answers_at_the_edge(checkout: Path) -> None:
    run(checkout, "stoa", "test", *(f"services/{name}/tests/test_repository.py" for name in SERVICES))
    access = json.loads((checkout / ".stoa-test" / "access.json").read_text())
    account = {"email": f"{uuid4().hex}@example.com", "password": "correct horse battery"}
    with httpx.Client(base_url=access["edge_url"], timeout=30) as edge:
        user = edge.post("/api/v1/users", json={**account, "first_name": "Ann", "last_name": "Lee"}).json()
        tokens = edge.post("/api/v1/auth/login", json=account).json()
        edge.headers["authorization"] = f"Bearer {tokens['access_token']}"
        for name in SERVICES:
            path = f"/api/v1/users/{user['user_id']}/{name}s"
            created = edge.post(path, json={"title": "A title"}).raise_for_status().json()
            assert created["title"] == "A title"
            assert edge.get(f"{path}/{created[f'{name}_id']}").raise_for_status().json() == created
            assert edge.get(path).raise_for_status().json()[f"{name}s"] == [created]
            assert edge.get(f"/api/v1/users/{uuid4()}/{name}s").status_code == 403
            assert edge.post(path, json={"title": ""}).status_code == 400


def test_the_audit_takes_in_their_books(checkout: Path) -> None:
    run(checkout, "stoa", "audit", "--wait", "60")
