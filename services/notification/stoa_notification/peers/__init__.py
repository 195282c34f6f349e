"""The companies that deliver messages, behind one port: a module for each way to speak to one."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from stoa_notification.model import Channel
from stoa_notification.peers.sender import Sender
from stoa_notification.ports import Provider
from stoa_notification.settings import Settings


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Mapping[Channel, Provider]]:
    """Keep connections to the providers that are chosen; a channel without one is not offered."""
    async with AsyncExitStack() as stack:
        providers = {Channel.EMAIL: await _email(settings, stack)}
        if (sms := await _sms(settings, stack)) is not None:
            providers[Channel.SMS] = sms
        if (push := await _push(settings, stack)) is not None:
            providers[Channel.PUSH] = push
        yield providers


# A module is imported if it is chosen: what it needs takes memory that others need not pay.


async def _email(settings: Settings, stack: AsyncExitStack) -> Provider:
    sender = Sender(settings.sender_address, settings.shop_name)
    match settings.email_provider:
        case "ses":
            from stoa_notification.peers.aws import Aws, Ses

            return Ses(
                Aws(settings.aws_region, settings.aws_endpoint_url),
                sender,
                settings.provider_timeout,
            )
        case "sendgrid":
            from stoa_notification.peers.sendgrid import SendGrid

            return await stack.enter_async_context(
                SendGrid.connect(
                    settings.sendgrid_url,
                    settings.sendgrid_api_key,
                    sender,
                    settings.provider_timeout,
                )
            )
    from stoa_notification.peers.smtp import Smtp

    return await stack.enter_async_context(
        Smtp.connect(
            settings.smtp_url,
            settings.smtp_username,
            settings.smtp_password,
            sender,
            settings.provider_timeout,
        )
    )


async def _sms(settings: Settings, stack: AsyncExitStack) -> Provider | None:
    match settings.sms_provider:
        case "sns":
            from stoa_notification.peers.aws import Aws, Sns

            return Sns(Aws(settings.aws_region, settings.aws_endpoint_url), settings.provider_timeout)
        case "twilio":
            from stoa_notification.peers.twilio import Twilio

            return await stack.enter_async_context(
                Twilio.connect(
                    settings.twilio_url,
                    settings.twilio_account_sid,
                    settings.twilio_auth_token,
                    settings.twilio_from,
                    settings.provider_timeout,
                )
            )
    return None


async def _push(settings: Settings, stack: AsyncExitStack) -> Provider | None:
    if settings.push_provider != "fcm":
        return None
    from stoa_notification.peers.fcm import Fcm

    return await stack.enter_async_context(
        Fcm.connect(settings.fcm_url, settings.fcm_service_account, settings.provider_timeout)
    )
