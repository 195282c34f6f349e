"""Writes a new service: its contract, its event, its folder. All else follows from these.

The service keeps one kind of resource for each user, named like the service: it creates, reads and lists
them, and publishes an event for each new one. Its files are rendered from templates/, which have the names of
the service's files (with its name for NAME); what only a store has is in the folder of that store.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import jinja2
from rich.console import Console

from stoa_contracts.declarations import InvalidDeclaration, Store, read_all
from stoa_stack.instance import CHECKOUT

# As their settings are called, where it is not just a capital.
_STORES = {Store.OPENSEARCH: "OpenSearch"}
_TEMPLATES = Path(__file__).parent / "templates"
_SUFFIX = ".jinja"
_NAME = re.compile(r"[a-z]{2,16}\Z")
_PORTS = range(100, 200)
_BIN = Path(sys.executable).parent


def new(name: str, store: Store, console: Console, checkout: Path = CHECKOUT) -> int:
    """Write a service and generate what follows from it; returns the exit code."""
    if problem := _refusal(name, checkout):
        console.print(problem, soft_wrap=True)
        return 2
    try:
        files = render(name, store, _free_port(checkout))
    except InvalidDeclaration as error:
        console.print(str(error), soft_wrap=True)
        return 2
    for path, text in files.items():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text(text)
    tidy(checkout / "services" / name)
    steps = (
        (checkout / "stack" / "bootstrap",),
        (_BIN / "stoa", "gen"),
    )
    for step in steps:
        done = subprocess.run(step, cwd=checkout, check=False)
        if done.returncode:
            return done.returncode
    console.print(
        f"The {name} service: services/{name}, proto/stoa/{name}/v1/{name}.proto and"
        f" events/{name}.created.avsc.\nIts tests: stoa test services/{name}. In a running shop: stoa apply.",
        soft_wrap=True,
    )
    return 0


def render(name: str, store: Store, port: int) -> Mapping[Path, str]:
    """The files of a service, by their paths in a checkout."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    names = plural(name)
    values = {
        "name": name, "Name": name.capitalize(), "NAME": name.upper(),
        "names": names, "Names": names.capitalize(), "NAMES": names.upper(),
        "store": store.value, "Store": _STORES.get(store, store.value.capitalize()), "port": port,
    }  # fmt: skip
    return {
        path: environment.get_template(template).render(values)
        for template, path in _places(name, store).items()
    }


def tidy(folder: Path) -> None:
    """Break lines and order imports, which depend on the length of the name and on its first letter."""
    rules = ("--quiet", "--config", CHECKOUT / "pyproject.toml", folder)
    subprocess.run([_BIN / "ruff", "check", "--select", "I", "--fix", *rules], check=True)
    subprocess.run([_BIN / "ruff", "format", *rules], check=True)


def plural(noun: str) -> str:
    """The plural of an English noun, if it is a regular one."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "z", "ch", "sh")) else f"{noun}s"


def _places(name: str, store: Store) -> Mapping[str, Path]:
    """Where each template's file goes, by the template's path."""
    service = Path("services", name)
    goals = {
        "every/contract": Path("proto", "stoa", name, "v1"),
        "every/event": Path("events"),
        "every/service": service,
        "every/package": service / f"stoa_{name}",
        "every/tests": service / "tests",
        f"{store.value}/package": service / f"stoa_{name}",
        f"{store.value}/tests": service / "tests",
    }
    return {
        template.relative_to(_TEMPLATES).as_posix(): goal
        / template.relative_to(_TEMPLATES / folder).with_suffix("").as_posix().replace("NAME", name)
        for folder, goal in goals.items()
        for template in sorted((_TEMPLATES / folder).rglob(f"*{_SUFFIX}"))
    }


def _refusal(name: str, checkout: Path) -> str:
    """Why there can't be a service of that name, nothing if there can."""
    if not _NAME.match(name):
        return "A service's name is one English noun in small letters, such as coupon."
    taken = [
        path
        for path in (f"services/{name}/pyproject.toml", f"proto/stoa/{name}", f"events/{name}.created.avsc")
        if (checkout / path).exists()
    ]
    return f"{taken[0]} is there already." if taken else ""


def _free_port(checkout: Path) -> int:
    """The offset after the last that a service has: numbers of services that are gone are not used again."""
    return max((service.port for service in read_all(checkout)), default=_PORTS[0] - 1) + 1
