"""The local authority and the secrets of an instance."""

import ipaddress
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from cryptography.x509.verification import PolicyBuilder, Store

from stoa_stack.certificates import LIFETIME, RENEW_BEFORE, Authority, spiffe_id
from stoa_stack.credentials import Secrets


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certs")


def _certificate(authority: Authority, service: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((authority.folder / service / "cert.pem").read_bytes())


def test_a_certificate_carries_the_mesh_identity_and_the_names_of_the_service(authority: Authority) -> None:
    authority.ensure("order")
    names = _certificate(authority, "order").extensions.get_extension_for_oid(
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME
    )
    assert isinstance(names.value, x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://stoa.local/ns/stoa/sa/order"
    ]
    assert names.value.get_values_for_type(x509.DNSName) == ["order.stoa.internal", "localhost"]
    assert names.value.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]
    assert spiffe_id("order") == "spiffe://stoa.local/ns/stoa/sa/order"


def test_a_certificate_is_valid_for_its_authority_and_not_for_another(
    authority: Authority, tmp_path: Path
) -> None:
    authority.ensure("order")
    stranger = Authority(tmp_path / "others")
    certificate = _certificate(authority, "order")

    def verify(trusted: Authority) -> None:
        root = x509.load_pem_x509_certificate((trusted.folder / "ca.pem").read_bytes())
        verifier = (
            PolicyBuilder().store(Store([root])).build_server_verifier(x509.DNSName("order.stoa.internal"))
        )
        verifier.verify(certificate, [])

    verify(authority)
    with pytest.raises(x509.verification.VerificationError):
        verify(stranger)


def test_a_certificate_is_kept_while_valid_and_replaced_before_it_ends(authority: Authority) -> None:
    assert authority.ensure("order") is True
    first = _certificate(authority, "order")
    assert first.not_valid_after_utc - datetime.now(UTC) > LIFETIME - timedelta(hours=1)
    assert authority.ensure("order") is False
    assert _certificate(authority, "order") == first
    authority.issue("order", lifetime=RENEW_BEFORE - timedelta(days=1))
    assert authority.ensure("order") is True
    assert _certificate(authority, "order").serial_number != first.serial_number


def test_the_authority_is_kept_over_restarts(authority: Authority) -> None:
    before = (authority.folder / "ca.pem").read_bytes()
    assert (Authority(authority.folder).folder / "ca.pem").read_bytes() == before


def test_keys_and_secrets_are_for_their_owner_only(authority: Authority, tmp_path: Path) -> None:
    authority.ensure("order")
    Secrets(tmp_path / "secrets" / "order").get("stoa_database_password")
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_secret_is_generated_once(tmp_path: Path) -> None:
    first = Secrets(tmp_path).get("password")
    assert len(first) >= 32
    assert Secrets(tmp_path).get("password") == first
    assert Secrets(tmp_path).get("other") != first
