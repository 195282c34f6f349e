"""Settings of the user service."""

from collections.abc import Mapping
from datetime import timedelta

from pydantic import Field

from stoa_chassis.settings import PostgresSettings
from stoa_user.model import Limited, LockoutPolicy, MailPolicy, Quota, SessionPolicy, SignInPolicy


class Settings(PostgresSettings):
    """What an operator can set, beside what all services have."""

    # EC P-256 private key in PEM; required. All instances share it.
    signing_key: str = Field(default="", repr=False)
    # Public keys in PEM, one after the other, whose tokens are still good after a rotation.
    previous_public_keys: str = ""

    # The account with which staff begins; none is made without both.
    staff_email: str = ""
    staff_password: str = Field(default="", repr=False)

    access_token_seconds: int = Field(default=900, ge=1)
    refresh_token_days: int = Field(default=30, ge=1)
    session_days: int = Field(default=90, ge=1)
    # For so long a guest is one: fills a cart, orders, and takes it all along into an account.
    guest_days: int = Field(default=30, ge=1)
    # How long after its first use a refresh token is answered by the same successor; 0 is never.
    refresh_grace_seconds: int = Field(default=10, ge=0, le=60)

    # Wrong passwords for one account from one network address.
    lockout_failures: int = Field(default=10, ge=1)
    lockout_first_seconds: int = Field(default=60, ge=1)
    lockout_longest_seconds: int = Field(default=3600, ge=1)
    # The same from all addresses where its owner never signed in, together.
    stranger_failures: int = Field(default=10, ge=1)
    stranger_first_seconds: int = Field(default=1, ge=1)
    stranger_longest_seconds: int = Field(default=60, ge=1)
    # For so long an address is known from which an owner signed in.
    origin_days: int = Field(default=90, ge=1)

    # For so long the link of a mail sets a new password, or confirms an address.
    reset_minutes: int = Field(default=30, ge=1)
    confirm_days: int = Field(default=3, ge=1)
    # How many such mails are sent while as many of their links are good.
    live_resets: int = Field(default=3, ge=1)
    live_confirmations: int = Field(default=10, ge=1)
    # Whoever asks for a new password is answered after this, whether or not there is such an account.
    reset_answer_milliseconds: int = Field(default=250, ge=0, le=5000)

    # How often in an hour one network address may ask for a new password, or become a guest.
    rate_limits: bool = True
    resets_per_address: int = Field(default=20, ge=1)
    guests_per_address: int = Field(default=300, ge=1)

    # argon2id as OWASP's Password Storage Cheat Sheet has it.
    argon2_memory_kib: int = Field(default=19_456, ge=8)
    argon2_iterations: int = Field(default=2, ge=1)
    argon2_lanes: int = Field(default=1, ge=1)
    # A thread keeps the memory of its hashes. One does 40 sign-ins a second, and leaves cores to the others.
    password_threads: int = Field(default=1, ge=1)
    password_queue: int = Field(default=64, ge=1)

    @property
    def sessions(self) -> SessionPolicy:
        """How long one may stay signed in."""
        return SessionPolicy(
            timedelta(days=self.refresh_token_days),
            timedelta(days=self.session_days),
            timedelta(days=self.guest_days),
            timedelta(seconds=self.refresh_grace_seconds),
        )

    @property
    def mails(self) -> MailPolicy:
        """How long the links of mails are good."""
        return MailPolicy(
            timedelta(minutes=self.reset_minutes),
            timedelta(days=self.confirm_days),
            self.live_resets,
            self.live_confirmations,
        )

    @property
    def reset_answer_after(self) -> timedelta:
        """When whoever asks for a new password is answered."""
        return timedelta(milliseconds=self.reset_answer_milliseconds)

    @property
    def quotas(self) -> Mapping[Limited, Quota]:
        """How often something may be asked for from one origin; nothing is bounded without rate limits."""
        if not self.rate_limits:
            return {}
        return {
            Limited.GUEST: Quota(self.guests_per_address),
            Limited.PASSWORD_RESET: Quota(self.resets_per_address),
        }

    @property
    def sign_in(self) -> SignInPolicy:
        """How wrong passwords are answered."""
        return SignInPolicy(
            LockoutPolicy(
                self.lockout_failures,
                timedelta(seconds=self.lockout_first_seconds),
                timedelta(seconds=self.lockout_longest_seconds),
            ),
            LockoutPolicy(
                self.stranger_failures,
                timedelta(seconds=self.stranger_first_seconds),
                timedelta(seconds=self.stranger_longest_seconds),
            ),
            timedelta(days=self.origin_days),
        )
