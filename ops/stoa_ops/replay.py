"""`stoa replay SERVICE`: rebuild what a service's reads come from, while the shop runs.

It writes, so it is the service's own program with the service's own settings. On this machine they are the
stack's; in a cluster they are those of the Job, which has the Secret, the configuration and the identity of
the service.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

from rich.console import Console

from stoa_ops import local
from stoa_services import SERVICES


def command(service: str, console: Console) -> int:
    """Run the service's replay with the service's environment; 2 if there is nothing to replay.

    A module `stoa_<service>.replay` makes a service replayable. The last line that it prints is a JSON
    object: how many aggregates it `replayed`, and the ids of those whose projections `differed` and were
    mended.
    """
    replayable = [
        name for name, each in SERVICES.items() if importlib.util.find_spec(f"{each.package}.replay")
    ]
    if service not in replayable:
        console.print(f"{service} has no projections to replay. These have: {', '.join(replayable)}")
        return 2
    done = subprocess.run(
        [sys.executable, "-m", f"{SERVICES[service].package}.replay"],
        env=local.environment(service),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        console.print(f"[red]The replay failed[/] (exit code {done.returncode}).")
        return done.returncode
    report = json.loads(done.stdout.splitlines()[-1])
    console.print(f"{report['replayed']} replayed, {len(report['differed'])} differed and were mended")
    for aggregate in report["differed"]:
        console.print(f"  {aggregate}")
    return 0
