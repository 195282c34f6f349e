"""`stoa lock`: what the members ask for, resolved into requirements.lock.

uv's own lock file is not committed: it names the registry that it was made with, which is each user's choice.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stoa_stack.instance import CHECKOUT

_EXPORT = (
    "export", "--frozen", "--all-groups", "--no-emit-workspace", "--no-annotate", "--no-header",
    "--format", "requirements-txt", "--output-file", "requirements.lock",
)  # fmt: skip


def lock(*, upgrade: bool) -> int:
    """Resolve, keeping the versions that are locked unless told to upgrade; returns the exit code."""
    uv = Path(sys.executable).with_name("uv")  # placed there by stack/bootstrap
    for arguments in (("lock", *(["--upgrade"] if upgrade else [])), _EXPORT):
        done = subprocess.run([str(uv), *arguments, "--quiet"], cwd=CHECKOUT, check=False)
        if done.returncode != 0:
            return done.returncode
    return 0
