"""The local certificate authority and the mesh identities it issues.

Every service proves who it is by an X.509 certificate that carries a SPIFFE id, as Istio would issue in a
cluster. Certificates are short-lived and are replaced file by file by rename; servers and clients notice and
reload. Layout: `certs/ca.pem`, `certs/ca-key.pem`, `certs/<service>/{cert,key,ca}.pem`.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stoa_stack.files import write_atomically

TRUST_DOMAIN = "stoa.local"
CA_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=90)
RENEW_BEFORE = timedelta(days=30)
_CLOCK_SKEW = timedelta(minutes=5)


def spiffe_id(service: str) -> str:
    """The mesh identity of a service."""
    return f"spiffe://{TRUST_DOMAIN}/ns/stoa/sa/{service}"


class Authority:
    """A certificate authority in a folder, made at its first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "ca.pem").exists():
            self._found()
        self._ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca-key.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    def _found(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Stoa local authority")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_atomically(self.folder / "ca-key.pem", _pem(key))
        write_atomically(self.folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))

    def ensure(self, service: str) -> bool:
        """Issue the service's certificate if it has none or its validity ends soon; return whether it did."""
        path = self.folder / service / "cert.pem"
        if path.exists():
            ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
            if ends - datetime.now(UTC) > RENEW_BEFORE:
                return False
        self.issue(service)
        return True

    def issue(self, service: str, lifetime: timedelta = LIFETIME) -> None:
        """Issue a fresh key and certificate, replacing those that the service has."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)]))
            .issuer_name(self._ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.UniformResourceIdentifier(spiffe_id(service)),
                        x509.DNSName(f"{service}.stoa.internal"),
                        x509.DNSName("localhost"),
                        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                    ]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        folder = self.folder / service
        write_atomically(folder / "ca.pem", (self.folder / "ca.pem").read_bytes())
        write_atomically(folder / "key.pem", _pem(key))
        # The certificate comes last: a reader that watches it finds the matching key already there.
        write_atomically(folder / "cert.pem", certificate.public_bytes(serialization.Encoding.PEM))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
