"""Settings of the user service."""

from datetime import timedelta

from pydantic import Field

from stoa_chassis.settings import PostgresSettings
from stoa_user.model import LockoutPolicy, SessionPolicy, SignInPolicy


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
            timedelta(seconds=self.refresh_grace_seconds),
        )

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
