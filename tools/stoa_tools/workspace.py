"""The members of the workspace, found in the tree: what is checked and locked needs no list of them."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stoa_stack.instance import CHECKOUT


@dataclass(frozen=True)
class Member:
    """A part of Stoa that is a Python distribution; `folder` is relative to the checkout.

    `packages` are the import packages that its wheel carries, relative to the folder.
    """

    name: str  # stoa-order
    folder: PurePosixPath  # services/order
    packages: tuple[PurePosixPath, ...]  # stoa_order

    @property
    def is_service(self) -> bool:
        """Whether it is a microservice."""
        return self.folder.parts[0] == "services"

    @property
    def modules(self) -> tuple[str, ...]:
        """The import packages written by hand, by their names."""
        return tuple(package.name for package in self.packages if package.name.startswith("stoa_"))


def members(checkout: Path = CHECKOUT) -> Sequence[Member]:
    """The members by folder, as the root's pyproject.toml has them; without a pyproject.toml it is none."""
    patterns = _read(checkout)["tool"]["uv"]["workspace"]["members"]
    folders = sorted(folder for pattern in patterns for folder in checkout.glob(pattern))
    return [_member(folder, checkout) for folder in folders if (folder / "pyproject.toml").exists()]


def packages_of_tests(checkout: Path = CHECKOUT) -> Sequence[str]:
    """The folders and modules of tests, as dotted names below the checkout: services.order.tests.

    Named from the checkout, equal file names in the tests of two parts are two modules.
    """
    below = sorted((checkout / "tests").iterdir())
    own = [folder for folder in below if (folder / "pyproject.toml").exists()]
    shared = [path for path in below if path not in own and not path.name.startswith(("_", "."))]
    folders = [checkout / member.folder / "tests" for member in members(checkout)]
    found = [path for path in (*folders, *shared) if path.suffix == ".py" or any(path.glob("**/*.py"))]
    return [".".join(path.relative_to(checkout).with_suffix("").parts) for path in found]


def _member(folder: Path, checkout: Path) -> Member:
    declared = _read(folder)
    packages = declared["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return Member(
        name=declared["project"]["name"],
        folder=PurePosixPath(folder.relative_to(checkout)),
        packages=tuple(PurePosixPath(package) for package in packages),
    )


def _read(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())
