"""A promotion writes which charts and images an environment runs, and nothing that could not run."""

from pathlib import Path

import pytest

from stoa_tools.promote import NotARelease, Release, needed, values_of

COMMIT = "8d44c5cd1ff3d3a35ebda0b4d2c41d0ee1ed9e31"


def pushed(registry: str = "ghcr.io/example/stoa") -> list[str]:
    """What pushing a release says: an image a line."""
    return [f"{registry}/{name}@sha256:{number:064x}" for number, name in enumerate(sorted(needed()))]


def test_what_was_pushed_is_what_the_environment_runs(tmp_path: Path) -> None:
    release = Release.of_images(pushed(), COMMIT)
    release.write(tmp_path / "images.yaml")
    assert Release.read(tmp_path / "images.yaml") == release
    assert Release.read(tmp_path / "images.yaml").images == pushed()


def test_a_release_without_the_image_of_a_service_is_none() -> None:
    with pytest.raises(NotARelease, match="no image of order"):
        Release.of_images([image for image in pushed() if "/order@" not in image], COMMIT)


def test_an_image_by_its_tag_may_change_and_is_refused() -> None:
    with pytest.raises(NotARelease, match="digest"):
        Release.of_images([*pushed(), "ghcr.io/example/stoa/order:dev"], COMMIT)


def test_charts_and_images_are_of_a_whole_commit() -> None:
    with pytest.raises(NotARelease, match="whole commit"):
        Release.of_images(pushed(), "main")


def test_images_of_two_registries_are_no_release() -> None:
    mixed = [*pushed()[:-1], pushed("quay.io/other")[-1]]
    with pytest.raises(NotARelease, match="one registry"):
        Release.of_images(mixed, COMMIT)


def test_an_environment_that_nobody_declared_is_none() -> None:
    with pytest.raises(NotARelease, match="production, staging"):
        values_of("moon")
