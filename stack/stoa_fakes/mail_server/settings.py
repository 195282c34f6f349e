"""Settings of the mail server."""

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class MailServerSettings(BaseSettings):
    """All from the environment: `MAIL_SMTP_PORT` sets `smtp_port`, and so on."""

    model_config = SettingsConfigDict(env_prefix="MAIL_")

    # Where it takes mail, and where it shows it.
    host: str = "127.0.0.1"
    smtp_port: int
    page_port: int
    # The file of the mailbox; made, with its folder, if it is not there.
    state: Path
