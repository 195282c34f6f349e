"""What goes wrong with a carrier on purpose."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stoa_fakes import network


class Faults(network.Faults):
    """What goes wrong with one carrier."""

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
