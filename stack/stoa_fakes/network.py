"""The way to a company, which takes its time and fails as one far away does."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response


class Faults(BaseModel):
    """What goes wrong on the way to a company, and with what it tells by itself, on purpose."""

    model_config = ConfigDict(extra="forbid")

    latency_ms: Annotated[float | None, Field(ge=0)] = None
    """Takes the place of the usual latency. The work is done first: for a caller that gives up it is done."""

    error_rate: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of requests that are answered with an error without being carried out; 1 is an outage."""

    lost_answer_rate: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of requests that are carried out and then answered with the same error."""

    duplicate_webhooks: Annotated[int, Field(ge=0, le=10)] = 0
    """How many times more each notice is sent."""


async def far_away(
    answer: Callable[[], Awaitable[Response]],
    faults: Callable[[], Faults],
    usual_latency_ms: float,
    out_of_order: Callable[[], Response],
) -> Response:
    """Return an answer after a while, which is between half and one and a half of the usual latency.

    If something goes wrong return what `out_of_order` makes instead. `faults` are asked for anew, since they
    may change while a request is under way.
    """
    started, latency = time.monotonic(), faults().latency_ms
    if latency is None:
        latency = usual_latency_ms * random.uniform(0.5, 1.5)
    if random.random() < faults().error_rate:
        return out_of_order()
    try:
        answered = await answer()
    finally:
        await asyncio.sleep(max(0.0, latency / 1000 - (time.monotonic() - started)))
    return out_of_order() if random.random() < faults().lost_answer_rate else answered
