"""`stoa promote`: what an environment runs is one file, and changing it is the whole of a promotion.

gitops/environments/<environment>/images.yaml is a values file of the umbrella chart. Its tag is the commit of
the release, of which Argo CD takes the charts; its digests are the images, as they were pushed and signed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stoa_services import SERVICES
from stoa_stack.instance import CHECKOUT

_ENVIRONMENTS = CHECKOUT / "gitops" / "environments"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_HEADER = "# Written by `stoa promote`. The tag is the commit that charts and images are of.\n"
NEEDED: Collection[str] = {*SERVICES, "edge", "ops"}
"""The images that a shop can't run without."""


class NotARelease(ValueError):
    """What should be promoted can't run; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Release:
    """The charts and images of one commit; raises NotARelease if they are not all there."""

    registry: str
    commit: str
    digests: Mapping[str, str]
    """Of each image, by its name."""

    def __post_init__(self) -> None:
        if not self.registry:
            raise NotARelease("it has no registry")
        if not _COMMIT.match(self.commit):
            raise NotARelease(f"the tag must be a whole commit, not {self.commit!r}")
        if missing := NEEDED - self.digests.keys():
            raise NotARelease(f"there is no image of {', '.join(sorted(missing))}")
        if wrong := [name for name, digest in self.digests.items() if not _DIGEST.match(digest)]:
            raise NotARelease(f"{wrong[0]} has no digest, but {self.digests[wrong[0]]!r}")

    @property
    def images(self) -> Sequence[str]:
        """Each image as a registry knows it."""
        return [f"{self.registry}/{name}@{digest}" for name, digest in sorted(self.digests.items())]

    def as_values(self) -> Mapping[str, Any]:
        """The release as values of the umbrella chart."""
        shared = {"image": {"registry": self.registry, "tag": self.commit}}
        own = {name: {"image": {"digest": digest}} for name, digest in sorted(self.digests.items())}
        return {"global": {"defaults": shared}, **own}

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> Release:
        """The release that values of the umbrella chart name. Raises NotARelease."""
        try:
            shared = values["global"]["defaults"]["image"]
            own = {name: value["image"]["digest"] for name, value in values.items() if name != "global"}
            return cls(shared["registry"], shared["tag"], own)
        except (KeyError, TypeError) as error:
            raise NotARelease(f"it is no release: {error!r}") from None


def pushed(images: Path, commit: str) -> Release:
    """The release of what `stoa images --push` has written, an image a line. Raises NotARelease."""
    try:
        lines = images.read_text().split()
    except OSError as error:
        raise NotARelease(f"{images}: {error.strerror}") from None
    digests, registries = {}, set()
    for line in lines:
        image, _, digest = line.partition("@")
        registry, _, name = image.rpartition("/")
        registries.add(registry)
        digests[name] = digest
    if len(registries) != 1:
        raise NotARelease(f"images come from one registry, not from {len(registries)}")
    return Release(registries.pop(), commit, {name: digests[name] for name in digests.keys() & NEEDED})


def running(environment: str) -> Release:
    """The release that an environment runs. Raises NotARelease."""
    path = _file(environment)
    if not path.exists():
        raise NotARelease(f"nothing runs in {environment} yet")
    return Release.of_values(yaml.safe_load(path.read_text()))


def write(release: Release, environment: str) -> None:
    """Let an environment run a release. Raises NotARelease if there is no such environment."""
    _file(environment).write_text(_HEADER + yaml.safe_dump(release.as_values(), sort_keys=False))


def _file(environment: str) -> Path:
    known = sorted(path.parent.name for path in _ENVIRONMENTS.glob("*/applicationset.yaml"))
    if environment not in known:
        raise NotARelease(f"there is no environment {environment}, only {', '.join(known)}")
    return _ENVIRONMENTS / environment / "images.yaml"
