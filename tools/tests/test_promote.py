"""A promotion writes which charts and images an environment runs, and nothing that could not run."""

from pathlib import Path

import pytest
import yaml

from stoa_tools import promote
from stoa_tools.promote import NEEDED, NotARelease, Release

COMMIT = "8d44c5cd1ff3d3a35ebda0b4d2c41d0ee1ed9e31"
REGISTRY = "ghcr.io/example/stoa"
DIGESTS = {name: f"sha256:{number:064x}" for number, name in enumerate(sorted(NEEDED))}


def images(folder: Path, *registries: str) -> Path:
    """The file that pushing writes: an image a line."""
    file = folder / "pushed.txt"
    lines = (f"{each}/{name}@{digest}\n" for each in registries for name, digest in DIGESTS.items())
    file.write_text("".join(lines))
    return file


def test_what_was_pushed_is_what_the_environment_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promote, "_ENVIRONMENTS", tmp_path)
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "applicationset.yaml").touch()
    release = promote.pushed(images(tmp_path, REGISTRY), COMMIT)
    promote.write(release, "staging")

    assert promote.running("staging") == release
    values = yaml.safe_load((tmp_path / "staging" / "images.yaml").read_text())
    assert values["global"]["defaults"]["image"] == {"registry": REGISTRY, "tag": COMMIT}
    assert values["order"]["image"]["digest"] == DIGESTS["order"]


def test_images_are_named_as_a_registry_knows_them() -> None:
    assert f"{REGISTRY}/order@{DIGESTS['order']}" in Release(REGISTRY, COMMIT, DIGESTS).images


def test_a_release_without_the_image_of_a_service_is_none() -> None:
    with pytest.raises(NotARelease, match="no image of order"):
        Release(REGISTRY, COMMIT, {name: digest for name, digest in DIGESTS.items() if name != "order"})


def test_an_image_by_its_tag_may_change_and_is_refused() -> None:
    with pytest.raises(NotARelease, match="order has no digest"):
        Release(REGISTRY, COMMIT, {**DIGESTS, "order": "dev"})


def test_charts_and_images_are_of_a_whole_commit() -> None:
    with pytest.raises(NotARelease, match="whole commit"):
        Release(REGISTRY, "main", DIGESTS)


def test_images_of_two_registries_are_no_release(tmp_path: Path) -> None:
    with pytest.raises(NotARelease, match="one registry"):
        promote.pushed(images(tmp_path, REGISTRY, "quay.io/other"), COMMIT)


def test_an_environment_that_nobody_declared_is_none() -> None:
    with pytest.raises(NotARelease, match="production, staging"):
        promote.running("moon")
