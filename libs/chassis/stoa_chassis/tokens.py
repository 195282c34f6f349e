"""Verification of users' tokens: JSON Web Tokens signed with ES256 or EdDSA by a key of a published set.

The edge has checked the token before; a service checks it again, because the edge is not the only way in.
Verifying a signature costs more than all else that the chassis does for a call, so results are remembered.
"""

import asyncio
import json
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

import jwt

from stoa_chassis.errors import Unauthenticated, Unavailable
from stoa_chassis.telemetry import get_logger

_log = get_logger(__name__)
_ALGORITHMS = ["ES256", "EdDSA"]
_FETCH_TIMEOUT = 2.0  # seconds
_REMEMBERED = 2048  # tokens, about 1 KiB each


class TokenMissing(Unauthenticated):
    """The call needs a signed-in user and carries no token."""

    reason = "TOKEN_MISSING"


class TokenExpired(Unauthenticated):
    """The token was good once; a refreshed one will be."""

    reason = "TOKEN_EXPIRED"


class TokenInvalid(Unauthenticated):
    """The token is not one of ours."""

    reason = "TOKEN_INVALID"


class KeysUnavailable(Unavailable):
    """No signing key could be fetched yet, so nobody's token can be checked."""

    reason = "KEYS_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says of its bearer."""

    subject: str
    roles: frozenset[str]
    session_id: str = ""
    is_guest: bool = False


class KeySource(Protocol):
    """Where the public keys of the issuer come from."""

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """Return the key with this id. Raises KeysUnavailable if it can't be known now."""


class StaticKeys:
    """A fixed key set, for an issuer that verifies its own tokens and for tests."""

    def __init__(self, jwks: Mapping[str, Any]) -> None:
        self._keys = _parse(jwks)

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """Return the key with this id."""
        return self._keys.get(kid)


class RemoteKeys:
    """The key set behind a URL.

    It is fetched at first use, again when it is older than `max_age` seconds, and for an unknown key id, but
    never more often than every `pause` seconds. While it can't be fetched the old set stays in use: an outage
    of the issuer must not sign everybody out.
    """

    def __init__(self, url: str, *, max_age: float = 300, pause: float = 5) -> None:
        self._url = url
        self._max_age = max_age
        self._pause = pause
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """Return the key with this id. Raises KeysUnavailable if no set was ever fetched."""
        now = time.monotonic()
        age = now - self._fetched_at
        if kid not in self._keys or age > self._max_age:
            if self._fetching is None and now - self._tried_at > self._pause:
                self._fetching = asyncio.create_task(self._fetch())
            # A key that is a little too old is used once more while the set is fetched, so that nobody waits.
            if self._fetching is not None and (kid not in self._keys or age > 2 * self._max_age):
                # Shielded: one caller that gives up must not stop the fetch that others wait for.
                await asyncio.shield(self._fetching)
        if self._fetched_at == float("-inf"):
            raise KeysUnavailable(
                "tokens can't be checked right now", retry_after=timedelta(seconds=self._pause)
            )
        return self._keys.get(kid)

    async def _fetch(self) -> None:
        try:
            self._keys = _parse(json.loads(await asyncio.to_thread(self._read)))
            self._fetched_at = time.monotonic()
        except (OSError, ValueError, AttributeError, TypeError, jwt.PyJWTError) as error:
            _log.warning("signing keys not fetched, keeping the old ones", url=self._url, cause=str(error))
        finally:
            self._tried_at = time.monotonic()
            self._fetching = None

    def _read(self) -> bytes:
        with urllib.request.urlopen(self._url, timeout=_FETCH_TIMEOUT) as response:
            body: bytes = response.read()
            return body


class TokenVerifier:
    """Checks tokens and remembers those that were good until they expire or their key is withdrawn."""

    def __init__(self, keys: KeySource, issuer: str, audience: str, *, leeway: float = 5) -> None:
        """Accept tokens of `issuer` made for `audience`; clocks may differ by `leeway` seconds."""
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._good: OrderedDict[str, _Good] = OrderedDict()

    async def verify(self, token: str) -> Claims:
        """Return what the token says. Raises TokenExpired, TokenInvalid or KeysUnavailable."""
        if known := self._good.get(token):
            if time.time() < known.until and await self._keys.find(known.kid):
                return known.claims
            self._good.pop(token, None)
        good = self._good[token] = await self._check(token)
        if len(self._good) > _REMEMBERED:
            self._good.popitem(last=False)
        return good.claims

    async def _check(self, token: str) -> "_Good":
        try:
            kid = str(jwt.get_unverified_header(token).get("kid", ""))
            key = await self._keys.find(kid)
            if key is None:
                raise TokenInvalid("the token is not valid")
            payload = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise TokenExpired("the token has expired") from None
        except jwt.PyJWTError:
            raise TokenInvalid("the token is not valid") from None
        roles = payload.get("roles", [])
        if not payload["sub"] or not isinstance(roles, list):
            raise TokenInvalid("the token is not valid")
        is_guest = bool(payload.get("guest"))
        claims = Claims(
            payload["sub"],
            # Whoever else the issuer says that a guest is: without an account nobody is staff.
            frozenset() if is_guest else frozenset(str(role) for role in roles),
            str(payload.get("sid") or ""),
            is_guest,
        )
        return _Good(float(payload["exp"]) + self._leeway, kid, claims)


class _Good(NamedTuple):
    """A token that was checked: until when it holds (seconds of the epoch), and with which key."""

    until: float
    kid: str
    claims: Claims


def _parse(jwks: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    """Return the usable keys by id; issuers publish others as well (for encryption, for older algorithms)."""
    keys: dict[str, jwt.PyJWK] = {}
    for entry in jwks.get("keys", []):
        if entry.get("use", "sig") == "sig" and "kid" in entry:
            try:
                key = jwt.PyJWK.from_dict(entry)
            except jwt.PyJWTError:
                continue
            if key.algorithm_name in _ALGORITHMS:
                keys[entry["kid"]] = key
    return keys
