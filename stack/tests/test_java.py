"""Servers on the Java runtime start soon, and start all the same without what makes them start sooner."""

import asyncio
import os
import subprocess
from pathlib import Path

from stoa_stack.instance import CHECKOUT, Instance
from stoa_stack.parts import parts
from stoa_stack.servers import java


def test_a_server_without_an_archive_of_its_classes_starts_and_says_nothing_of_it(tmp_path: Path) -> None:
    command = [str(java.JAVA), *java.flags(heap_mb=64), *java.archived(tmp_path / "none.jsa"), "-version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "error" not in done.stdout + done.stderr


def test_an_archive_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    asyncio.run(java.write_archive(os.getpid(), tmp_path / "archive.jsa"))  # which is no Java program
    assert list(tmp_path.iterdir()) == []


def test_an_archive_is_of_a_bundle_and_of_a_runtime_and_no_download_takes_it_for_its_own(
    tmp_path: Path,
) -> None:
    archive = java.archive_of(tmp_path / "kafka-1.0-abc")
    assert archive.parent == tmp_path
    assert archive.name.startswith("kafka-1.0-abc-java-")


def test_what_a_runtime_dumps_does_not_lie_in_the_checkout(tmp_path: Path) -> None:
    servers = [part for part in parts(Instance(tmp_path)) if part.command[0] == java.JAVA]
    assert {part.name for part in servers} >= {"kafka", "registry"}
    for server in servers:
        assert server.cwd is not None
        assert not server.cwd.is_relative_to(CHECKOUT)
