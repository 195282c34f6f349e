"""`stoa images`: build what runs in a cluster, look at what was built, and write down what is in it."""

from __future__ import annotations

import os
import subprocess
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.markup import escape

from stoa_stack.instance import CHECKOUT
from stoa_tools.images import archive, sbom
from stoa_tools.images.builders import Builder, BuilderFailed
from stoa_tools.images.contents import Image, NotLocked, contents, images
from stoa_tools.images.context import RECIPES, StagingFailed, Wheels, stage


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command was asked for: which images, as what, from which base, and where the rest goes."""

    names: Sequence[str]
    registry: str
    tag: str
    base: str = ""
    source: str = ""
    builder: str = ""
    sboms: Path | None = None
    pushed: Path | None = None

    def tagged(self, image: Image) -> str:
        """The whole name of an image."""
        return f"{self.registry}/{image.name}:{self.tag}"


def command(wanted: Wanted, console: Console) -> int:
    """Build the images; 1 if one could not be built or is not as it has to be, 2 if one is not known."""
    known = {image.name: image for image in images()}
    if unknown := [name for name in wanted.names if name not in known]:
        console.print(f"There is no image {', '.join(unknown)}. Images: {', '.join(known)}")
        return 2
    chosen = [known[name] for name in wanted.names] or list(known.values())
    labels, pushed, good = _labels(wanted), list[str](), True
    try:
        builder = Builder.find(wanted.builder)
        with TemporaryDirectory(prefix="stoa-images-") as folder:
            wheels = Wheels(Path(folder, "wheels"))
            for image in chosen:
                with TemporaryDirectory(dir=folder) as work:
                    right = _build(image, wanted, builder, labels, wheels, Path(work), console)
                good &= right
                if right and wanted.pushed is not None and not image.servers:  # which are for tests
                    pushed.append(f"{wanted.registry}/{image.name}@{builder.push(wanted.tagged(image))}")
    except (BuilderFailed, NotLocked, StagingFailed) as error:
        console.print(f"[red]{escape(str(error))}[/]", soft_wrap=True)
        return 1
    if wanted.pushed is not None:
        wanted.pushed.parent.mkdir(parents=True, exist_ok=True)
        wanted.pushed.write_text("".join(f"{image}\n" for image in pushed))
    return 0 if good else 1


def _build(
    image: Image,
    wanted: Wanted,
    builder: Builder,
    labels: Mapping[str, str],
    wheels: Wheels,
    work: Path,
    console: Console,
) -> bool:
    """Build an image and look at it; returns whether it is as it has to be."""
    began, tag, context, saved = time.monotonic(), wanted.tagged(image), work / "context", work / "image.tar"
    context.mkdir()
    stage(image, contents(image), wheels, context)
    arguments = {"SERVICE": image.name, **labels}
    builder.build(context, RECIPES / f"{image.recipe}.Containerfile", tag, arguments)
    builder.save(tag, saved)
    built = archive.read(saved)
    named = len(list(sbom.components(built)))
    if wanted.sboms is not None:
        sbom.write(built, tag, wanted.sboms / f"{image.name}.cdx.json")
    seconds = time.monotonic() - began
    console.print(f"{tag}: {built.mb:.0f} MB, {named} packages, {seconds:.0f} s", highlight=False)
    wrong = list(archive.problems(built, image.limit_mb, bare=not image.servers))
    for problem in wrong:
        console.print(f"  [red]{escape(problem)}[/]")
    return not wrong


def _labels(wanted: Wanted) -> Mapping[str, str]:
    """The arguments of every build: what images say of themselves, and the base unless it is the recipe's."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    labels = {
        "SOURCE": wanted.source,
        "REVISION": _revision(),
        "VERSION": project["version"],
        "LICENSES": project.get("license", "NOASSERTION"),
    }
    return labels | ({"BASE": wanted.base} if wanted.base else {})


def _revision() -> str:
    """The commit that the checkout is at, marked if something in it is not committed."""
    described = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
        cwd=CHECKOUT, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip
    return described.stdout.strip() or "unknown"
