"""`stoa test-cluster`: the stages one after the other, each with its figures in a report."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stoa_cluster import report
from stoa_cluster.install import everything
from stoa_cluster.installation import STATE, Installation, ingress_url
from stoa_cluster.kubernetes import Cluster, CommandFailed, run
from stoa_cluster.proof import STAGES
from stoa_cluster.stages import Figures, NotProven, Skipped, Stage
from stoa_stack.cluster import Namespaces
from stoa_stack.cluster_secrets import KubectlFailed
from stoa_stack.instance import CHECKOUT

_PROGRAMS = ("kubectl", "helm")
_ANSWERS_WITHIN = 10.0  # seconds


def show(console: Console) -> int:
    """List the stages."""
    table = Table("stage", "what it proves", box=None, pad_edge=False)
    for stage in STAGES:
        table.add_row(stage.name, stage.what)
    console.print(table)
    return 0


def command(
    console: Console, names: Sequence[str], *, load: str, registry: str, tag: str, report_file: Path | None
) -> int:
    """Run the stages that are named, or all; 0 if all that could be run have proven what they should.

    Without a cluster none can be run, which is said and no failure. 2 if there is no such stage.
    """
    known = {stage.name: stage for stage in STAGES}
    if unknown := set(names) - known.keys():
        console.print(f"There is no stage {', '.join(sorted(unknown))}. Stages: {', '.join(known)}")
        return 2
    if lacking := _lacking():
        console.print(f"[yellow]skipped:[/] there is no cluster to prove anything on: {lacking}")
        return 0
    chosen = [stage for stage in STAGES if not names or stage.name in names]
    return asyncio.run(_run(console, chosen, load, registry, tag, report_file or STATE / "report.json"))


def _lacking() -> str:
    """What keeps us from a cluster; empty if nothing does."""
    if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
        return f"{' and '.join(missing)} not found on PATH"
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG is not set"
    if not all(Path(each).exists() for each in os.environ["KUBECONFIG"].split(os.pathsep)):
        return f"KUBECONFIG names {os.environ['KUBECONFIG']}, which is not there"
    return ""


async def _run(
    console: Console, stages: Sequence[Stage], load: str, registry: str, tag: str, path: Path
) -> int:
    try:
        shop = Installation(console, Namespaces(), await ingress_url(), registry, tag, load)
        cluster = await _about()
        if stages[0].run is not everything:
            await shop.sign_in_as_operator()
    except (CommandFailed, KubectlFailed, LookupError) as error:
        console.print(Text(f"The cluster does not answer as it should: {error}", style="red"), soft_wrap=True)
        return 1
    found = report.read(path)
    found["cluster"] = cluster
    for stage in stages:
        found["stages"][stage.name] = await _one(console, shop, stage)
        found["stages"] = {
            each.name: found["stages"][each.name] for each in STAGES if each.name in found["stages"]
        }
        report.write(path, found)
    console.print(f"The report: {path} and {path.with_suffix('.md').name}", soft_wrap=True)
    failed = [stage.name for stage in stages if found["stages"][stage.name]["verdict"] == "failed"]
    if failed:
        console.print(f"[red]not proven:[/] {', '.join(failed)}")
    return 1 if failed else 0


async def _one(console: Console, shop: Installation, stage: Stage) -> dict[str, Any]:
    console.rule(stage.name, align="left")
    console.print(Text(stage.what))
    figures: Figures = {}
    began = time.monotonic()
    verdict, why = "proven", ""
    try:
        await stage.run(shop, figures)
    except Skipped as skipped:
        verdict, why = "skipped", str(skipped)
    except NotProven as error:
        verdict, why = "failed", str(error)
    except Exception as error:  # whatever breaks a stage, the next ones have their turn
        verdict, why = "failed", f"{type(error).__name__}: {error}"
        console.print(Text(traceback.format_exc()), soft_wrap=True)
    seconds = time.monotonic() - began
    for name, value in figures.items():
        console.print(Text(f"  {name}: {value}"), soft_wrap=True)
    colour = {"proven": "green", "skipped": "yellow", "failed": "red"}[verdict]
    console.print(Text(f"{stage.name}: {verdict} in {seconds:.1f} s {why}", style=colour), soft_wrap=True)
    return {
        "what": stage.what,
        "verdict": verdict,
        "why": why,
        "seconds": round(seconds, 1),
        "at": time.strftime("%Y-%m-%d %H:%M"),
        "figures": figures,
    }


async def _about() -> dict[str, Any]:
    """What the cluster is, for the report. Raises CommandFailed."""
    nodes = await Cluster("default").list("nodes")
    commit = await run("git", "-C", str(CHECKOUT), "rev-parse", "--short", "HEAD")
    istiod = await Cluster("istio-system").list("pods", "--selector", "app=istiod")
    return {
        "Kubernetes": nodes[0]["status"]["nodeInfo"]["kubeletVersion"],
        "Istio": istiod[0]["spec"]["containers"][0]["image"].rpartition(":")[2] if istiod else "none",
        "nodes": len(nodes),
        "cores of a node": nodes[0]["status"]["capacity"]["cpu"],
        "machine": platform.machine(),
        "commit": commit.strip(),
    }
