"""Access tokens: JSON Web Tokens signed with ES256, and the key set that proves them."""

import hashlib
import json
import re
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import ECAlgorithm

from stoa_chassis.app import StartError
from stoa_chassis.ids import new_id
from stoa_user.model import PublicKey, User

_ALGORITHM = "ES256"
_PUBLIC_KEY = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


class KeyUnusable(StartError):
    """A key in the settings is missing or not a P-256 key in PEM."""


class JwtIssuer:
    """Signs access tokens."""

    def __init__(
        self,
        signing_key: str,
        previous_public_keys: str = "",
        *,
        issuer: str,
        audience: str,
        lifetime: timedelta,
    ) -> None:
        """Sign with `signing_key` (PEM); keep publishing `previous_public_keys` (PEM, one after the other).

        To rotate, the new key becomes the signing key and the public half of the old one a previous key,
        until the last token that it signed has expired.

        Raises KeyUnusable.
        """
        self._key = _load_private_key(signing_key)
        self._kid = public_key(self._key.public_key()).kid
        previous = map(_load_public_key, _PUBLIC_KEY.findall(previous_public_keys))
        self._issuer = issuer
        self._audience = audience
        self.lifetime = lifetime
        # By id, because after a rotation half done the new key may be among the previous ones.
        self._keys = {public_key(key).kid: key for key in (self._key.public_key(), *previous)}
        self.public_keys = tuple(map(public_key, self._keys.values()))

    def issue(self, user: User, session_id: UUID, now: datetime) -> str:
        """Return a token that proves who the user is, in which session, and what roles they have."""
        return self._sign(user.user_id, session_id, now, {"roles": sorted(user.roles)})

    def issue_to_guest(self, guest_id: UUID, session_id: UUID, now: datetime) -> str:
        """Return a token that proves which guest somebody is, in which session."""
        return self._sign(guest_id, session_id, now, {"roles": [], "guest": True})

    def session_of_guest(self, token: str, now: datetime) -> UUID | None:
        """Return the session that a guest's token belongs to; None if it is no such token, or has expired."""
        try:
            key = self._keys[jwt.get_unverified_header(token).get("kid", "")]
            claims = jwt.decode(
                token,
                key,
                algorithms=[_ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                options={"verify_exp": False, "verify_iat": False},  # by our clock, below
            )
            if not claims.get("guest") or claims["exp"] <= now.timestamp():
                return None
            return UUID(claims["sid"])
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            return None

    def _sign(self, subject: UUID, session_id: UUID, now: datetime, claims: dict[str, Any]) -> str:
        every = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(subject),
            "sid": str(session_id),
            "iat": int(now.timestamp()),
            "exp": int((now + self.lifetime).timestamp()),
            "jti": str(new_id()),
        }
        return jwt.encode(every | claims, self._key, _ALGORITHM, headers={"kid": self._kid})


def public_key(key: EllipticCurvePublicKey) -> PublicKey:
    """Describe a key; its id is its thumbprint (RFC 7638), so that all instances call it the same."""
    jwk: dict[str, Any] = ECAlgorithm.to_jwk(key, as_dict=True)
    members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}  # in the order of the RFC
    canonical = json.dumps(members, separators=(",", ":")).encode()
    kid = jwt.utils.base64url_encode(hashlib.sha256(canonical).digest()).decode()
    return PublicKey(kid, jwk["x"], jwk["y"])


def _load_private_key(pem: str) -> EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyUnusable("STOA_SIGNING_KEY holds no private key in PEM") from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise KeyUnusable("STOA_SIGNING_KEY is not a P-256 key")
    return key


def _load_public_key(pem: str) -> EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise KeyUnusable("STOA_PREVIOUS_PUBLIC_KEYS holds something that is no public key in PEM") from None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise KeyUnusable("STOA_PREVIOUS_PUBLIC_KEYS holds a key that is not P-256")
    return key
