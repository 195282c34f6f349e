"""`stoa gen`: everything under gen/ from proto/, events/ and the declarations of the services.

What is generated is committed, so that readers and packagers need no tools; `stoa gen --check` keeps it so.
"""

import filecmp
import shutil
import tempfile
from pathlib import Path

from stoa_contracts.descriptors import InvalidContract, read
from stoa_stack.files import write_atomically
from stoa_stack.instance import CHECKOUT
from stoa_tools.gen import charts, events, infrastructure, rest, schemas, services
from stoa_tools.gen.errors import GenerationFailed
from stoa_tools.gen.tools import buf

_PYTHON = Path("python")
_OPENAPI = Path("openapi") / "openapi.yaml"
_INFRASTRUCTURE = Path("charts") / "infrastructure.yaml"
_DESCRIPTORS = Path("descriptors") / "stoa.binpb"
# What Python leaves there, and what Helm does when it packs the umbrella's parts.
_NOT_OURS = frozenset({"__pycache__", "Chart.lock"})
_PACKED = ".tgz"


def run(check: bool = False) -> list[str]:
    """Regenerate gen/, or with `check` only compare.

    Returns what differed, one `added|changed|removed <path>` each.

    Raises:
        GenerationFailed: a contract does not compile, or a declaration is wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "gen"
        buf("generate", "--output", folder)
        (fresh / _DESCRIPTORS).parent.mkdir()
        descriptors = str(fresh / _DESCRIPTORS)
        buf("build", "--as-file-descriptor-set", "--exclude-source-info", "--output", descriptors)
        events.generate(
            schemas.read_folder(CHECKOUT / "events"), fresh / _PYTHON / "stoa_events", fresh / "avro"
        )
        rest.generate(fresh / _OPENAPI, fresh / _PYTHON / "stoa_rest")
        try:
            contracts = read(fresh / _DESCRIPTORS)
        except InvalidContract as error:
            raise GenerationFailed(str(error)) from error
        declared = services.generate(CHECKOUT, contracts, fresh / _PYTHON / "stoa_services")
        charts.generate(CHECKOUT, contracts, declared, fresh / "charts")
        infrastructure.generate(declared, fresh / _INFRASTRUCTURE)
        _mark_typed(fresh / _PYTHON)
        return _compare(fresh, CHECKOUT / "gen", write=not check)


def _mark_typed(python: Path) -> None:
    # The top folders are namespace packages with portions elsewhere, so the marker goes lower.
    for package in sorted({path.parent for path in python.rglob("*.pyi")}):
        (package / "py.typed").touch()


def _compare(fresh: Path, current: Path, *, write: bool) -> list[str]:
    """Make `current` equal to `fresh` file by file: what did not change keeps its caches."""
    new = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    old = {
        path.relative_to(current)
        for path in current.rglob("*")
        if path.is_file() and not _NOT_OURS.intersection(path.parts) and path.suffix != _PACKED
    }
    differences = []
    for path in sorted(new | old):
        if path not in new:
            differences.append(f"removed {path}")
            if write:
                (current / path).unlink()
        elif path not in old or not filecmp.cmp(fresh / path, current / path, shallow=False):
            differences.append(f"{'changed' if path in old else 'added'} {path}")
            if write:
                (current / path).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(current / path, (fresh / path).read_bytes(), mode=0o644)
    if write:
        _drop_empty_folders(current)
    return differences


def _drop_empty_folders(folder: Path) -> None:
    for child in [path for path in folder.iterdir() if path.is_dir()]:
        _drop_empty_folders(child)
        if all(left.name in _NOT_OURS for left in child.iterdir()):
            shutil.rmtree(child)
