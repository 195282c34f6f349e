"""The build's context: a folder with what goes into an image, and nothing else of the checkout.

Packages are installed into it here and not while the image is built: the builder needs no network, no
registry's address and no credentials, and what is unchanged is taken from the installer's cache.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from stoa_stack.fetch import Cache
from stoa_stack.instance import CHECKOUT
from stoa_tools.images.contents import PYTHON, Contents, Image
from stoa_tools.lock import PLATFORMS
from stoa_tools.workspace import Member

RECIPES = CHECKOUT / "images"
_UV = Path(sys.executable).with_name("uv")  # placed there by stack/bootstrap
_START = "from runpy import run_module\n\nrun_module({module!r}, run_name='__main__', alter_sys=True)\n"


class StagingFailed(Exception):
    """The context could not be made; the message is the tool's."""


class Wheels:
    """The wheels of our packages, each built once from the checkout as it is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: dict[str, Path] = {}

    def of(self, member: Member) -> Path:
        """A member's wheel. Raises StagingFailed."""
        if member.name not in self._built:
            into = self._folder / member.name
            _run(
                [_UV, "build", "--quiet", "--wheel", "--offline", "--no-build-isolation",
                 "--python", sys.executable, "--out-dir", into, CHECKOUT / member.folder],
                # Of the same code the same wheel, whenever it is built.
                env={"SOURCE_DATE_EPOCH": "946684800"},
            )  # fmt: skip
            (self._built[member.name],) = into.glob("*.whl")
        return self._built[member.name]


def stage(image: Image, contents: Contents, wheels: Wheels, folder: Path) -> None:
    """Fill the folder with what the image's recipe copies. Raises StagingFailed."""
    shutil.copy(RECIPES / "build.py", folder)
    _install(contents.locked.values(), folder / "packages")
    _install(map(_pinned, map(wheels.of, contents.own)), folder / "own")
    for bundle in image.servers:
        there = Cache.of_user().fetch(bundle)
        shutil.copytree(there, folder / "servers" / there.name)
    if image.module:
        (folder / "own" / "__main__.py").write_text(_START.format(module=image.module))


def _pinned(wheel: Path) -> str:
    return f"{wheel} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def _install(requirements: Iterable[str], folder: Path) -> None:
    """Install exactly these, each with its hash, for the platform that images run on."""
    asked = folder.with_suffix(".txt")
    asked.write_text("\n".join(requirements))
    _run(
        [_UV, "pip", "install", "--quiet", "--target", folder, "--no-deps", "--require-hashes",
         "--only-binary", ":all:", "--python-version", PYTHON, "--python-platform", _platform(),
         "--requirements", asked],
    )  # fmt: skip
    asked.unlink()
    shutil.rmtree(folder / "bin", ignore_errors=True)
    (folder / ".lock").unlink(missing_ok=True)  # the installer's


def _platform() -> str:
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine())
    return next(each for each in PLATFORMS if each.startswith(machine))


def _run(command: list[str | Path], env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, env=os.environ | (env or {}), capture_output=True, text=True, check=False)
    if done.returncode:
        raise StagingFailed(f"{' '.join(map(str, command[:3]))}: {done.stderr.strip()}")
