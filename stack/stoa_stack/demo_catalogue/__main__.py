"""`python -m stoa_stack.demo_catalogue`: load the catalogue into an instance, once."""

from __future__ import annotations

import asyncio
import json
import sys

import httpx

from stoa_stack.demo_catalogue import load
from stoa_stack.edge_client import Refused
from stoa_stack.files import write_atomically
from stoa_stack.instance import Instance


def main() -> int:
    """Load what is missing, unless an earlier load was complete; 1 if the shop does not take it."""
    at = Instance.current()
    marker = at.state / "demo-catalogue.loaded"
    if marker.exists():
        return 0
    access = json.loads((at.state / "access.json").read_text())
    staff, customer = access["staff"], access["demo_customer"]
    try:
        summary = asyncio.run(
            load(
                access["edge_url"],
                staff["email"],
                staff["password"],
                customer["email"],
                customer["password"],
            )
        )
    except (Refused, httpx.TransportError) as error:
        sys.stderr.write(f"the demo catalogue can't be loaded: {error}\n")
        return 1
    write_atomically(marker, f"{summary}\n")
    sys.stdout.write(f"{summary}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
