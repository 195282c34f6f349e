"""Whether a change of the contracts keeps what consumers rely on.

Protos are compared with the main branch before the change. Event schemas, as they are registered, are
compared with all versions in the history, both ways, as the registry's FULL_TRANSITIVE does: what it would
refuse at the deploy is refused before it is merged.
"""

import io
import json
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import avro.schema
from avro.compatibility import (
    ReaderWriterCompatibilityChecker,
    SchemaCompatibilityResult,
    SchemaCompatibilityType,
)

from stoa_stack.files import unpack
from stoa_stack.instance import CHECKOUT
from stoa_tools.gen import schemas
from stoa_tools.gen.errors import GenerationFailed
from stoa_tools.gen.tools import buf, git

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
    with tempfile.TemporaryDirectory() as folder:
        _check_out(base, Path(folder), root)
        buf("breaking", "--against", folder, root=root)
    now = schemas.read_folder(root / "events")
    before = earlier_versions(root)
    refused = [
        f"events/{topic}.avsc can't replace the version of {commit[:12]}: {reason}"
        for topic in now.payloads
        for schema, commit in before.get(topic, {}).items()
        for reason in incompatibilities(schema, json.dumps(now.registered(topic)))
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


def earlier_versions(root: Path = CHECKOUT) -> Mapping[str, Mapping[str, str]]:
    """Every different schema that each topic has had in the history, newest first, with its commit."""
    versions: dict[str, dict[str, str]] = defaultdict(dict)
    for commit in (git("log", "--format=%H", "HEAD", "--", "events", root=root) or b"").decode().split():
        for topic, schema in _registered_at(commit, root).items():
            versions[topic].setdefault(json.dumps(schema), commit)
    return versions


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


def _registered_at(commit: str, root: Path) -> Mapping[str, schemas.Schema]:
    """The schemas of all topics as of a commit; none if they made no sense: then there were none."""
    archive = git("archive", commit, "events", root=root)
    if archive is None:  # the folder is not there
        return {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        texts = {
            member.name.removeprefix("events/"): content.read().decode()
            for member in files
            if (content := files.extractfile(member)) is not None
        }
    try:
        if "envelope.avsc" not in texts:  # when each topic's file held its whole schema
            return {path.removesuffix(".avsc"): json.loads(text) for path, text in texts.items()}
        sources = schemas.read(texts)
        return {topic: sources.registered(topic) for topic in sources.payloads}
    except (GenerationFailed, ValueError):
        return {}


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
