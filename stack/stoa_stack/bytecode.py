"""Python's compiled code, kept in the virtual environment.

Half of what a Python process takes to start is compiling its libraries, if nothing compiled is kept: where
the environment forbids files beside the sources (PYTHONDONTWRITEBYTECODE), as images of containers do, or
where nobody may write there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def keep() -> None:
    """Keep what this process, and those that it starts, compile from now on; read what has been kept."""
    folder = os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(sys.prefix) / "bytecode"))
    os.environ["PYTHONDONTWRITEBYTECODE"] = ""
    sys.pycache_prefix, sys.dont_write_bytecode = folder, False
