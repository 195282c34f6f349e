"""`python -m stoa_stack.demo_catalogue`: load the catalogue into an instance, once."""

from __future__ import annotations

import asyncio
import sys

import httpx

from stoa_stack.demo_catalogue import load
from stoa_stack.files import write_atomically
from stoa_stack.instance import Instance
from stoa_stack.rest import ApiError
from stoa_stack.shopping import access


def main() -> int:
    """Load what is missing, unless an earlier load was complete; 1 if the shop does not take it."""
    at = Instance.current()
    marker = at.state / "demo-catalogue.loaded"
    if marker.exists():
        return 0
    known = access(at)
    staff, customer = known["staff"], known["demo_customer"]
    try:
        summary = asyncio.run(
            load(
                known["edge_url"],
                staff["email"],
                staff["password"],
                customer["email"],
                customer["password"],
                at.currency,
            )
        )
    except (ApiError, httpx.TransportError) as error:
        sys.stderr.write(f"the demo catalogue can't be loaded: {error}\n")
        return 1
    write_atomically(marker, f"{summary}\n")
    sys.stdout.write(f"{summary}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
