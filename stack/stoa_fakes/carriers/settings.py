"""Settings of the mock carriers."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CarrierSettings(BaseSettings):
    """All from the environment: `CARRIERS_PORT` sets `port`, and so on."""

    model_config = SettingsConfigDict(env_prefix="CARRIERS_", hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: int
    # The file of the ledger; made, with its folder, if it is not there.
    state: Path
    # For the ledger and the faults, which no carrier has.
    api_key: str = Field(repr=False, min_length=1)
    fedex_client_secret: str = Field(repr=False, min_length=1)
    fedex_webhook_secret: str = Field(repr=False, min_length=1)
    ups_access_key: str = Field(repr=False, min_length=1)
    ups_webhook_secret: str = Field(repr=False, min_length=1)
    dhl_api_key: str = Field(repr=False, min_length=1)
    dhl_webhook_secret: str = Field(repr=False, min_length=1)
    # Where notices go, with /fedex, /ups or /dhl after it; empty sends none.
    webhook_url: str = ""
    # When a parcel is scanned first and when it is delivered, after it was confirmed.
    first_scan_seconds: float = Field(default=60, ge=0)
    delivery_seconds: float = Field(default=180, ge=0)
    # How long a token of FedEx holds.
    token_seconds: float = Field(default=3600, gt=0)
    # Mean time that an answer takes; each takes between half and one and a half of it.
    latency_ms: float = Field(default=20, ge=0)
