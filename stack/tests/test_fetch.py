"""The cache of servers, with a repository that the test plays."""

import hashlib
import io
import tarfile
import threading
import time
from pathlib import Path

import pytest

from stoa_stack import fetch
from stoa_stack.fetch import Bundle, Cache, FetchError, Pin

JARS = Bundle("shop", "1.0", ("org.example:shop:1.0",))
ARCHIVE = Bundle("till", "2.0", ("org.example:till:2.0:tar.gz:all",), archive=True)


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("bin/till")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"till"))
    return buffer.getvalue()


CONTENT = {
    "org.example:shop:1.0:jar": b"shop",
    "org.example:shelf:1.1:jar": b"shelf",
    "org.example:till:2.0:tar.gz:all": _archive(),
}


class Repository:
    """Answers downloads, in place of the real one."""

    def __init__(self) -> None:
        self.downloads: list[str] = []
        self.broken: set[str] = set()
        self.delay = 0.0

    def download(self, pin: Pin, folder: Path) -> Path:
        self.downloads.append(pin.coordinate)
        time.sleep(self.delay)
        if pin.coordinate in self.broken:
            raise FetchError(f"{pin.coordinate} could not be fetched: connection lost")
        path = folder / pin.coordinate.replace(":", "-")
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(CONTENT[pin.coordinate])
        return path


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Repository:
    repository = Repository()
    monkeypatch.setattr(fetch, "_download_one", repository.download)
    return repository


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    lines = ["# pins"]
    for coordinate, content in CONTENT.items():
        bundle = "till" if "till" in coordinate else "shop"
        lines.append(f"{bundle} {coordinate} {hashlib.sha256(content).hexdigest()}")
    lock = tmp_path / "jars.lock"
    lock.write_text("\n".join(lines))
    return Cache(tmp_path / "servers", lock)


def _entries(cache: Cache) -> list[str]:
    return [entry.name for entry in cache.folder.iterdir() if not entry.name.endswith(".lock")]


def test_a_bundle_is_downloaded_once_and_then_found(cache: Cache, repository: Repository) -> None:
    folder = cache.fetch(JARS)
    assert {file.read_bytes() for file in folder.iterdir()} == {b"shop", b"shelf"}
    assert cache.fetch(JARS) == folder
    assert len(repository.downloads) == 2


def test_an_archive_is_unpacked(cache: Cache, repository: Repository) -> None:
    assert (cache.fetch(ARCHIVE) / "bin" / "till").read_bytes() == b"till"


def test_a_download_that_breaks_never_counts_as_there(cache: Cache, repository: Repository) -> None:
    repository.broken.add("org.example:shelf:1.1:jar")
    with pytest.raises(FetchError, match="shelf"):
        cache.fetch(JARS)
    assert not cache.path(JARS).exists()
    assert _entries(cache) == []
    repository.broken.clear()
    assert len(list(cache.fetch(JARS).iterdir())) == 2


def test_what_a_killed_download_left_is_cleared_away(cache: Cache, repository: Repository) -> None:
    half = cache.folder / ".shop-killed" / "content"
    half.mkdir(parents=True)
    (half / "shop.jar").write_bytes(b"sh")
    folder = cache.fetch(JARS)
    assert _entries(cache) == [folder.name]


def test_two_at_once_download_it_once(cache: Cache, repository: Repository) -> None:
    repository.delay = 0.2
    folders: list[Path] = []
    reports: list[str] = []
    threads = [
        threading.Thread(target=lambda: folders.append(cache.fetch(JARS, reports.append))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [cache.path(JARS)] * 2
    assert len(repository.downloads) == 2
    assert "waiting for another download of it" in reports


def test_another_pin_is_another_folder(cache: Cache, tmp_path: Path) -> None:
    lock = tmp_path / "jars.lock"
    before = cache.path(JARS)
    lock.write_text(lock.read_text().replace(hashlib.sha256(b"shop").hexdigest(), "0" * 64))
    assert cache.path(JARS) != before


class _Artifact:
    """What jgo would hand out: a file of the given content."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path, self._content = path, content

    def resolve(self) -> Path:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(self._content)
        return self._path


def test_a_file_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_maven", lambda repository: repository)
    monkeypatch.setattr(
        fetch, "_artifact", lambda repository, _: _Artifact(repository / "shop.jar", b"not the shop")
    )
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(FetchError, match="checksum"):
        fetch._download_one(Pin("org.example:shop:1.0:jar", hashlib.sha256(b"shop").hexdigest()), tmp_path)


def test_every_bundle_of_the_stack_is_pinned() -> None:
    cache = Cache(Path("/nowhere"))
    for bundle in fetch.BUNDLES:
        pins = cache.pins(bundle)
        assert any(bundle.version in pin.coordinate for pin in pins)
        assert all(len(pin.sha256) == 64 for pin in pins)
    kafka = [pin.coordinate for pin in cache.pins(fetch.KAFKA)]
    assert f"org.apache.kafka:kafka-clients:{fetch.KAFKA.version}:jar" in kafka
