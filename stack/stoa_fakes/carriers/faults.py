"""What goes wrong with a carrier on purpose."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Faults(BaseModel):
    """What goes wrong with one carrier."""

    model_config = ConfigDict(extra="forbid")

    latency_ms: Annotated[float | None, Field(ge=0)] = None
    """Takes the place of the usual latency. The work is done first: for a caller that gives up it is done."""

    error_rate: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of requests that are answered 503 without being carried out; 1 is an outage."""

    lost_answer_rate: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of requests that are carried out and then answered 503."""

    duplicate_webhooks: Annotated[int, Field(ge=0, le=10)] = 0
    """How many times more each notice is sent."""

    delay_webhooks_ms: Annotated[float, Field(ge=0)] = 0
    """How long notices wait before they are sent."""


class AllFaults(BaseModel):
    """What goes wrong with each. POST /admin/faults sets all of them: what is not named is switched off."""

    model_config = ConfigDict(extra="forbid")

    fedex: Faults = Faults()
    ups: Faults = Faults()
    dhl: Faults = Faults()

    def of(self, carrier: str) -> Faults:
        """Return those of one carrier."""
        faults: Faults = getattr(self, carrier)
        return faults
