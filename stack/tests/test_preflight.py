"""What is checked before anything starts."""

import platform
import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil  # type: ignore[import-untyped]  # no types
import pytest

from stoa_stack.preflight import NotPossible, check_machine

GB = 2**30


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
