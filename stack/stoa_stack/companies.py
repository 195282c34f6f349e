"""The companies outside that services call, and what stands in for each of them here.

A service's declaration names the companies that it calls. For each there is a fake, which knows no more of
the shop than the real one would, and the secrets that the two have in common.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stoa_stack.credentials import Secrets
from stoa_stack.instance import Instance
from stoa_stack.part import Part

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True)
class Company:
    """A company outside.

    `part` is the name of its fake in the stack and in the table of ports, `package` what is run. A service
    finds it by the settings `url_settings`, each with what comes after the address, and has the secrets
    `shared` in common with it; by `api_key` the company knows who calls, if it wants to know. `environment`
    configures the fake. A company that is not spoken to by HTTP has a `scheme`, and its fake shows people and
    operators what it knows at `page`, a name in the table of ports.
    """

    name: str
    part: str
    package: str
    url_settings: Mapping[str, str]
    environment: Callable[[Instance], Mapping[str, str]]
    api_key: str = ""
    shared: tuple[str, ...] = ()
    scheme: str = "http"
    page: str = ""

    def url(self, at: Instance) -> str:
        """Where services speak to the company."""
        return f"{self.scheme}://{at.address(self.part)}"

    def page_url(self, at: Instance) -> str:
        """Where its fake shows what it knows."""
        return f"http://{at.address(self.page or self.part)}"

    def secret(self, at: Instance, name: str) -> str:
        """A secret that it shares with those who call it; made at its first use."""
        return Secrets(at.folder("secrets", "stack")).get(name)

    def operator_client(self, at: Instance, timeout: float) -> httpx.AsyncClient:
        """A client of its fake, for what only an operator of it can do; `timeout` is in seconds."""
        import httpx

        headers = {"authorization": f"Bearer {self.secret(at, self.api_key)}"} if self.api_key else None
        return httpx.AsyncClient(
            base_url=self.page_url(at), headers=headers, timeout=timeout, trust_env=False
        )

    def fake(self, at: Instance) -> Part:
        """What stands in for it, as a part of the stack."""

        async def ready() -> None:
            import httpx

            async with httpx.AsyncClient(timeout=3) as client:
                (await client.get(f"{self.page_url(at)}/healthz")).raise_for_status()

        return Part(
            name=self.part,
            command=[sys.executable, "-m", self.package],
            ready=ready,
            env={"PYTHONUNBUFFERED": "1", **self.environment(at)},
            packages=[self.package.partition(".")[0]],
            ports=[at.port(name) for name in dict.fromkeys((self.part, self.page or self.part))],
            url=self.page_url(at),
            secrets=list(dict.fromkeys((*self.shared, *filter(None, (self.api_key,))))),
        )


def _payment_gateway_environment(at: Instance) -> dict[str, str]:
    given = {name: value for name, value in at.settings.items() if name.startswith("GATEWAY_")}
    return given | {
        "GATEWAY_HOST": at.listen_host,
        "GATEWAY_PORT": str(at.port("gateway")),
        "GATEWAY_STATE": str(at.folder("gateway") / "gateway.sqlite"),
        "GATEWAY_API_KEY": PAYMENT_GATEWAY.secret(at, "gateway_api_key"),
        "GATEWAY_WEBHOOK_SECRET": PAYMENT_GATEWAY.secret(at, "gateway_webhook_secret"),
        "GATEWAY_WEBHOOK_URL": f"{at.edge_url}/api/v1/payments/webhook",
    }


PAYMENT_GATEWAY = Company(
    name="payment-gateway",
    part="gateway",
    package="stoa_fakes.payment_gateway",
    url_settings={"gateway_url": ""},
    api_key="gateway_api_key",
    shared=("gateway_api_key", "gateway_webhook_secret"),
    environment=_payment_gateway_environment,
)


def _carriers_environment(at: Instance) -> dict[str, str]:
    given = {name: value for name, value in at.settings.items() if name.startswith("CARRIERS_")}
    secrets = {f"CARRIERS_{name.upper()}": CARRIERS.secret(at, name) for name in CARRIERS.shared}
    return given | {
        **secrets,
        "CARRIERS_HOST": at.listen_host,
        "CARRIERS_PORT": str(at.port("carriers")),
        "CARRIERS_STATE": str(at.folder("carriers") / "carriers.sqlite"),
        "CARRIERS_API_KEY": CARRIERS.secret(at, CARRIERS.api_key),
        "CARRIERS_WEBHOOK_URL": f"{at.edge_url}/api/v1/shipping/webhooks",
    }


CARRIERS = Company(
    name="carriers",
    part="carriers",
    package="stoa_fakes.carriers",
    url_settings={"fedex_url": "/fedex", "ups_url": "/ups", "dhl_url": "/dhl"},
    api_key="carriers_api_key",
    shared=(
        "fedex_client_secret",
        "fedex_webhook_secret",
        "ups_access_key",
        "ups_webhook_secret",
        "dhl_api_key",
        "dhl_webhook_secret",
    ),
    environment=_carriers_environment,
)

MAIL_SERVER = Company(
    name="mail-server",
    part="mail",
    package="stoa_fakes.mail_server",
    url_settings={"smtp_url": ""},
    scheme="smtp",
    page="mail-page",
    environment=lambda at: {
        "MAIL_HOST": at.listen_host,
        "MAIL_SMTP_PORT": str(at.port("mail")),
        "MAIL_PAGE_PORT": str(at.port("mail-page")),
        "MAIL_STATE": str(at.folder("mail") / "mail.sqlite"),
    },
)

COMPANIES: Mapping[str, Company] = {
    company.name: company for company in (PAYMENT_GATEWAY, CARRIERS, MAIL_SERVER)
}
