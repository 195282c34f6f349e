"""Whether a change of the contracts keeps what consumers rely on.

Protos are compared with the main branch before the change. Event schemas are compared with all versions that
main has ever had, both ways, as the registry's FULL_TRANSITIVE does: what it would refuse at the deploy is
refused before it is merged.
"""

import io
import tarfile
import tempfile
from pathlib import Path

import avro.schema
from avro.compatibility import (
    ReaderWriterCompatibilityChecker,
    SchemaCompatibilityResult,
    SchemaCompatibilityType,
)

from stoa_stack.files import unpack
from stoa_tools.gen.errors import GenerationFailed
from stoa_tools.gen.tools import buf, git
from stoa_stack.instance import CHECKOUT

_MAIN = ("origin/main", "main")


def check(root: Path = CHECKOUT) -> str:
    """Check style and compatibility of all contracts; returns what they were compared with.

    Raises:
        GenerationFailed: they break a rule, or a change breaks consumers.
    """
    buf("lint", root=root)
    base = previous(root)
    if base is None:
        return "no earlier contracts to compare with"
    with tempfile.TemporaryDirectory() as before:
        _check_out(base, Path(before), root)
        buf("breaking", "--against", before, root=root)
    refused = [
        f"events/{path.name} can't replace the version of {commit[:12]}: {reason}"
        for path in sorted((root / "events").glob("*.avsc"))
        for commit, schema in earlier_versions(f"events/{path.name}", root)
        for reason in incompatibilities(schema, path.read_text())
    ]
    if refused:
        raise GenerationFailed("\n".join(refused))
    return f"compatible with {base[:12]}"


def previous(root: Path = CHECKOUT) -> str | None:
    """The commit that the protos are compared with: where this branch left main, or main's last but one.

    None outside a clone, at the first commit, and where that commit has no contracts.
    """
    head = _commit("HEAD", root)
    for branch in _MAIN:
        if head and _commit(branch, root) not in (None, head):
            fork = git("merge-base", "HEAD", branch, root=root)
            base = fork.decode().strip() if fork else None
            if base != head:  # else main has moved on, and this commit is part of it
                return base if base and _has_contracts(base, root) else None
    parent = _commit("HEAD~1", root)
    return parent if parent and _has_contracts(parent, root) else None


def earlier_versions(path: str, root: Path = CHECKOUT) -> list[tuple[str, str]]:
    """Every different content that a file has had in the history, newest first, with its commit."""
    versions: dict[str, str] = {}
    for commit in (git("log", "--format=%H", "HEAD", "--", path, root=root) or b"").decode().split():
        content = git("show", f"{commit}:{path}", root=root)
        if content is not None:
            versions.setdefault(content.decode(), commit)
    return [(commit, content) for content, commit in versions.items()]


def incompatibilities(old: str, new: str) -> list[str]:
    """Why the new schema can't replace the old one; empty if each reads what the other writes."""
    if old == new:
        return []
    before, after = avro.schema.parse(old), avro.schema.parse(new)
    reasons = []
    for reader, writer, who in (
        (after, before, "it can't read what that wrote"),
        (before, after, "that can't read what it writes"),
    ):
        checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
        result = checker.get_compatibility(reader, writer)
        if result.compatibility is not SchemaCompatibilityType.compatible:
            reasons.append(f"{who} ({_reasons(result)})")
    return reasons


def _reasons(result: SchemaCompatibilityResult) -> str:
    kinds = ", ".join(kind.value for kind in result.incompatibilities)
    return f"{kinds}: {'; '.join(sorted(result.messages))}"


def _commit(revision: str, root: Path) -> str | None:
    answer = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", root=root)
    return answer.decode().strip() if answer else None


def _has_contracts(commit: str, root: Path) -> bool:
    return all(
        git("cat-file", "-e", f"{commit}:{path}", root=root) is not None for path in ("buf.yaml", "proto")
    )


def _check_out(commit: str, folder: Path, root: Path) -> None:
    archive = git("archive", commit, "buf.yaml", "proto", "third_party", root=root)
    if archive is None:
        raise GenerationFailed(f"git can't read the contracts of {commit}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        unpack(files, folder)
