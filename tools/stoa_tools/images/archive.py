"""An image as it was built, read from what `docker save` writes: its files, and how it is run."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

_KEPT = ("METADATA", "PYTHON_VERSION", "status.d")  # what the bill of materials is read from
_SHELLS = frozenset({"ash", "bash", "busybox", "dash", "ksh", "sh", "zsh"})
_PACKAGE_MANAGERS = frozenset({"apk", "apt", "apt-get", "dpkg", "pip", "pip3", "rpm", "uv"})
_PROGRAMS = frozenset({"bin", "sbin"})
_SET_ID = 0o6000


@dataclass(slots=True)
class BuiltImage:
    """What an image has: its configuration, the sizes and modes of its files by path, some texts."""

    config: Mapping[str, Any]
    sizes: dict[PurePosixPath, int] = field(default_factory=dict)
    modes: dict[PurePosixPath, int] = field(default_factory=dict)
    texts: dict[PurePosixPath, str] = field(default_factory=dict)

    @property
    def mb(self) -> float:
        """How large its files are, in megabytes."""
        return sum(self.sizes.values()) / 1e6

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self.config.get("Labels") or {}


def read(archive: Path) -> BuiltImage:
    """Read an image's archive. Raises KeyError for one that is none."""
    with tarfile.open(archive) as outer:
        (manifest,) = json.load(_member(outer, "manifest.json"))
        image = BuiltImage(json.load(_member(outer, manifest["Config"]))["config"])
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=_member(outer, layer)) as files:
                for each in files:
                    _take(image, files, each)
    return image


def problems(image: BuiltImage, limit_mb: int, *, bare: bool = True) -> Iterator[str]:
    """What is not as it has to be of every image of ours; only one that is not bare has a base's programs."""
    if image.mb > limit_mb:
        yield f"it has {image.mb:.0f} MB, more than {limit_mb}"
    user = str(image.config.get("User") or "root").partition(":")[0]
    if user in ("0", "root") or not user.isdigit():
        yield f"it runs as {user}, not as a number other than 0, which Kubernetes can check"
    for path in image.sizes if bare else ():
        if path.parent.name in _PROGRAMS and path.name in _SHELLS | _PACKAGE_MANAGERS:
            yield f"it has {path}"
        if image.modes[path] & _SET_ID:
            yield f"{path} runs as its owner, whoever starts it"
    for name in ("source", "revision", "version", "licenses"):
        if f"org.opencontainers.image.{name}" not in image.labels:
            yield f"it has no label {name}"


def _take(image: BuiltImage, files: tarfile.TarFile, each: tarfile.TarInfo) -> None:
    path = PurePosixPath("/", each.name)
    if not (each.isfile() or each.issym() or each.islnk()):
        return
    image.sizes[path] = each.size if each.isfile() else 0
    image.modes[path] = each.mode if each.isfile() else 0
    if each.isfile() and (path.name in _KEPT or path.parent.name in _KEPT):
        image.texts[path] = _member(files, each).read().decode(errors="replace")


def _member(archive: tarfile.TarFile, member: str | tarfile.TarInfo) -> IO[bytes]:
    found = archive.extractfile(member)
    if found is None:
        raise KeyError(member)
    return found
