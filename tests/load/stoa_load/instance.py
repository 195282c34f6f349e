"""The instance that is measured: the shop that runs, or one made for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from stoa_stack.instance import CHECKOUT, Instance
from stoa_stack.throwaway import throwaway
from stoa_stack.up import is_running

_STATE = CHECKOUT / ".stoa-bench"


@contextmanager
def measured_instance(console: Console) -> Iterator[Instance]:
    """Give the shop that runs, if it lets as many requests through as come; else one made for the block.

    Raises typer.Exit if none can be started.
    """
    at = Instance.current()
    if is_running(at) and not at.rate_limits:
        yield at
        return
    if is_running(at):
        console.print(
            f"The shop in {at.state} limits the rate of requests, so another is started to be measured. "
            "`STOA_RATE_LIMITS=off stoa up` starts one that can be."
        )
    with throwaway(console, _STATE, {"STOA_RATE_LIMITS": "off"}) as made:
        yield made
