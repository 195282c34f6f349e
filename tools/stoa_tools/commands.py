"""What developers type: `stoa gen`, `lint`, `test`, `charts`, `images`, `model`, `mutants`, `infra` …"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stoa_contracts.declarations import Store
from stoa_stack.terminal import console

app = typer.Typer()


def add_to(stoa: typer.Typer) -> None:
    """Add these commands to the command line."""
    stoa.add_typer(app)


@app.command()
def gen(
    check: Annotated[bool, typer.Option("--check", help="only say what is stale")] = False,
    compatible: Annotated[
        bool, typer.Option("--compatible", help="check the contracts' style and compatibility instead")
    ] = False,
) -> None:
    """Regenerate gen/ from proto/, events/ and services/*/service.toml."""
    from stoa_tools.gen import command

    raise typer.Exit(command.gen(console(), check=check, compatible=compatible))


@app.command()
def lock(
    upgrade: Annotated[bool, typer.Option("--upgrade", help="take the newest versions")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="only prove that it is what the parts ask for, as wheels everywhere"),
    ] = False,
) -> None:
    """Resolve the Python packages into requirements.lock."""
    from stoa_tools import lock

    raise typer.Exit(lock.check(console()) if check else lock.lock(upgrade=upgrade))


@app.command()
def lint(
    steps: Annotated[
        list[str] | None, typer.Argument(help="only these: style, format, types, imports …")
    ] = None,
) -> None:
    """Check style, types, imports, the lock and the contracts."""
    from stoa_tools import quality

    quality.lint(console(), steps or ())


@app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_tests(
    context: typer.Context,
    down: Annotated[bool, typer.Option("--down", help="stop the stack that is kept for tests")] = False,
) -> None:
    """Run every check and every test; with pytest's arguments (a path, -k …) those, on a kept stack."""
    from stoa_tools import on_stack, quality

    if down:
        on_stack.drop(console())
    elif context.args:
        quality.some_tests(console(), context.args)
    else:
        quality.test(console())


@app.command()
def charts(
    checks: Annotated[list[str] | None, typer.Argument(help="only these: lint, units, rendered")] = None,
) -> None:
    """Check the charts: Helm's lint, their unit tests, and what each environment renders."""
    from stoa_tools.charts import command

    raise typer.Exit(command.charts(console(), checks or ()))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="what it keeps: one English noun in small letters")],
    store: Annotated[Store, typer.Option(help="what keeps its data")] = Store.POSTGRES,
) -> None:
    """Write a new service: contract, event, code and tests, which run as they are."""
    from stoa_tools.new import command

    raise typer.Exit(command.new(name, store, console()))


@app.command()
def model(
    states: Annotated[int, typer.Option(min=1, help="explore each scenario up to so many")] = 400_000,
) -> None:
    """Explore the states of the order saga, deeper than the tests do."""
    from stoa_tools import quality

    quality.model(console(), states)


@app.command()
def mutants(
    count: Annotated[int, typer.Option(min=1, help="draw so many")] = 700,
    seed: Annotated[int, typer.Option(help="the same seed draws the same, while the code is the same")] = 1,
    module: Annotated[
        list[str] | None, typer.Option(help="only of these: a name or a pattern (stoa_order.*)")
    ] = None,
    least: Annotated[float, typer.Option(help="fail if less were killed, in per cent")] = 92,
    jobs: Annotated[int, typer.Option(min=1, help="so many at once; 0.5 GB each")] = 2,
) -> None:
    """Change models, money and what guards calls, a mistake at a time: do tests without servers notice?"""
    from stoa_tools.mutants import command

    command.mutants(console(), count=count, seed=seed, wanted=module or (), least=least, jobs=jobs)


@app.command()
def infra(
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="of the shop: size=medium, domain=shop.example.com …")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="only write the tables of docs/aws.md")
    ] = False,
    lock: Annotated[
        bool, typer.Option("--lock", help="only take the newest versions of its packages")
    ] = False,
) -> None:
    """Make and check the templates for AWS, without AWS: types, assertions, cdk-nag, cfn-lint."""
    from stoa_tools import infra

    if lock:
        raise typer.Exit(infra.lock())
    if estimate:
        infra.estimate(console())
    else:
        pairs = (setting.partition("=") for setting in settings or ())
        infra.check(console(), {name: value for name, _, value in pairs})


@app.command()
def images(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="all if none")] = None,
    registry: Annotated[str, typer.Option(help="what their names begin with")] = "localhost/stoa",
    tag: Annotated[str, typer.Option(help="what their names end with")] = "dev",
    base: Annotated[str, typer.Option(help="the base image, by digest where it counts")] = "",
    source: Annotated[str, typer.Option(help="the repository's address, for a label")] = "",
    builder: Annotated[str, typer.Option(help="docker, podman or buildah; else the first of them")] = "",
    sbom: Annotated[Path | None, typer.Option(help="a folder for their bills of materials")] = None,
    push: Annotated[
        Path | None, typer.Option(help="upload them, and write there what they are by digest, one a line")
    ] = None,
) -> None:
    """Build the container images of the services, the edge and the operators' tools.

    STOA_IMAGE_OPTIONS has more options for the builder, as the machine at hand needs them.
    """
    from stoa_tools.images.command import Wanted, command

    wanted = Wanted(names or [], registry, tag, base, source, builder, sbom, push)
    raise typer.Exit(command(wanted, console()))


@app.command("promote")
def promote_release(
    environment: Annotated[str, typer.Argument(help="where it is to run: a folder of gitops/environments")],
    source: Annotated[str | None, typer.Option("--from", help="what this environment runs")] = None,
    images: Annotated[Path | None, typer.Option(help="or what `stoa images --push` has written")] = None,
    tag: Annotated[str, typer.Option(help="with --images: the commit that they were built from")] = "",
    show: Annotated[bool, typer.Option("--print", help="only print the images that run there")] = False,
) -> None:
    """Write what an environment runs: the charts and images of one commit."""
    from stoa_tools import promote
    from stoa_tools.promote import NotARelease

    if not show and (source is None) == (images is None):
        raise typer.BadParameter("name either what it comes --from or the --images")
    try:
        if show:
            typer.echo("\n".join(promote.running(environment).images))
            return
        release = promote.running(source) if source else promote.pushed(images or Path(), tag)
        promote.write(release, environment)
    except NotARelease as error:
        console().print(f"[red]Not promoted:[/] {error}", soft_wrap=True)
        raise typer.Exit(1) from None
    console().print(f"{environment} is to run {release.commit[:12]} ({len(release.images)} images)")


@app.command()
def workflows() -> None:
    """Check the workflows of CI, and what Argo CD is told and would render."""
    from stoa_tools import workflows as checks

    raise typer.Exit(checks.workflows(console()))
