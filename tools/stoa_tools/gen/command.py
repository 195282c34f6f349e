"""What `stoa gen` does, and how it says it."""

from rich.console import Console

from stoa_tools.gen import changes, run
from stoa_tools.gen.errors import GenerationFailed


def gen(console: Console, *, check: bool, compatible: bool) -> int:
    """Regenerate gen/, or check it, or check the contracts themselves; returns the exit code."""
    try:
        if compatible:
            console.print(changes.check())
            return 0
        differences = run(check=check)
    except GenerationFailed as failure:
        console.print(failure, markup=False)
        return 1
    for difference in differences:
        console.print(difference, markup=False)
    if check and differences:
        console.print("gen/ is stale: run `make gen` and commit what it writes")
        return 1
    return 0
