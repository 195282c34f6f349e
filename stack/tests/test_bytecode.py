"""What `stoa` starts keeps its compiled code, whatever the environment says of files beside the sources."""

import os
import subprocess
import sys
from pathlib import Path

_PARENT = """
import subprocess, sys
from stoa_stack import bytecode
bytecode.keep()
import first
subprocess.run([sys.executable, "-c", "import second"], check=True)
"""


def test_compiled_code_is_kept_by_the_process_and_those_that_it_starts_but_not_beside_the_sources(
    tmp_path: Path,
) -> None:
    sources, kept = tmp_path / "sources", tmp_path / "kept"
    sources.mkdir()
    for name in ("first", "second"):
        (sources / f"{name}.py").write_text("")
    environment = {
        **os.environ,
        "PYTHONPATH": str(sources),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPYCACHEPREFIX": str(kept),
    }
    subprocess.run([sys.executable, "-c", _PARENT], env=environment, check=True)
    found = {path.name.partition(".")[0] for path in kept.rglob("*.pyc")}
    assert {"first", "second"} <= found
    assert not (sources / "__pycache__").exists()
