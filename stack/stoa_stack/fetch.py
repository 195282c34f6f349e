"""Fetching servers that come as Maven artifacts, into a cache that all checkouts of a user share.

`jars.lock` pins every file of every bundle by its coordinate and SHA-256. A bundle is downloaded and
unpacked in a temporary folder, verified, flushed to disk and then renamed into place under a name that
carries the lock's checksum: what bears its final name is complete, whatever was killed on the way.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stoa_stack.files import flush_tree, unpack, user_cache, write_atomically

if TYPE_CHECKING:
    from rich.console import Console

Report = Callable[[str], None]

LOCK_FILE = Path(__file__).with_name("jars.lock")
_PARALLEL = 8
_ATTEMPTS = 3
_TIMEOUT_SECONDS = 60


class FetchError(Exception):
    """A server could not be downloaded, or is not what the lock file says."""


@dataclass(frozen=True)
class Bundle:
    """A server made of Maven artifacts.

    `roots` are the coordinates that are resolved with all they need. A `!` at the end keeps an artifact's own
    list of versions from overruling the others' (log4j's would bring Kafka an old client). Artifacts whose
    names are in `without` are left out: named as needed, and not used. An archive is unpacked instead of
    being kept as a file.
    """

    name: str
    version: str
    roots: tuple[str, ...]
    archive: bool = False
    without: frozenset[str] = frozenset()


KAFKA = Bundle(
    "kafka",
    "4.4.0",
    ("org.apache.kafka:kafka_2.13:4.4.0", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5!"),
)
REGISTRY = Bundle("registry", "3.3.3", ("io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all",), archive=True)
MONGO = Bundle(
    "mongo",
    "1.47.0",
    (
        "de.bwaldvogel:mongo-java-server:1.47.0",
        "de.bwaldvogel:mongo-java-server-h2-backend:1.47.0!",
        "org.slf4j:slf4j-simple:2.0.17!",
    ),
)
OPENSEARCH = Bundle(
    "opensearch",
    "3.8.0",
    (
        "org.opensearch:opensearch:3.8.0",
        "org.opensearch:opensearch-plugin-classloader:3.8.0",
        "org.opensearch:opensearch-agent-bootstrap:3.8.0",
        "org.opensearch.plugin:transport-netty4-client:3.8.0!",
        "org.opensearch.plugin:analysis-common:3.8.0!",
        "org.apache.logging.log4j:log4j-core:2.25.4!",
        "org.locationtech.jts:jts-core:1.15.0",
        "org.locationtech.spatial4j:spatial4j:0.7",
        "com.ibm.icu:icu4j-localespi:77.1",
    ),
    without=frozenset({"netty-codec-native-quic"}),  # one for each processor, and no HTTP/3 here
)
BUNDLES = (KAFKA, REGISTRY, MONGO, OPENSEARCH)


@dataclass(frozen=True)
class Pin:
    """One file: `group:artifact:version:packaging[:classifier]` and the SHA-256 of its content."""

    coordinate: str
    sha256: str

    @property
    def file_name(self) -> str:
        """What the file is called."""
        _, artifact, version, packaging, *classifier = self.coordinate.split(":")
        return f"{'-'.join((artifact, version, *classifier))}.{packaging}"


class Cache:
    """The bundles that were fetched, in a folder that many processes may use at once."""

    def __init__(self, folder: Path, lock_file: Path = LOCK_FILE) -> None:
        self.folder = folder
        self._lock_file = lock_file

    @classmethod
    def of_user(cls) -> Cache:
        """The cache in the user's cache folder (XDG_CACHE_HOME)."""
        return cls(user_cache() / "servers")

    def path(self, bundle: Bundle) -> Path:
        """Where the bundle is, or will be once it is fetched."""
        pins = "\n".join(f"{pin.coordinate} {pin.sha256}" for pin in self.pins(bundle))
        checksum = hashlib.sha256(pins.encode()).hexdigest()[:12]
        return self.folder / f"{bundle.name}-{bundle.version}-{checksum}"

    def pins(self, bundle: Bundle) -> list[Pin]:
        """The files of a bundle, as the lock file has them."""
        lines = (
            line.split() for line in self._lock_file.read_text().splitlines() if not line.startswith("#")
        )
        return [Pin(line[1], line[2]) for line in lines if line and line[0] == bundle.name]

    def fetch(self, bundle: Bundle, report: Report = lambda _: None) -> Path:
        """The bundle's folder, downloaded first if it isn't there.

        Raises FetchError when a file can't be had or its checksum is wrong.
        """
        target = self.path(bundle)
        if target.exists():
            return target
        self.folder.mkdir(parents=True, exist_ok=True)
        with _exclusive(self.folder / f".{bundle.name}.lock", report):
            if target.exists():
                return target
            for left in self.folder.glob(f".{bundle.name}-*"):  # of downloads that were killed
                shutil.rmtree(left)
            work = Path(tempfile.mkdtemp(dir=self.folder, prefix=f".{bundle.name}-"))
            try:
                content = work / "content"
                content.mkdir()
                files = self._download(self.pins(bundle), work / "downloads", report)
                for file in files:
                    if bundle.archive:
                        report("unpacking")
                        with tarfile.open(file) as archive:
                            unpack(archive, content)
                    else:
                        file.rename(content / file.name)
                flush_tree(content)
                content.rename(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        return target

    def _download(self, pins: Sequence[Pin], folder: Path, report: Report) -> list[Path]:
        if not pins:
            raise FetchError(f"{self._lock_file.name} pins nothing for it: run `stoa fetch --update`")
        files: dict[Pin, Path] = {}
        with ThreadPoolExecutor(_PARALLEL) as pool:
            running = {pool.submit(_download_one, pin, folder): pin for pin in pins}
            for done in as_completed(running):
                files[running[done]] = done.result()
                report(f"downloaded {len(files)} of {len(pins)} files")
        return [files[pin] for pin in pins]

    def update_lock(self, bundles: Sequence[Bundle] = BUNDLES) -> None:
        """Resolve the bundles' roots anew and pin what they need in the lock file."""
        lines = [
            "# Written by `stoa fetch --update`: every file of the servers that come as Maven artifacts."
        ]
        with tempfile.TemporaryDirectory() as folder:
            context = _maven(Path(folder))
            for bundle in bundles:
                if bundle.archive:
                    artifacts = [_artifact(context, root) for root in bundle.roots]
                else:
                    roots = [context.create_dependency(root) for root in bundle.roots]
                    _, needed = context.resolver.resolve(roots)
                    artifacts = [
                        dependency.artifact
                        for dependency in [*roots, *needed]
                        if dependency.artifact.artifactId not in bundle.without
                    ]
                with ThreadPoolExecutor(_PARALLEL) as pool:
                    paths = list(pool.map(lambda artifact: artifact.resolve(), artifacts))
                pinned = {
                    ":".join(
                        part
                        for part in (a.groupId, a.artifactId, a.version, a.packaging, a.classifier)
                        if part
                    ): _sha256(path)
                    for a, path in zip(artifacts, paths, strict=True)
                }
                lines += [f"{bundle.name} {coordinate} {pinned[coordinate]}" for coordinate in sorted(pinned)]
        write_atomically(self._lock_file, "\n".join(lines) + "\n", mode=0o644)


def _maven(repository: Path):  # type: ignore[no-untyped-def]  # jgo has no types
    # requests, which jgo uses, knows the system's authorities only by a name of its own.
    if bundle := os.environ.get("SSL_CERT_FILE"):
        os.environ.setdefault("REQUESTS_CA_BUNDLE", bundle)
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext
    from jgo.maven._core import DEFAULT_REMOTE_REPOS

    return MavenContext(
        # A private repository: the user's own may hold half of a file from a download that was killed.
        repo_cache=repository,
        # Mirrors come from the user's jgo configuration, as for every other use of jgo.
        remote_repos=GlobalSettings.load().repositories or DEFAULT_REMOTE_REPOS,
        timeout=_TIMEOUT_SECONDS,
    )


def _artifact(context, coordinate: str):  # type: ignore[no-untyped-def]  # jgo has no types
    group, artifact, version, packaging, *classifier = coordinate.split(":")
    return context.project(group, artifact).at_version(version).artifact("".join(classifier), packaging)


def _download_one(pin: Pin, folder: Path) -> Path:
    problem = ""
    for attempt in range(_ATTEMPTS):
        repository = folder / f"{pin.sha256[:16]}-{attempt}"
        try:
            path: Path = _artifact(_maven(repository), pin.coordinate).resolve()
        except Exception as error:  # jgo raises whatever its HTTP client does
            problem = f"{type(error).__name__}: {error}"
            logging.getLogger(__name__).warning("attempt %d for %s: %s", attempt + 1, pin.coordinate, problem)
            time.sleep(attempt)
            continue
        if _sha256(path) == pin.sha256:
            return path
        problem = "its checksum is not the one in jars.lock"
    raise FetchError(f"{pin.coordinate} could not be fetched: {problem}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _exclusive(path: Path, report: Report) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another download of it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def command(console: Console, *, update: bool) -> int:
    """`stoa fetch`: have every bundle in the cache, pinned anew if asked to; returns the exit code."""
    cache = Cache.of_user()
    try:
        if update:
            cache.update_lock()
        for bundle in BUNDLES:
            console.print(f"{bundle.name} {bundle.version}: {cache.fetch(bundle)}", soft_wrap=True)
    except FetchError as error:
        console.print(str(error), soft_wrap=True)
        return 1
    return 0
