"""What builds images: docker, podman or buildah, whichever is there. All three read the same recipes."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

# More options for each build, as the machine at hand needs them: STOA_IMAGE_OPTIONS="--pull-never".
OPTIONS = "STOA_IMAGE_OPTIONS"
_BUILD: Mapping[str, Sequence[str]] = {
    "docker": ("docker", "build"),
    "podman": ("podman", "build"),
    "buildah": ("buildah", "build", "--layers"),
}


class BuilderFailed(Exception):
    """There is no builder, or it failed; the message is the end of what it said."""


@dataclass(frozen=True, slots=True)
class Builder:
    """A program that builds images and keeps them."""

    name: str

    @classmethod
    def find(cls, name: str = "") -> Builder:
        """The builder of that name, or the first that answers. Raises BuilderFailed."""
        for each in [name] if name else _BUILD:
            if each in _BUILD and _answers(each):
                return cls(each)
        raise BuilderFailed(f"No {name or 'builder'} answers here. Images are built by {', '.join(_BUILD)}.")

    def build(self, context: Path, recipe: Path, tag: str, arguments: Mapping[str, str]) -> None:
        """Build an image. Raises BuilderFailed."""
        given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        options = shlex.split(os.environ.get(OPTIONS, ""))
        self._run(
            [*_BUILD[self.name], "--file", str(recipe), "--tag", tag, *given, *options, str(context)], tag
        )

    def save(self, tag: str, file: Path) -> None:
        """Write an image to a file, as `docker save` does. Raises BuilderFailed."""
        commands = {
            "docker": ["docker", "save", "--output", str(file), tag],
            "podman": ["podman", "save", "--quiet", "--format", "docker-archive", "--output", str(file), tag],
            "buildah": ["buildah", "push", "--quiet", tag, f"docker-archive:{file}:{tag}"],
        }
        self._run(commands[self.name], tag)

    def push(self, tag: str) -> str:
        """Upload an image to the registry in its name; returns the digest. Raises BuilderFailed."""
        if self.name == "docker":
            self._run(["docker", "push", "--quiet", tag], tag)
            asked = ["docker", "image", "inspect", "--format", "{{index .RepoDigests 0}}", tag]
            return self._run(asked, tag).strip().partition("@")[2]
        with TemporaryDirectory() as folder:
            digest = Path(folder, "digest")
            self._run([self.name, "push", "--quiet", "--digestfile", str(digest), tag], tag)
            return digest.read_text().strip()

    def _run(self, command: Sequence[str], tag: str) -> str:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            raise BuilderFailed(f"{tag}: {self.name} failed.\n{done.stdout[-3000:].strip()}")
        return done.stdout


def _answers(builder: str) -> bool:
    """Whether it can be asked its version: docker's client may be there without what builds."""
    if not shutil.which(builder):
        return False
    asked = subprocess.run(
        [builder, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return asked.returncode == 0
