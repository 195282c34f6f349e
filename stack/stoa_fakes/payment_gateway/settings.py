"""Settings of the mock payment gateway."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class GatewaySettings(BaseSettings):
    """All from the environment: `GATEWAY_PORT` sets `port`, and so on."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: int
    # The file of the ledger; made, with its folder, if it is not there.
    state: Path
    api_key: str = Field(repr=False, min_length=1)
    webhook_secret: str = Field(repr=False, min_length=1)
    # Where notices go; empty sends none.
    webhook_url: str = ""
    # How long after it was accepted a charge of tok_timeout is captured.
    timeout_answer_seconds: float = Field(default=45, ge=0)
    # How long an amount is held: what is not captured by then can't be any more.
    hold_seconds: float = Field(default=7 * 24 * 3600, gt=0)
    # Mean time that an answer takes; each takes between half and one and a half of it.
    latency_ms: float = Field(default=20, ge=0)
    # How long a notice waits before it is sent, so that it does not overtake the answer that says the same.
    webhook_delay_ms: float = Field(default=250, ge=0)
