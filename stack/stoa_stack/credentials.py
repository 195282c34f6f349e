"""Passwords and keys of an instance: generated once, kept in its state folder, readable by its owner only.

Each service has a folder of its own (`secrets/<service>/<environment name in lower case>`), mounted as
STOA_SECRETS_DIR, so that no service can read another's. What the stack itself needs is in `secrets/stack/`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stoa_stack.files import write_atomically


def password() -> str:
    """A fresh password that needs no quoting in a URL, a config file or SQL."""
    return secrets.token_hex(24)


def signing_key() -> str:
    """A fresh ES256 (P-256) private key as PKCS#8 PEM."""
    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        .decode()
    )


class Secrets:
    """One folder of secrets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str, generate: Callable[[], str] = password) -> str:
        """The secret of that name, generated at its first use."""
        path = self.folder / name
        try:
            return path.read_text()
        except FileNotFoundError:
            self.put(name, generate())
            return path.read_text()

    def put(self, name: str, value: str) -> None:
        """Store a secret that is derived from others, such as a URL with a password in it."""
        path = self.folder / name
        if not path.exists() or path.read_text() != value:
            write_atomically(path, value)
