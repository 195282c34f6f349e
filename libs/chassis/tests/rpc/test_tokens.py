"""Where signing keys come from, and what happens when they can't be had."""

import asyncio
import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stoa_chassis.errors import Code, Unauthenticated
from stoa_chassis.testing import TokenMint, eventually
from stoa_chassis.tokens import (
    Claims,
    KeysUnavailable,
    RemoteKeys,
    StaticKeys,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
    TokenVerifier,
)


class KeyServer:
    """An issuer's JWKS endpoint."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.fetches = 0
        self.down = False
        self.nonsense: bytes | None = None
        self.answering = threading.Event()
        self.answering.set()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.fetches += 1
                owner.answering.wait(5)
                self.send_response(503 if owner.down else 200)
                self.end_headers()
                self.wfile.write(owner.nonsense or json.dumps({"keys": owner.keys}).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def publish(self, *mints: TokenMint) -> None:
        self.keys = [key for mint in mints for key in mint.jwks["keys"]]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def issuer() -> Iterator[KeyServer]:
    server = KeyServer()
    yield server
    server.close()


def verifier(issuer: KeyServer, **options: float) -> TokenVerifier:
    return TokenVerifier(RemoteKeys(issuer.url, **options), "stoa", "stoa")


async def test_many_first_calls_at_once_fetch_the_keys_once(issuer: KeyServer) -> None:
    mint = TokenMint()
    issuer.publish(mint)
    check = verifier(issuer)
    claims = await asyncio.gather(*(check.verify(mint.token(f"user{n}")) for n in range(20)))
    assert {claim.subject for claim in claims} == {f"user{n}" for n in range(20)}
    assert issuer.fetches == 1


async def test_a_new_key_is_fetched_when_its_first_token_comes(issuer: KeyServer) -> None:
    old, new = TokenMint(), TokenMint()
    issuer.publish(old)
    check = verifier(issuer, pause=0)
    await check.verify(old.token("ann"))
    issuer.publish(old, new)
    assert (await check.verify(new.token("ann"))).subject == "ann"


async def test_made_up_key_ids_do_not_make_us_hammer_the_issuer(issuer: KeyServer) -> None:
    issuer.publish(TokenMint())
    check = verifier(issuer, pause=60)
    for _ in range(10):
        with pytest.raises(Unauthenticated):
            await check.verify(TokenMint().token("ann"))
    assert issuer.fetches == 1


async def test_old_keys_stay_in_use_while_the_issuer_is_down(issuer: KeyServer) -> None:
    mint = TokenMint()
    issuer.publish(mint)
    check = verifier(issuer, max_age=0, pause=0)
    await check.verify(mint.token("ann"))
    issuer.down = True
    assert (await check.verify(mint.token("bob"))).subject == "bob"
    assert issuer.fetches == 2


async def test_before_any_key_is_known_a_token_is_neither_good_nor_bad(issuer: KeyServer) -> None:
    mint = TokenMint()
    issuer.publish(mint)
    issuer.down = True
    check = verifier(issuer, pause=0.01)
    with pytest.raises(KeysUnavailable) as refused:
        await check.verify(mint.token("ann"))
    assert (refused.value.reason, refused.value.code) == ("KEYS_UNAVAILABLE", Code.UNAVAILABLE)
    assert refused.value.message == "tokens can't be checked right now"
    assert refused.value.retry_after
    assert refused.value.retry_after.total_seconds() == 0.01
    issuer.down = False
    await asyncio.sleep(0.02)
    assert (await check.verify(mint.token("ann"))).subject == "ann"


async def test_a_key_that_was_withdrawn_is_not_accepted_any_more(issuer: KeyServer) -> None:
    old, new = TokenMint(), TokenMint()
    issuer.publish(old)
    check = verifier(issuer, max_age=0, pause=0)
    token = old.token("ann")
    await check.verify(token)
    issuer.publish(new)
    await check.verify(new.token("bob"))
    with pytest.raises(Unauthenticated):
        await check.verify(token)


async def test_keys_that_can_not_sign_for_us_are_passed_over(issuer: KeyServer) -> None:
    mint = TokenMint()
    issuer.publish(mint)
    (key,) = mint.jwks["keys"]
    issuer.keys = [
        {"kty": "EC", "kid": "odd"},
        {"kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB", "use": "sig", "alg": "RS256"},
        {"kty": "oct", "kid": "secret", "k": "c2VjcmV0", "alg": "HS256"},
        {name: value for name, value in key.items() if name != "kid"},
        *issuer.keys,
    ]
    assert (await verifier(issuer).verify(mint.token("ann"))).subject == "ann"


async def test_a_key_that_does_not_say_what_it_is_for_signs_and_one_for_encryption_does_not() -> None:
    mint = TokenMint()
    (key,) = mint.jwks["keys"]
    unsaid = {name: value for name, value in key.items() if name != "use"}
    assert await against({"keys": [unsaid]}).verify(mint.token("ann"))
    with pytest.raises(TokenInvalid):
        await against({"keys": [key | {"use": "enc"}]}).verify(mint.token("ann"))


@pytest.mark.parametrize(
    "nonsense", [b"{", b"[]", b"{}", b'{"keys": null}', b'{"keys": [1]}', b'{"keys": 1}']
)
async def test_a_key_set_that_is_none_is_as_good_as_no_answer(issuer: KeyServer, nonsense: bytes) -> None:
    mint = TokenMint()
    issuer.publish(mint)
    check = verifier(issuer, pause=0)
    await check.verify(mint.token("ann"))
    issuer.nonsense = nonsense
    with pytest.raises(TokenInvalid):
        await check.verify(TokenMint().token("eve"))
    issuer.nonsense = None
    assert (await check.verify(mint.token("bob"))).subject == "bob"


async def test_keys_are_fetched_once_as_long_as_they_are_fresh(issuer: KeyServer) -> None:
    mint = TokenMint()
    issuer.publish(mint)
    check = verifier(issuer, pause=0)
    for n in range(5):
        await check.verify(mint.token(f"user{n}"))
    assert issuer.fetches == 1


def aged(keys: RemoteKeys, seconds: float) -> None:
    """Let a key set be so old, and its last fetch so long ago."""
    keys._fetched_at = keys._tried_at = time.monotonic() - seconds


async def test_an_unknown_key_is_asked_for_again_after_a_pause(issuer: KeyServer) -> None:
    old, new = TokenMint(), TokenMint()
    issuer.publish(old)
    keys = RemoteKeys(issuer.url)
    check = TokenVerifier(keys, "stoa", "stoa")
    await check.verify(old.token("ann"))
    issuer.publish(old, new)
    for seconds in (0, 4.5):
        aged(keys, seconds)
        with pytest.raises(TokenInvalid):
            await check.verify(new.token("ann"))
    aged(keys, 5.5)
    assert await check.verify(new.token("ann"))
    assert issuer.fetches == 2


async def test_nobody_waits_for_keys_that_are_a_little_too_old_but_for_much_older_ones(
    issuer: KeyServer,
) -> None:
    mint = TokenMint()
    issuer.publish(mint)
    keys = RemoteKeys(issuer.url)
    check = TokenVerifier(keys, "stoa", "stoa")
    await check.verify(mint.token("ann"))
    aged(keys, 299.5)
    await check.verify(mint.token("bob"))
    await asyncio.sleep(0.05)
    assert issuer.fetches == 1
    issuer.answering.clear()
    aged(keys, 300.5)
    await check.verify(mint.token("cid"))
    await eventually(lambda: issuer.fetches == 2)
    aged(keys, 599.5)
    await check.verify(mint.token("dan"))
    aged(keys, 600.5)
    waiting = asyncio.create_task(check.verify(mint.token("eve")))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    issuer.answering.set()
    assert (await waiting).subject == "eve"
    assert issuer.fetches == 2


async def test_a_caller_that_gives_up_does_not_stop_the_fetch_for_others(issuer: KeyServer) -> None:
    mint = TokenMint()
    issuer.publish(mint)
    issuer.answering.clear()
    check = verifier(issuer)
    hasty, patient = (asyncio.create_task(check.verify(mint.token(name))) for name in ("ann", "bob"))
    await eventually(lambda: issuer.fetches == 1)
    hasty.cancel()
    with suppress(asyncio.CancelledError):
        await hasty
    issuer.answering.set()
    assert (await patient).subject == "bob"
    assert issuer.fetches == 1


async def test_an_issuer_that_does_not_answer_is_not_waited_for(
    issuer: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoa_chassis.tokens._FETCH_TIMEOUT", 0.1)
    issuer.answering.clear()
    try:
        with pytest.raises(KeysUnavailable):
            await asyncio.wait_for(verifier(issuer).verify(TokenMint().token("ann")), 2)
    finally:
        issuer.answering.set()


async def test_an_issuer_has_two_seconds_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def no_answer(_: str, timeout: float) -> None:
        given.append(timeout)
        raise TimeoutError

    monkeypatch.setattr(urllib.request, "urlopen", no_answer)
    with pytest.raises(KeysUnavailable):
        await RemoteKeys("http://issuer.example/jwks").find("any")
    assert given == [2]


# ------------------------------------------------------------------------------------------ what a token says


def against(jwks: dict[str, Any], **options: float) -> TokenVerifier:
    return TokenVerifier(StaticKeys(jwks), "stoa", "stoa", **options)


class Decodings:
    """Counts how often a signature was looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        decode = jwt.decode

        def counted(*args: Any, **options: Any) -> Any:
            self.count += 1
            return decode(*args, **options)

        monkeypatch.setattr(jwt, "decode", counted)


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> Decodings:
    return Decodings(monkeypatch)


async def test_a_token_says_who_with_what_roles_and_in_which_session() -> None:
    mint = TokenMint()
    check = against(mint.jwks)
    assert await check.verify(mint.token("ann", staff_roles=("warehouse",), sid="s1")) == Claims(
        "ann", frozenset({"customer", "staff", "warehouse"}), "s1"
    )
    assert await check.verify(mint.token("ann", staff=True, guest=True)) == Claims(
        "ann", frozenset(), "", True
    )
    for claims in ({}, {"sid": None}, {"sid": ""}):
        assert (await check.verify(mint.token("ann", jti=str(claims), **claims))).session_id == ""
    assert (await check.verify(mint.token("ann", roles=["a", 1]))).roles == {"a", "1"}
    without_roles = {"iss": "stoa", "aud": "stoa", "sub": "ann", "exp": time.time() + 60}
    assert (await check.verify(signed(mint, without_roles))).roles == frozenset()


def signed(mint: TokenMint, claims: dict[str, Any], **headers: Any) -> str:
    return jwt.encode(claims, mint._key, "ES256", {"kid": mint._kid, **headers})


GOOD = {"iss": "stoa", "aud": "stoa", "sub": "ann", "roles": ["customer"], "exp": time.time() + 600}


@pytest.mark.parametrize("missing", ["iss", "aud", "sub", "exp"])
async def test_a_token_without_one_of_its_claims_is_refused(missing: str) -> None:
    mint = TokenMint()
    assert await against(mint.jwks).verify(signed(mint, GOOD))
    with pytest.raises(TokenInvalid) as refused:
        await against(mint.jwks).verify(signed(mint, {k: v for k, v in GOOD.items() if k != missing}))
    assert refused.value.message == "the token is not valid"


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "others"},
        {"aud": "others"},
        {"sub": ""},
        {"sub": 7},
        {"roles": "staff"},
        {"roles": None},
        {"roles": {"staff": True}},
        {"exp": "tomorrow"},
        {"nbf": time.time() + 3600},
    ],
)
async def test_a_token_with_a_wrong_claim_is_refused(wrong: dict[str, Any]) -> None:
    mint = TokenMint()
    with pytest.raises(TokenInvalid) as refused:
        await against(mint.jwks).verify(signed(mint, GOOD | wrong))
    assert (refused.value.reason, refused.value.code) == ("TOKEN_INVALID", Code.UNAUTHENTICATED)


async def test_a_token_of_another_key_or_without_one_is_refused() -> None:
    mint, other = TokenMint(), TokenMint()
    check = against(mint.jwks)
    forged = jwt.encode(GOOD, other._key, "ES256", {"kid": mint._kid})
    unnamed = jwt.encode(GOOD, mint._key, "ES256")
    for token in (other.token("ann"), forged, unnamed, "", "nonsense", "a.b.c", jwt.encode(GOOD, "", "none")):
        with pytest.raises(TokenInvalid) as refused:
            await check.verify(token)
        assert refused.value.message == "the token is not valid"


async def test_tokens_signed_with_eddsa_are_good_too() -> None:
    key, kid = Ed25519PrivateKey.generate(), str(uuid4())
    jwk = jwt.get_algorithm_by_name("EdDSA").to_jwk(key.public_key(), as_dict=True)
    check = against({"keys": [{**jwk, "kid": kid, "use": "sig", "alg": "EdDSA"}]})
    assert (await check.verify(jwt.encode(GOOD, key, "EdDSA", {"kid": kid}))).subject == "ann"
    with pytest.raises(TokenInvalid):
        await check.verify(jwt.encode(GOOD, Ed25519PrivateKey.generate(), "EdDSA", {"kid": kid}))


async def test_clocks_may_differ_by_a_few_seconds() -> None:
    mint = TokenMint()
    check = against(mint.jwks)
    assert await check.verify(mint.token("ann", ttl=-3))
    with pytest.raises(TokenExpired) as refused:
        await check.verify(mint.token("ann", ttl=-6))
    assert (refused.value.reason, refused.value.code) == ("TOKEN_EXPIRED", Code.UNAUTHENTICATED)
    assert refused.value.message == "the token has expired"
    assert TokenMissing().reason == "TOKEN_MISSING"


async def test_a_token_that_was_good_is_not_decoded_again_until_it_expires(decodings: Decodings) -> None:
    mint = TokenMint()
    check = against(mint.jwks, leeway=1)
    token = mint.token("ann", ttl=0.5)
    claims = [await check.verify(token) for _ in range(3)]
    assert (decodings.count, len(set(claims))) == (1, 1)
    await asyncio.sleep(1.6)
    with pytest.raises(TokenExpired):
        await check.verify(token)
    assert decodings.count == 2


async def test_a_token_that_was_good_is_decoded_again_from_the_moment_on_when_it_expires(
    decodings: Decodings, monkeypatch: pytest.MonkeyPatch
) -> None:
    mint = TokenMint()
    check = against(mint.jwks)
    expires_at = int(time.time()) + 600
    token = mint.token("ann", exp=expires_at)
    await check.verify(token)
    for moment, count in ((expires_at + 4.9, 1), (expires_at + 5.0, 2)):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        await check.verify(token)
        assert decodings.count == count


async def test_a_token_that_was_decoded_again_is_remembered_as_the_latest(
    decodings: Decodings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoa_chassis.tokens._REMEMBERED", 2)
    mint, an_hour_on = TokenMint(), time.time() + 3600
    check = against(mint.jwks)
    ann, bob, cid = (mint.token(name) for name in ("ann", "bob", "cid"))
    for token in (ann, bob):
        await check.verify(token)
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: an_hour_on)
        await check.verify(ann)
    for token in (cid, ann):
        await check.verify(token)
    assert decodings.count == 4


async def test_a_bad_token_is_not_remembered(decodings: Decodings) -> None:
    mint = TokenMint()
    check = against(mint.jwks)
    for _ in range(2):
        with pytest.raises(TokenExpired):
            await check.verify(mint.token("ann", ttl=-60, jti="1", iat=0, exp=1))
    assert decodings.count == 2


async def test_only_so_many_tokens_are_remembered_the_latest(
    decodings: Decodings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoa_chassis.tokens._REMEMBERED", 3)
    mint = TokenMint()
    check = against(mint.jwks)
    tokens = [mint.token(f"user{n}") for n in range(4)]
    for token in tokens:
        await check.verify(token)
    for token in reversed(tokens[1:]):
        await check.verify(token)
    assert decodings.count == 4
    await check.verify(tokens[0])
    assert decodings.count == 5
