"""`stoa migrate [SERVICE]`: bring the schemas of databases up to date before what needs them starts.

A service does the same when it starts. In a cluster a Job does it first, with the Secret and the
configuration of the service, so that a migration that fails leaves the version that runs alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from rich.console import Console

from stoa_contracts.declarations import Store
from stoa_ops import local
from stoa_services import SERVICES


def command(services: Sequence[str], console: Console) -> int:
    """Migrate the databases of these services, or of all; 2 if one has none, 1 if a migration failed."""
    having = [name for name, service in SERVICES.items() if Store.POSTGRES in service.stores]
    if without := [name for name in services if name not in having]:
        console.print(f"{', '.join(without)}: no database to migrate. These have one: {', '.join(having)}")
        return 2
    for name in services or having:
        migrating = [sys.executable, "-m", "stoa_chassis.migrations", name]
        if code := subprocess.run(migrating, env=local.environment(name), check=False).returncode:
            console.print(f"[red]{name} was not migrated[/] (exit code {code}).")
            return 1
        console.print(f"{name} is up to date")
    return 0
