"""Mail by SMTP (RFC 5321), to whatever server takes it.

A server that took a mail and died before it said so gets it again. It has the same Message-ID then: mail
systems that know duplicates (Cyrus, Dovecot's `duplicate`, Gmail) show it once.
"""

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8, EmailPolicy
from email.utils import format_datetime
from typing import Self
from urllib.parse import urlsplit

import aiosmtplib

from stoa_notification.peers.sender import Sender, mailbox_and_domain
from stoa_notification.ports import Message, NotTaken, OutcomeUnknown, Refused

_IDLE = 4  # connections that are kept
_PERMANENT = range(500, 600)

# The library's EmailMessage would parse each of these lines, at half of what a notification costs. Nobody's
# holiday notice answers what is submitted automatically (RFC 3834).
_MAIL = """\
Date: {date}
Message-ID: {message_id}
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="{boundary}"

--{boundary}
Content-Type: text/plain; charset="utf-8"
Content-Transfer-Encoding: base64

{text}
--{boundary}
Content-Type: text/html; charset="utf-8"
Content-Transfer-Encoding: base64

{html}
--{boundary}--
"""


class Smtp:
    """A mail server."""

    name = "smtp"
    repeatable = True

    def __init__(self, url: str, username: str, password: str, sender: Sender, attempt: timedelta) -> None:
        """`url` is smtp://host:port, or smtps:// for TLS from the first byte.

        By smtp:// TLS is begun if the server offers it (STARTTLS).
        """
        self._url = urlsplit(url)
        self._username = username
        self._password = password
        self._sender = sender
        self._timeout = attempt.total_seconds()
        self._idle: list[aiosmtplib.SMTP] = []

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, username: str, password: str, sender: Sender, attempt: timedelta
    ) -> AsyncIterator[Self]:
        """Keep connections to a server; an attempt may take up to `attempt`."""
        server = cls(url, username, password, sender, attempt)
        try:
            yield server
        finally:
            for connection in server._idle:
                connection.close()

    async def send(self, message: Message) -> None:
        """Give a mail to the server. Raises Refused, NotTaken, OutcomeUnknown."""
        mail = _mail(message, self._sender)
        recipient = "@".join(mailbox_and_domain(message.address))
        connection = await self._connection()
        try:
            # The errors' texts are the server's, and name addresses: only codes and types go on from here.
            await connection.sendmail(
                self._sender.address,
                [recipient],
                mail,
                mail_options=() if recipient.isascii() else await _utf8_options(connection),
                timeout=self._timeout,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            self._keep(connection)
            raise _refusal(error.recipients[0].code) from None
        except aiosmtplib.SMTPDataError as error:
            self._keep(connection)
            raise _refusal(error.code) from None
        except aiosmtplib.SMTPNotSupported:
            self._keep(connection)
            raise Refused("SMTPUTF8") from None
        except aiosmtplib.SMTPResponseException as error:  # before the recipient was named
            connection.close()
            raise NotTaken(str(error.code)) from None
        except (aiosmtplib.SMTPException, OSError) as error:
            connection.close()
            raise OutcomeUnknown(type(error).__name__) from None
        except BaseException:
            connection.close()
            raise
        self._keep(connection)

    async def _connection(self) -> aiosmtplib.SMTP:
        """Return a connection that is kept and still open, or a new one. Raises NotTaken."""
        while self._idle:
            kept = self._idle.pop()
            if kept.is_connected:
                return kept
        connection = aiosmtplib.SMTP(
            hostname=self._url.hostname,
            port=self._url.port,
            username=self._username or None,
            password=self._password or None,
            use_tls=self._url.scheme == "smtps",
            timeout=self._timeout,
        )
        try:
            await connection.connect()
        except (aiosmtplib.SMTPException, OSError) as error:
            connection.close()
            raise NotTaken(type(error).__name__) from None
        return connection

    def _keep(self, connection: aiosmtplib.SMTP) -> None:
        if len(self._idle) < _IDLE:
            self._idle.append(connection)
        else:
            connection.close()


def _refusal(code: int) -> Exception:
    """What a reply of the server means: 5xx is for good, 4xx for now (RFC 5321, 4.2.1)."""
    return Refused(str(code)) if code in _PERMANENT else NotTaken(str(code))


async def _utf8_options(connection: aiosmtplib.SMTP) -> Sequence[str]:
    """Return what a mail in other letters needs (RFC 6531). Raises SMTPNotSupported."""
    if connection.is_ehlo_or_helo_needed:
        await connection.ehlo()
    if not connection.supports_extension("smtputf8"):
        raise aiosmtplib.SMTPNotSupported("SMTPUTF8")
    return ("SMTPUTF8", "BODY=8BITMIME")


def _mail(message: Message, sender: Sender) -> bytes:
    """Write a mail. Raises Refused if nobody can have the address, or the name."""
    mailbox, domain = mailbox_and_domain(message.address)
    try:
        to = Address(message.name, mailbox, domain)
    except (HeaderParseError, ValueError):
        raise Refused("malformed address") from None
    policy = SMTP if to.addr_spec.isascii() else SMTPUTF8
    rest = _MAIL.format(
        date=format_datetime(message.created_at),
        message_id=sender.message_id(message.notification_id),
        boundary=f"=_{message.notification_id.hex}",  # which is in no base64
        text=_base64(message.content.text),
        html=_base64(message.content.html),
    )
    return (
        _header(policy, "From", Address(sender.name, addr_spec=sender.address))
        + _header(policy, "To", to)
        + _header(policy, "Subject", message.content.subject)
        + rest.replace("\n", "\r\n").encode()
    )


def _header(policy: "EmailPolicy[EmailMessage]", name: str, value: str | Address) -> bytes:
    """Return the lines of a header that has other people's words in it, encoded and folded."""
    return policy.fold_binary(*policy.header_store_parse(name, value))


def _base64(text: str) -> str:
    """Encode a part, whose lines end as mail has it (RFC 2045, 6.8)."""
    return base64.encodebytes(b"".join(line + b"\r\n" for line in text.encode().splitlines())).decode()
