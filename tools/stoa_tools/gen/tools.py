"""The command-line tools that generation and its checks use."""

import os
import subprocess
import sys
from pathlib import Path

from stoa_stack.instance import CHECKOUT
from stoa_tools.gen.errors import GenerationFailed


def buf(*arguments: str, root: Path = CHECKOUT) -> None:
    """Run buf in the repository, with this interpreter as the `python` of its plugins.

    Raises:
        GenerationFailed: buf refused; with what it said.
    """
    scripts = Path(sys.executable).parent
    path = os.pathsep.join([str(scripts), os.environ.get("PATH", "")])
    answer = subprocess.run(
        ["buf", *arguments], cwd=root, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    if answer.returncode != 0:
        raise GenerationFailed(f"buf {arguments[0]}:\n{(answer.stdout + answer.stderr).strip()}")


def git(*arguments: str, root: Path = CHECKOUT) -> bytes | None:
    """What git answers; None if it refuses: outside a clone, or for a revision that is not there."""
    # A hook's GIT_DIR would point to another repository than `root`.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    answer = subprocess.run(["git", *arguments], cwd=root, env=environment, capture_output=True)
    return answer.stdout if answer.returncode == 0 else None
