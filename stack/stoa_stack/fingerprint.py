"""What a part runs, as a short hash: its code, its configuration, its environment and what it reads.

The supervisor records the fingerprint of each process it starts. `stoa status` compares it with that of a
start now, and `stoa apply` restarts the parts that differ. The code of a Python part is its package and all
that this imports from the checkout, found by its import statements: a change in one service is no change of
another.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from stoa_stack.instance import CHECKOUT
from stoa_stack.part import Part

_LENGTH = 16
_IMPORT = re.compile(rb"^\s*(?:from|import)\s+(stoa(?:_\w+)?(?:\.\w+)*)", re.MULTILINE)
_THIRD_PARTY = CHECKOUT / "requirements.lock"


def of(part: Part, files: Mapping[Path, bytes | None] | None = None) -> str:
    """Return the fingerprint of the part if it were started now.

    `files` are its configuration files with the content that counts, None for the one on disk; without them
    they are rendered.
    """
    if files is None:
        files = dict(part.files()) if part.files is not None else {}
    digest = hashlib.sha256()
    # The interpreter has several names in the virtual environment.
    command = ["python" if word == sys.executable else str(word) for word in part.command]
    for word in (*command, part.declared, *(f"{name}={value}" for name, value in sorted(part.env.items()))):
        digest.update(word.encode() + b"\0")
    for path, content in sorted(files.items()):
        digest.update(str(path).encode() + (_digest(path) if content is None else _hash(content)))
    packages = {name: folder for package in part.packages for name, folder in imported(package).items()}
    packages = {name: folder for name, folder in packages.items() if name not in part.apart}
    if part.packages:
        digest.update(sys.version.encode() + _digest(_THIRD_PARTY))
    for root in (*(folder for _, folder in sorted(packages.items())), *part.reads):
        for path in _files(root):
            digest.update(str(path.relative_to(root)).encode() + _digest(path))
    return digest.hexdigest()[:_LENGTH]


def imported(package: str) -> dict[str, Path]:
    """Return the package and all that it imports of the checkout's, directly or not, with their folders.

    A hand-written package counts as a whole, of the generated `stoa` the folder of a version
    (`stoa.order.v1`).
    """
    found: dict[str, Path] = {}
    pending = [package]
    while pending:
        name = pending.pop()
        folder = _folder(name)
        if name in found or folder is None:
            continue
        found[name] = folder
        pending += {unit for path in _files(folder) if path.suffix == ".py" for unit in _imports(path)}
    return found


def _folder(name: str) -> Path | None:
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    folders = (Path(place).joinpath(*rest) for place in spec.submodule_search_locations)
    return next((folder for folder in folders if folder.is_dir()), None)


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
    elif root.is_dir():
        yield from sorted(
            path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts
        )


def _imports(path: Path) -> frozenset[str]:
    return _read(path, *_version(path))[1]


def _digest(path: Path) -> bytes:
    try:
        return _read(path, *_version(path))[0]
    except FileNotFoundError:
        return b"missing"


def _version(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@functools.lru_cache(maxsize=4096)
def _read(path: Path, _modified: int, _size: int) -> tuple[bytes, frozenset[str]]:
    """Return a file's hash and the units it imports; read again only when it has changed."""
    content = path.read_bytes()
    units = _units(_IMPORT.findall(content)) if path.suffix == ".py" else frozenset()
    return _hash(content), frozenset(units)


def _units(modules: Iterable[bytes]) -> Iterator[str]:
    for module in modules:
        words = module.decode().split(".")
        if words[0] != "stoa":
            yield words[0]
        elif len(words) >= 3:
            yield ".".join(words[:3])


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
