"""The `stoa` command, as an operator types it."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any


async def stoa(*words: str) -> tuple[int, str]:
    """Run a command on the instance under test; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("stoa"),
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},  # a crash says where
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def ask(*words: str) -> Any:
    """Run a command that must succeed, with --json, and return what it answers."""
    code, output = await stoa(*words, "--json")
    assert code == 0, output
    return json.loads(output)
