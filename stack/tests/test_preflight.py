"""What is checked before anything starts."""

import platform
import re
import shutil
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import psutil  # type: ignore[import-untyped]  # no types
import pytest
from rich.console import Console

from stoa_services import SERVICES
from stoa_stack import preflight, up
from stoa_stack.instance import CHECKOUT
from stoa_stack.preflight import NotPossible, check_declarations, check_machine
from stoa_stack.status import Phase, Status

GB = 2**30


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the declarations and the names of the events, and nothing else."""
    for path in (*CHECKOUT.glob("services/*/*.toml"), *CHECKOUT.glob("events/*.avsc")):
        copy = tmp_path / path.relative_to(CHECKOUT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path


def edit(checkout: Path, service: str, pattern: str, by: str) -> None:
    path = checkout / "services" / service / "service.toml"
    edited, count = re.subn(pattern, by, path.read_text())
    assert count == 1
    path.write_text(edited)


def test_this_machine_will_do(tmp_path: Path) -> None:
    check_machine(tmp_path / "not" / "yet" / "there", whole=False)


def test_too_little_disk_is_said_with_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1.5 * GB))
    with pytest.raises(NotPossible, match=rf"1\.5 GB are free at {tmp_path}; 2 GB are needed"):
        check_machine(tmp_path / "state", whole=False)


def test_too_little_memory_is_said_unless_only_some_parts_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2.2 * GB))
    with pytest.raises(NotPossible, match=r"2\.2 GB of memory are available; 3 GB are needed"):
        check_machine(tmp_path, whole=True)
    check_machine(tmp_path, whole=False)


def test_another_platform_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    with pytest.raises(NotPossible, match="this is Windows"):
        check_machine(tmp_path, whole=True)


def test_declarations_that_were_generated_from_will_do(checkout: Path) -> None:
    check_declarations(checkout)


def test_an_edited_declaration_is_refused_until_it_is_generated_from(checkout: Path) -> None:
    edit(checkout, "cart", r'publishes = \["cart.item_added"\]', "publishes = []")
    edit(checkout, "user", r"memory_mb = \d+", "memory_mb = 77")
    with pytest.raises(NotPossible) as refused:
        check_declarations(checkout)
    assert str(refused.value).splitlines() == [
        "services/user/service.toml was edited, and gen/ has other values of resources",
        "services/cart/service.toml was edited, and gen/ has other values of publishes",
        "`make gen` generates it anew.",
    ]


def test_a_service_that_was_added_or_removed_is_refused_until_it_is_generated(checkout: Path) -> None:
    rest = {name: service for name, service in SERVICES.items() if name != "user"}
    with pytest.raises(NotPossible, match=r"services/user/service\.toml is new(.|\n)*`make gen`"):
        check_declarations(checkout, rest)
    shutil.rmtree(checkout / "services" / "user")
    with pytest.raises(NotPossible, match=r"services/user/service\.toml is gone(.|\n)*`make gen`"):
        check_declarations(checkout)


def test_a_wrong_declaration_is_refused_as_it_is_when_generating(checkout: Path) -> None:
    edit(checkout, "user", r"port = \d+", "port = 7")
    with pytest.raises(NotPossible, match=r"services/user/service\.toml: port must be a number"):
        check_declarations(checkout)


def refuse() -> None:
    raise NotPossible("services/user/service.toml was edited")


def test_nothing_is_started_with_stale_declarations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check_declarations", refuse)
    monkeypatch.setenv("STOA_STATE", str(tmp_path))
    said = StringIO()
    assert up.up((), Console(file=said, width=200)) == 1
    assert said.getvalue() == "services/user/service.toml was edited\n"
    assert not list(tmp_path.iterdir())


def test_nothing_is_applied_with_stale_declarations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check_declarations", refuse)
    monkeypatch.setenv("STOA_STATE", str(tmp_path))
    monkeypatch.setattr(up, "is_running", lambda at: True)
    nobody = 2**31 - 1  # no process has this id
    monkeypatch.setattr(Status, "read", lambda path: Status(pid=nobody, phase=Phase.READY, revision="before"))
    said = StringIO()
    assert up.apply(Console(file=said, width=200)) == 1
    assert said.getvalue() == "services/user/service.toml was edited\n"
    assert not list(tmp_path.iterdir())
