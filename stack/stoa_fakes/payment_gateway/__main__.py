"""Runs the mock payment gateway."""

import uvicorn

from stoa_fakes.payment_gateway.api import create_app
from stoa_fakes.payment_gateway.settings import GatewaySettings


def main() -> None:
    """Serve until stopped."""
    settings = GatewaySettings()  # type: ignore[call-arg]  # the required ones come from the environment
    settings.state.parent.mkdir(parents=True, exist_ok=True)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="warning",
        # A charge of tok_timeout would keep it waiting; whoever asked has given up by then.
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
