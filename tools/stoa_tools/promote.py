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
_IMAGE = re.compile(r"(?P<registry>[^@\s]+)/(?P<name>[^/@:\s]+)@(?P<digest>sha256:[0-9a-f]{64})\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_HEADER = "# Written by `stoa promote`. The tag is the commit that charts and images are of.\n"


class NotARelease(ValueError):
    """What should be promoted can't run; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Release:
    """The charts and images of one commit."""

    registry: str
    commit: str
    digests: Mapping[str, str]
    """Of each image, by its name."""

    @classmethod
    def of_images(cls, images: Sequence[str], commit: str) -> Release:
        """The release of images that were pushed: `registry/name@sha256:…` each. Raises NotARelease."""
        found = [_IMAGE.match(image) for image in images]
        if wrong := [image for image, match in zip(images, found, strict=True) if match is None]:
            raise NotARelease(f"{wrong[0]!r} is no image with its registry and digest")
        matches = [match for match in found if match is not None]
        registries = sorted({match["registry"] for match in matches})
        if len(registries) != 1:
            raise NotARelease(f"images come from one registry, not from {', '.join(registries) or 'none'}")
        return cls(registries[0], commit, {match["name"]: match["digest"] for match in matches})._checked()

    @classmethod
    def read(cls, path: Path) -> Release:
        """The release that an environment runs. Raises NotARelease."""
        try:
            values: dict[str, Any] = yaml.safe_load(path.read_text())
            shared = values.pop("global")["defaults"]["image"]
            digests = {name: value["image"]["digest"] for name, value in values.items()}
            return cls(shared["registry"], shared["tag"], digests)._checked()
        except (OSError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise NotARelease(f"{path} names no release: {error!r}") from None

    def write(self, path: Path) -> None:
        """Write the values file."""
        shared = {"image": {"registry": self.registry, "tag": self.commit}}
        own = {name: {"image": {"digest": digest}} for name, digest in sorted(self.digests.items())}
        path.write_text(_HEADER + yaml.safe_dump({"global": {"defaults": shared}, **own}, sort_keys=False))

    @property
    def images(self) -> Sequence[str]:
        """Each image as a registry knows it."""
        return [f"{self.registry}/{name}@{digest}" for name, digest in sorted(self.digests.items())]

    def _checked(self) -> Release:
        if not _COMMIT.match(self.commit):
            raise NotARelease(f"the tag must be a whole commit, not {self.commit!r}")
        if missing := needed() - self.digests.keys():
            raise NotARelease(f"there is no image of {', '.join(sorted(missing))}")
        return self


def needed() -> Collection[str]:
    """The images that a shop can't run without."""
    return {*SERVICES, "edge", "ops"}


def values_of(environment: str) -> Path:
    """The file that says what an environment runs. Raises NotARelease if there is no such environment."""
    folder = _ENVIRONMENTS / environment
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in _ENVIRONMENTS.iterdir()))
        raise NotARelease(f"there is no environment {environment}, only {known}")
    return folder / "images.yaml"
