"""The mock carriers, for whoever does not want to wait for a parcel: tests, and the tour through the shop."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx

from stoa_stack.companies import CARRIERS
from stoa_stack.instance import Instance


class Carriers:
    """What an operator of the mock carriers can do. An asynchronous context manager."""

    def __init__(self, at: Instance) -> None:
        self._client = CARRIERS.operator_client(at, timeout=10)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def advance(self, tracking_id: str, scans: int = 1) -> int:
        """Let so many of a parcel's next scans happen now; return how many there were left.

        There are none before the carrier is told that it may collect the parcel.
        """
        answer = await self._client.post("/admin/advance", json={"tracking_id": tracking_id, "scans": scans})
        if answer.status_code == httpx.codes.NOT_FOUND:
            return 0
        happened: int = answer.raise_for_status().json()["scans"]
        return happened
