"""Nothing that a client sends makes a 5xx: requests made from the OpenAPI document, good and bad."""

import asyncio
import sys
from pathlib import Path

import pytest

from stoa_contracts.descriptors import OPENAPI
from tests.e2e.shop import Customer, Shop


async def fuzz(client: Customer) -> tuple[int, str]:
    """Send generated requests as somebody; return the exit code and what was printed."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        "run",
        OPENAPI,
        *("--url", str(client.http.base_url)),
        *("--header", f"Authorization: Bearer {client.access_token}"),
        *("--checks", "not_a_server_error", "--phases", "coverage,fuzzing"),
        # It is to go on as who it is.
        *("--exclude-operation-id", "setUserRoles", "--exclude-operation-id", "eraseUser"),
        *("--max-examples", "8", "--seed", "1", "--generation-database", "none", "--no-color"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("who", ["staff", "a shopper"])
async def test_nothing_a_client_sends_makes_a_server_error(shop: Shop, who: str) -> None:
    code, output = await fuzz(shop.staff if who == "staff" else await shop.shopper())
    assert code == 0, output
    assert " passed" in output
