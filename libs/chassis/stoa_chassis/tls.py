"""mTLS between services from PEM files that may be replaced at any time.

Whoever issues the certificates (the local stack, cert-manager, a SPIFFE helper) writes cert.pem, key.pem and
ca.pem into one folder. New connections use what is there now, so that short-lived certificates rotate without
a restart. A rotation is three writes: a pair that does not fit together yet is ignored and the old one kept.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from stoa_chassis.telemetry import get_logger

_log = get_logger(__name__)
_NAMES = ("cert.pem", "key.pem", "ca.pem")
# How long a client goes on without looking whether the files changed, in seconds.
_LOOK_EVERY = 1.0


class TlsError(Exception):
    """The folder holds no usable certificate, key and CA."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """One consistent set: our certificate chain and key, and the CA that vouches for the others; all PEM."""

    chain: bytes
    key: bytes
    ca: bytes

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return what a client needs to prove who it is and to check the server."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.chain)

    def _server_configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.chain)], self.ca)


class CertificateFolder:
    """The newest consistent certificates of a folder."""

    def __init__(self, folder: Path) -> None:
        """Load the folder. Raises TlsError if there is nothing usable in it."""
        self._files = tuple(folder / name for name in _NAMES)
        try:
            self._stamp = self._read_stamp()
            self._current = self._load()
        except (OSError, ValueError) as error:
            raise TlsError(f"no usable certificates in {folder}: {error}") from error
        self._looked_at = time.monotonic()

    def current(self) -> Certificates:
        """Return the newest certificates; the same object as long as the files did not change."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_EVERY:
            self._looked_at = now
            self._reload_if_changed()
        return self._current

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that demand a client certificate and look at the files on each connection."""
        served = self._current

        def newer() -> grpc.ServerCertificateConfiguration | None:
            nonlocal served
            self._reload_if_changed()
            if self._current is served:
                return None
            served = self._current
            return served._server_configuration()

        return grpc.dynamic_ssl_server_credentials(
            served._server_configuration(),
            newer,  # type: ignore[arg-type]  # the stubs don't know that None means "as before"
            require_client_authentication=True,
        )

    def _reload_if_changed(self) -> None:
        try:
            stamp = self._read_stamp()
            if stamp == self._stamp:
                return
            self._current = self._load()
            self._stamp = stamp
            _log.info("certificates reloaded")
        except (OSError, ValueError) as error:
            _log.warning("certificates are not consistent, keeping the old ones", cause=str(error))

    def _read_stamp(self) -> tuple[tuple[int, int, int], ...]:
        stats = (file.stat() for file in self._files)
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)

    def _load(self) -> Certificates:
        chain, key, ca = (file.read_bytes() for file in self._files)
        x509.load_pem_x509_certificates(ca)
        if x509.load_pem_x509_certificate(chain).public_key() != load_pem_private_key(key, None).public_key():
            raise ValueError("key.pem is not the key of cert.pem")
        return Certificates(chain, key, ca)
