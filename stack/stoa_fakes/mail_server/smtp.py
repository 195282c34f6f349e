"""The SMTP side: takes mail for anybody, and can be told to misbehave."""

import asyncio
import random
import sqlite3
from typing import Annotated

from aiosmtpd.smtp import SMTP, Envelope, Session
from pydantic import BaseModel, ConfigDict, Field

from stoa_fakes.mail_server.mailbox import Mailbox

_HOST = "mail.stoa.example"


class Faults(BaseModel):
    """What goes wrong on purpose. POST /admin/faults sets all of them: those not named are switched off."""

    model_config = ConfigDict(extra="forbid")

    latency_ms: Annotated[float, Field(ge=0)] = 0
    """How long a mail takes. It is kept first: whoever gives up has delivered it."""

    error_rate: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of mails that are answered 451 and not kept."""

    lost_answer_rate: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of mails that are kept, and of which the answer is lost with the connection."""


class Inbound:
    """What is done with a mail that arrives (aiosmtpd's handler)."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.faults = Faults()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a mail, and answer for it."""
        faults = self.faults
        if random.random() < faults.error_rate:
            return "451 4.3.0 try again later"
        content = envelope.content
        assert isinstance(content, bytes)
        try:
            self._mailbox.add(envelope.mail_from or "", envelope.rcpt_tos, content)
        except sqlite3.OperationalError:
            return "452 4.3.1 insufficient system storage"
        await asyncio.sleep(faults.latency_ms / 1000)
        if server.transport is not None and random.random() < faults.lost_answer_rate:
            server.transport.close()
        return "250 2.0.0 kept"


def protocol(inbound: Inbound) -> SMTP:
    """Return the protocol of one connection."""
    return SMTP(inbound, hostname=_HOST, ident="Stoa's mail server", enable_SMTPUTF8=True)
