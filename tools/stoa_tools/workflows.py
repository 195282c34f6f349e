"""`stoa workflows`: what can be known of CI and of Argo CD's objects without either of them.

Workflows go through actionlint. Argo CD's objects are held against the schemas of its custom resources; and
what its ApplicationSets let an environment run is rendered, as if the next release were promoted.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from rich.console import Console

from stoa_stack.instance import CHECKOUT
from stoa_tools import programs
from stoa_tools.charts import helm, schemas
from stoa_tools.charts.policy import name, pods
from stoa_tools.charts.releases import packed
from stoa_tools.promote import NEEDED, Release

_GITOPS = CHECKOUT / "gitops"
_APPLICATION_SETS = "environments/*/applicationset.yaml"
_OBJECTS = ("*.yaml", "argocd/*.yaml", _APPLICATION_SETS)


def workflows(console: Console) -> int:
    """Check them; returns the exit code."""
    try:
        problems = [*_of_workflows(), *_of_objects(), *_of_environments(console)]
    except (programs.BuildFailed, helm.HelmFailed) as error:
        console.print(error, markup=False, soft_wrap=True)
        return 1
    for problem in problems:
        console.print(problem, markup=False, soft_wrap=True)
    console.print("[red]failed[/]" if problems else "[green]all passed[/]")
    return 1 if problems else 0


def _of_workflows() -> Iterator[str]:
    # No shellcheck or pyflakes, which are there on some machines and not on others.
    alone = ("-no-color", "-shellcheck=", "-pyflakes=")
    done = subprocess.run(
        [programs.program("actionlint"), *alone], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        yield (done.stdout + done.stderr).strip()


def _of_objects() -> Iterator[str]:
    files = (file for glob in _OBJECTS for file in sorted(_GITOPS.glob(glob)))
    things = [thing for file in files for thing in yaml.safe_load_all(file.read_text())]
    known = schemas.Schemas.published()
    yield from (problem for thing in things for problem in known.violations(thing))


def _of_environments(console: Console) -> Iterator[str]:
    """What Argo CD would render of a release.

    Every image of ours must be the one that was signed, and no object may be in two Applications.
    """
    release = Release("ghcr.io/example/stoa", "0" * 40, dict.fromkeys(NEEDED, f"sha256:{'0' * 64}"))
    with packed() as checkout:
        for file in sorted(_GITOPS.glob(_APPLICATION_SETS)):
            environment, owners = file.parent.name, dict[tuple[str, str, str], str]()
            for part in _parts(yaml.safe_load(file.read_text())):
                files = [checkout / part[key].lstrip("/") for key in ("generated", "settings")]
                values = release.as_values() if part["part"] == "shop" else {}
                things = helm.render(
                    part["release"], checkout / part["chart"], files, part["namespace"], values
                )
                console.print(f"{environment}: {part['part']}: {len(things)} objects", highlight=False)
                for thing in things:
                    about = thing["metadata"]
                    key = (thing["kind"], about.get("namespace", part["namespace"]), about["name"])
                    if owners.setdefault(key, part["part"]) != part["part"]:
                        yield f"{environment}: {'/'.join(key)} is in two Applications"
                    for image in _images(thing) if values else ():
                        if image not in release.images:
                            yield f"{environment}: {name(thing)} runs {image}, which no release names"


def _parts(application_set: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    """The Applications that an ApplicationSet makes."""
    generators = application_set["spec"]["generators"][0]["matrix"]["generators"]
    parts: Sequence[Mapping[str, str]] = generators[1]["list"]["elements"]
    return parts


def _images(thing: Mapping[str, Any]) -> Iterator[str]:
    for pod in pods(thing):
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield container["image"]
