"""Files: written so that a reader, or a crash, never meets half of one; found in packages."""

from __future__ import annotations

import importlib.util
import os
import tarfile
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `content` in one step; the parent folder is made if needed."""
    private_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def private_folder(path: Path) -> Path:
    """The folder, made with all that is missing above it, closed to other users."""
    if not path.is_dir():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def user_cache() -> Path:
    """The folder of what is kept for all checkouts of a user, as stack/bootstrap has it (XDG_CACHE_HOME)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stoa"


def flush_tree(folder: Path) -> None:
    """Force everything below `folder` to disk, so that a later rename can't outlive its content."""
    for place, _, names in os.walk(folder):
        for entry in [place, *(os.path.join(place, name) for name in names)]:
            descriptor = os.open(entry, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def package_folder(package: str) -> Path:
    """The folder of an installed package that is there for its binaries, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    return Path(spec.origin).parent


def unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Unpack an archive that we trust; from Python 3.11.4 on also without what reaches outside."""
    archive.extraction_filter = getattr(tarfile, "data_filter", None)
    archive.extractall(folder)
