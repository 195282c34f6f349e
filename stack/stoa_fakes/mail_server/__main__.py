"""Runs the mail server."""

import asyncio

import uvicorn

from stoa_fakes.mail_server.mailbox import Mailbox
from stoa_fakes.mail_server.pages import create_app
from stoa_fakes.mail_server.settings import MailServerSettings
from stoa_fakes.mail_server.smtp import Inbound, protocol


async def _serve(settings: MailServerSettings, mailbox: Mailbox) -> None:
    inbound = Inbound(mailbox)
    pages = uvicorn.Server(
        uvicorn.Config(
            create_app(mailbox, inbound),
            host=settings.host,
            port=settings.page_port,
            access_log=False,
            log_level="warning",
        )
    )
    loop = asyncio.get_running_loop()
    smtp = await loop.create_server(lambda: protocol(inbound), settings.host, settings.smtp_port)
    try:
        await pages.serve()  # until it is told to stop
    finally:
        smtp.close()


def main() -> None:
    """Serve until stopped."""
    settings = MailServerSettings()  # type: ignore[call-arg]  # they come from the environment
    settings.state.parent.mkdir(parents=True, exist_ok=True)
    with Mailbox.open(settings.state) as mailbox:
        asyncio.run(_serve(settings, mailbox))


if __name__ == "__main__":
    main()
