"""Runs the mock carriers."""

import uvicorn

from stoa_fakes.carriers.api import create_app
from stoa_fakes.carriers.settings import CarrierSettings


def main() -> None:
    """Serve until stopped."""
    settings = CarrierSettings()  # type: ignore[call-arg]  # the required ones come from the environment
    settings.state.parent.mkdir(parents=True, exist_ok=True)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
