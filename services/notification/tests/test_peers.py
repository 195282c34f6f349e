"""The providers: SMTP against a real server, SES and SNS against moto's, the others against mocks that follow
their public references.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import jwt
import pytest
from aiohttp import encode_basic_auth, web
from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stoa_chassis.testing import free_port
from stoa_notification import peers
from stoa_notification.model import Channel
from stoa_notification.peers.aws import Aws, Ses, Sns
from stoa_notification.peers.fcm import Fcm
from stoa_notification.peers.sender import Sender
from stoa_notification.peers.sendgrid import SendGrid
from stoa_notification.peers.smtp import Smtp
from stoa_notification.peers.twilio import Twilio
from stoa_notification.ports import Content, Message, NotTaken, OutcomeUnknown, Refused
from stoa_notification.settings import Settings

SENDER = Sender("shop@stoa.example", "Stoa")
SOON = timedelta(seconds=5)
IN_TIME = timedelta(minutes=2)  # moto loads a service when it is first asked for
AT = datetime(2026, 11, 26, 12, tzinfo=UTC)


def a_message(address: str = "ada@mail.test", name: str = "Ada Müller") -> Message:
    content = Content("Grüße vom Shop", "Hallo\n", "<p>Hallo</p>", "Kurz gesagt.", "https://shop.test/")
    return Message(uuid4(), address, name, content, AT)


# ------------------------------------------------------------------------------------------------------ SMTP


class Server:
    """A mail server that answers as it is told."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.connections = 0
        self.to_recipient = self.to_content = ""
        self.hangs_up = False

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.to_recipient:
            return self.to_recipient
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.to_content:
            return self.to_content
        self.taken.append(envelope)
        if self.hangs_up:
            assert server.transport is not None
            server.transport.close()
        return "250 OK"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        def protocol() -> SMTP:
            self.connections += 1
            return SMTP(self, enable_SMTPUTF8=True)

        listening = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        async with listening:
            yield f"smtp://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def content(envelope: Envelope) -> bytes:
    assert isinstance(envelope.content, bytes)
    return envelope.content


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def smtp(server: Server) -> AsyncIterator[Smtp]:
    async with server.running() as url, Smtp.connect(url, "", "", SENDER, SOON) as connected:
        yield connected


async def test_a_mail_has_both_parts_and_an_id_that_is_the_same_again(smtp: Smtp, server: Server) -> None:
    message = a_message()
    await smtp.send(message)
    await smtp.send(message)
    assert server.connections == 1, "a connection is kept"
    first, second = (message_from_bytes(content(each), policy=default) for each in server.taken)
    assert first["Message-ID"] == second["Message-ID"] == f"<{message.notification_id}@stoa.example>"
    assert str(first["To"]) == "Ada Müller <ada@mail.test>"
    assert str(first["From"]) == "Stoa <shop@stoa.example>"
    assert first["Subject"] == "Grüße vom Shop"
    assert first["Auto-Submitted"] == "auto-generated"
    assert first["Date"].datetime == AT
    parts = {part.get_content_type(): part.get_content() for part in first.walk() if not part.is_multipart()}
    assert {kind: text.strip() for kind, text in parts.items()} == {
        "text/plain": "Hallo",
        "text/html": "<p>Hallo</p>",
    }
    assert server.taken[0].rcpt_tos == ["ada@mail.test"]


@pytest.mark.parametrize(
    ("to_recipient", "to_content", "outcome"),
    [
        ("550 5.1.1 ada@mail.test is unknown", "", Refused("550")),
        ("450 4.2.1 the mailbox of ada@mail.test is busy", "", NotTaken("450")),
        ("", "552 5.3.4 too big", Refused("552")),
        ("", "451 4.3.0 later", NotTaken("451")),
    ],
)
async def test_a_reply_says_whether_it_is_for_good_and_nothing_of_the_recipient_goes_on_from_it(
    smtp: Smtp, server: Server, to_recipient: str, to_content: str, outcome: Exception
) -> None:
    server.to_recipient, server.to_content = to_recipient, to_content
    with pytest.raises(type(outcome)) as raised:
        await smtp.send(a_message())
    assert str(raised.value) == str(outcome)
    server.to_recipient = server.to_content = ""
    await smtp.send(a_message())
    assert len(server.taken) == 1


async def test_a_server_that_hangs_up_may_have_taken_it(smtp: Smtp, server: Server) -> None:
    server.hangs_up = True
    with pytest.raises(OutcomeUnknown):
        await smtp.send(a_message())
    server.hangs_up = False
    await smtp.send(a_message())


async def test_a_server_that_is_not_there_has_not_taken_it() -> None:
    async with Smtp.connect(f"smtp://127.0.0.1:{free_port()}", "", "", SENDER, SOON) as smtp:
        with pytest.raises(NotTaken):
            await smtp.send(a_message())


@pytest.mark.parametrize("address", ["no address", "a@b\r\nBcc: eve@mail.test", "@mail.test", ""])
async def test_an_address_that_nobody_can_have_is_refused(smtp: Smtp, server: Server, address: str) -> None:
    with pytest.raises(Refused):
        await smtp.send(a_message(address))
    assert not server.taken


async def test_an_address_in_other_letters_is_written_to(smtp: Smtp, server: Server) -> None:
    await smtp.send(a_message("jörg@mail.test", "Jörg"))
    assert server.taken[0].rcpt_tos == ["jörg@mail.test"]


async def test_a_name_writes_no_headers(smtp: Smtp, server: Server) -> None:
    with pytest.raises(Refused):
        await smtp.send(a_message(name="Eve\r\nBcc: eve@mail.test"))
    assert not server.taken


# ------------------------------------------------------------------------------------------------------- AWS


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    """Moto's server: AWS as far as it is called here."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        running.start()
        host, port = running.get_host_and_port()
        try:
            yield Aws("eu-central-1", f"http://{host}:{port}")
        finally:
            running.stop()


async def test_ses_takes_a_mail_from_an_identity_that_it_knows(aws: Aws) -> None:
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.ses.models import ses_backends

    message, ses = a_message(), Ses(aws, SENDER, IN_TIME)
    with pytest.raises(Refused) as refused:
        await ses.send(message)
    assert refused.value.code == "MessageRejected"
    client = aws.client("sesv2", IN_TIME)
    await asyncio.to_thread(client.create_email_identity, EmailIdentity=SENDER.address)
    await ses.send(message)
    (sent,) = ses_backends[DEFAULT_ACCOUNT_ID]["eu-central-1"].sent_messages
    assert sent.subject == "Grüße vom Shop"
    assert sent.destinations["ToAddresses"][0].endswith("<ada@mail.test>")
    await ses.send(a_message("ada@bücher.example"))
    last = ses_backends[DEFAULT_ACCOUNT_ID]["eu-central-1"].sent_messages[-1]
    assert last.destinations["ToAddresses"][0].endswith("<ada@xn--bcher-kva.example>")
    with pytest.raises(Refused, match="SMTPUTF8"):
        await ses.send(a_message("ädä@mail.test"))


async def test_sns_takes_an_sms(aws: Aws) -> None:
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.sns.models import sns_backends

    await Sns(aws, IN_TIME).send(a_message("+4930123456"))
    ((number, text),) = [
        entry[:2] for entry in sns_backends[DEFAULT_ACCOUNT_ID]["eu-central-1"].sms_messages.values()
    ]
    assert (number, text) == ("+4930123456", "Kurz gesagt.")
    with pytest.raises(Refused) as refused:
        await Sns(aws, IN_TIME).send(a_message("no number"))
    assert refused.value.code == "InvalidParameter"


async def test_aws_that_is_not_there_has_not_taken_it(aws: Aws) -> None:
    nowhere = Aws("eu-central-1", f"http://127.0.0.1:{free_port()}")
    for provider in (Ses(nowhere, SENDER, SOON), Sns(nowhere, SOON)):
        with pytest.raises(NotTaken):
            await provider.send(a_message())


# ------------------------------------------------------------------------------------------------------ HTTP

Handler = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def serving(method: str, path: str, handler: Handler, *more: tuple[str, Handler]) -> AsyncIterator[str]:
    app = web.Application()
    for route, handle in ((path, handler), *more):
        app.router.add_route(method, route, handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Mock:
    """Notes requests and answers them with what it is told; the answers are those of the references."""

    def __init__(self, status: int, body: Any) -> None:
        self.status, self.body = status, body
        self.requests: list[tuple[web.Request, str]] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((request, await request.text()))
        return web.Response(
            status=self.status,
            text=json.dumps(self.body) if self.body is not None else "",
            content_type="application/json",
        )


async def test_sendgrid_is_given_a_mail_as_its_reference_has_it() -> None:
    mock, message = Mock(202, None), a_message()
    async with (
        serving("POST", "/v3/mail/send", mock.handle) as url,
        SendGrid.connect(url, "SG.key", SENDER, SOON) as sendgrid,
    ):
        await sendgrid.send(message)
        ((request, text),) = mock.requests
        assert request.headers["authorization"] == "Bearer SG.key"
        sent = json.loads(text)
        assert sent["personalizations"] == [{"to": [{"email": "ada@mail.test", "name": "Ada Müller"}]}]
        assert [part["type"] for part in sent["content"]] == ["text/plain", "text/html"]
        assert sent["headers"]["Message-ID"] == f"<{message.notification_id}@stoa.example>"
        await sendgrid.send(a_message("ada@bücher.example", ""))
        (to,) = json.loads(mock.requests[-1][1])["personalizations"][0]["to"]
        assert to == {"email": "ada@xn--bcher-kva.example"}
        mock.status, mock.body = 400, {"errors": [{"message": "bad", "field": "from", "help": None}]}
        with pytest.raises(Refused) as refused:
            await sendgrid.send(message)
        assert refused.value.code == "400"
        mock.status = 429
        with pytest.raises(NotTaken):
            await sendgrid.send(message)
        mock.status = 500
        with pytest.raises(OutcomeUnknown):
            await sendgrid.send(message)


async def test_twilio_is_given_an_sms_as_its_reference_has_it() -> None:
    mock = Mock(201, {"sid": "SM1", "status": "queued"})
    async with (
        serving("POST", "/2010-04-01/Accounts/AC1/Messages.json", mock.handle) as url,
        Twilio.connect(url, "AC1", "token", "+15005550006", SOON) as twilio,
    ):
        await twilio.send(a_message("+4930123456"))
        ((request, text),) = mock.requests
        assert request.headers["authorization"] == encode_basic_auth("AC1", "token")
        assert parse_qs(text) == {"To": ["+4930123456"], "From": ["+15005550006"], "Body": ["Kurz gesagt."]}
        mock.status = 400
        for code, is_gone in ((21610, True), (21211, True), (21614, True), (21408, False)):
            mock.body = {"code": code, "message": "of a number", "more_info": "", "status": 400}
            with pytest.raises(Refused) as refused:
                await twilio.send(a_message("+4930123456"))
            assert (refused.value.code, refused.value.address_is_gone) == (str(code), is_gone)


async def test_fcm_is_given_a_message_as_its_reference_has_it_with_a_token_of_the_account() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    tokens = Mock(200, {"access_token": "ya29", "expires_in": 3599, "token_type": "Bearer"})
    mock, message = Mock(200, {"name": "projects/p1/messages/1"}), a_message("device")
    async with serving(
        "POST", "/v1/projects/p1/messages:send", mock.handle, ("/token", tokens.handle)
    ) as url:
        account = {
            "type": "service_account",
            "project_id": "p1",
            "client_email": "push@p1.iam.gserviceaccount.com",
            "private_key": pem,
            "token_uri": f"{url}/token",
        }
        async with Fcm.connect(url, json.dumps(account), SOON) as fcm:
            await fcm.send(message)
            await fcm.send(message)
            ((_, asked),) = tokens.requests
            assertion = parse_qs(asked)["assertion"][0]
            claims = jwt.decode(assertion, key.public_key(), ["RS256"], audience=account["token_uri"])
            assert claims["iss"] == account["client_email"]
            request, text = mock.requests[0]
            assert request.headers["authorization"] == "Bearer ya29"
            sent = json.loads(text)["message"]
            assert sent["token"] == "device"
            assert sent["notification"] == {"title": "Grüße vom Shop", "body": "Kurz gesagt."}
            tag = str(message.notification_id)
            assert (
                sent["android"]["notification"]["tag"] == sent["apns"]["headers"]["apns-collapse-id"] == tag
            )
            mock.status = 404
            error = {
                "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
                "errorCode": "UNREGISTERED",
            }
            mock.body = {"error": {"code": 404, "message": "", "status": "NOT_FOUND", "details": [error]}}
            with pytest.raises(Refused) as refused:
                await fcm.send(message)
            assert (refused.value.code, refused.value.address_is_gone) == ("UNREGISTERED", True)
            mock.status, mock.body = 401, {"error": {"code": 401, "status": "UNAUTHENTICATED"}}
            with pytest.raises(NotTaken):
                await fcm.send(message)
            mock.status, mock.body = 200, {}
            await fcm.send(message)
            assert len(tokens.requests) == 2


async def test_an_http_provider_that_is_not_there_has_not_taken_it_and_one_that_is_silent_may_have() -> None:
    async with Twilio.connect(f"http://127.0.0.1:{free_port()}", "AC1", "token", "MG1", SOON) as nowhere:
        with pytest.raises(NotTaken):
            await nowhere.send(a_message())

    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    async with (
        serving("POST", "/2010-04-01/Accounts/AC1/Messages.json", hang) as url,
        Twilio.connect(url, "AC1", "token", "MG1", timedelta(seconds=0.2)) as silent,
    ):
        with pytest.raises(OutcomeUnknown):
            await silent.send(a_message())


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({}, {Channel.EMAIL: "smtp"}),
        ({"email_provider": "ses", "sms_provider": "sns"}, {Channel.EMAIL: "ses", Channel.SMS: "sns"}),
        (
            {
                "email_provider": "sendgrid",
                "sms_provider": "twilio",
                "push_provider": "fcm",
                "fcm_service_account": '{"project_id": "p", "client_email": "c", "private_key": "k"}',
            },
            {Channel.EMAIL: "sendgrid", Channel.SMS: "twilio", Channel.PUSH: "fcm"},
        ),
    ],
)
async def test_the_providers_are_those_that_are_chosen(
    chosen: dict[str, Any], names: dict[Channel, str]
) -> None:
    async with peers.connect(Settings(**chosen)) as providers:
        assert {channel: provider.name for channel, provider in providers.items()} == names
        phones = [provider for channel, provider in providers.items() if channel is Channel.SMS]
        assert not any(provider.repeatable for provider in phones)
