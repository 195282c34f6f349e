"""What access tokens prove."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from stoa_contracts.roles import STAFF
from stoa_user.model import PublicKey, User
from stoa_user.tokens import JwtIssuer, KeyUnusable, public_key

NOW = datetime.now(UTC).replace(microsecond=0)
SESSION = uuid4()
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def private_pem(key: Key) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(key: Key) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def an_issuer(signing_key: str, previous: str = "") -> JwtIssuer:
    return JwtIssuer(signing_key, previous, issuer="stoa", audience="stoa", lifetime=timedelta(minutes=15))


def a_user() -> User:
    user = User.register(
        email="a@example.com", password_hash="hash", first_name="Ann", last_name="Lee", now=NOW
    )
    return replace(user, roles=frozenset({STAFF, "support", "catalogue", "warehouse"}))


def as_jwk(key: PublicKey) -> jwt.PyJWK:
    return jwt.PyJWK({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": key.kid, "x": key.x, "y": key.y})


def test_a_token_says_who_and_for_how_long_and_is_proven_by_the_published_key() -> None:
    issuer, user = an_issuer(private_pem(ec.generate_private_key(ec.SECP256R1()))), a_user()
    token = issuer.issue(user, SESSION, NOW)
    (key,) = issuer.public_keys
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "JWT", "kid": key.kid}
    claims = jwt.decode(token, as_jwk(key), ["ES256"], issuer="stoa", audience="stoa")
    assert claims.pop("jti")
    assert claims == {
        "iss": "stoa",
        "aud": "stoa",
        "sub": str(user.user_id),
        "sid": str(SESSION),
        "roles": ["catalogue", "staff", "support", "warehouse"],
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 900,
    }


def test_a_key_is_named_by_its_thumbprint() -> None:
    # The key of RFC 7517, appendix A.1, whose thumbprint was computed with another tool.
    key = public_key(
        ec.EllipticCurvePublicNumbers(
            int.from_bytes(jwt.utils.base64url_decode("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4")),
            int.from_bytes(jwt.utils.base64url_decode("4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM")),
            ec.SECP256R1(),
        ).public_key()
    )
    assert key.kid == "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"


def test_tokens_of_the_key_before_are_good_after_a_rotation() -> None:
    old, new = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    token = an_issuer(private_pem(old)).issue(a_user(), SESSION, NOW)
    issuer = an_issuer(private_pem(new), f"{public_pem(old)}\n{public_pem(new)}")
    keys = {key.kid: key for key in issuer.public_keys}
    assert len(keys) == 2
    key = keys[jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, as_jwk(key), ["ES256"], issuer="stoa", audience="stoa")


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "secret",
        private_pem(ec.generate_private_key(ec.SECP384R1())),
        private_pem(rsa.generate_private_key(65537, 2048)),
    ],
)
def test_a_key_that_can_not_sign_es256_is_refused_without_showing_it(pem: str) -> None:
    with pytest.raises(KeyUnusable) as refused:
        an_issuer(pem)
    assert "PRIVATE" not in str(refused.value)


@pytest.mark.parametrize(
    "other",
    [
        public_pem(rsa.generate_private_key(65537, 2048)),
        public_pem(ec.generate_private_key(ec.SECP384R1())),
        "-----BEGIN PUBLIC KEY-----\nsecret\n-----END PUBLIC KEY-----",
    ],
)
def test_a_previous_key_of_another_kind_is_refused(other: str) -> None:
    with pytest.raises(KeyUnusable):
        an_issuer(private_pem(ec.generate_private_key(ec.SECP256R1())), other)


def test_a_guests_token_says_that_it_is_one_and_tells_its_session_until_it_expires() -> None:
    issuer, guest = an_issuer(private_pem(ec.generate_private_key(ec.SECP256R1()))), uuid4()
    token = issuer.issue_to_guest(guest, SESSION, NOW)
    claims = jwt.decode(token, as_jwk(issuer.public_keys[0]), ["ES256"], issuer="stoa", audience="stoa")
    assert (claims["sub"], claims["sid"], claims["roles"], claims["guest"]) == (
        str(guest),
        str(SESSION),
        [],
        True,
    )
    expiry = NOW + issuer.lifetime
    assert issuer.session_of_guest(token, expiry - timedelta(seconds=1)) == SESSION
    assert issuer.session_of_guest(token, expiry) is None
    assert issuer.session_of_guest(issuer.issue(a_user(), SESSION, NOW), NOW) is None


@pytest.mark.parametrize("year", [2020, 2100])
def test_whether_a_guests_token_is_good_is_told_by_the_clock_that_one_has(year: int) -> None:
    issuer, now = (
        an_issuer(private_pem(ec.generate_private_key(ec.SECP256R1()))),
        datetime(year, 1, 1, tzinfo=UTC),
    )
    assert issuer.session_of_guest(issuer.issue_to_guest(uuid4(), SESSION, now), now) == SESSION


@pytest.mark.parametrize("foreign", ["issuer", "audience"])
def test_a_guests_token_of_another_shop_is_none_even_if_the_key_is_the_same(foreign: str) -> None:
    key = private_pem(ec.generate_private_key(ec.SECP256R1()))
    names = {"issuer": "stoa", "audience": "stoa", foreign: "another"}
    other = JwtIssuer(key, **names, lifetime=timedelta(minutes=15))
    token = other.issue_to_guest(uuid4(), SESSION, NOW)
    assert other.session_of_guest(token, NOW) == SESSION
    assert an_issuer(key).session_of_guest(token, NOW) is None


def test_what_is_no_token_and_what_another_key_signed_is_no_guests() -> None:
    issuer, other = (an_issuer(private_pem(ec.generate_private_key(ec.SECP256R1()))) for _ in range(2))
    for token in ("", "a.b.c", other.issue_to_guest(uuid4(), SESSION, NOW)):
        assert issuer.session_of_guest(token, NOW) is None


def test_two_tokens_are_never_the_same() -> None:
    issuer = an_issuer(private_pem(ec.generate_private_key(ec.SECP256R1())))
    assert issuer.issue_to_guest(SESSION, SESSION, NOW) != issuer.issue_to_guest(SESSION, SESSION, NOW)
