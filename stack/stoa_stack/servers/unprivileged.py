"""Starting servers that refuse root, when root starts the stack."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_NOBODY = 65534
_SETPRIV = "setpriv"


@functools.cache
def prefix(program: Path) -> tuple[str, ...]:
    """The prefix under which such a program runs; none unless root starts the stack.

    In a user namespace of its own it believes to be nobody while its files stay root's. Where the system
    forbids that, it really runs as nobody, who then must be able to reach the state folder and the virtual
    environment. Raises RuntimeError if neither is possible.
    """
    if os.geteuid() != 0:
        return ()
    namespace = ("unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}")
    if sys.platform == "linux" and _works((*namespace, "true")):
        return namespace
    other = (_SETPRIV, f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
    if _works((*other, "test", "-x", str(program))):
        return other
    raise RuntimeError(
        f"{program.name} does not run as root, and neither a user namespace nor another user that can read "
        f"{program.parent} is to be had here: start the stack as an ordinary user"
    )


def give(program: Path, *paths: Path) -> None:
    """Let the user under whom the program runs write these files and folders, and all that is in them."""
    if prefix(program)[:1] != (_SETPRIV,):
        return
    for path in paths:
        for each in (path, *path.rglob("*")):
            os.chown(each, _NOBODY, _NOBODY, follow_symlinks=False)
        os.chmod(path.parent, 0o711)  # the other user may pass, and see nothing


def _works(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
