"""Where signing keys come from, what happens when they can't be had, and which tokens are good."""

import asyncio
import http.server
import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stoa_chassis import tokens
from stoa_chassis.errors import Code, Unauthenticated, Unavailable
from stoa_chassis.testing import TokenMint, eventually
from stoa_chassis.tokens import Claims, KeysUnavailable, RemoteKeys, StaticKeys, TokenVerifier


class KeyServer:
    """An issuer's JWKS endpoint."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.fetches = 0
        self.down = False
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.fetches += 1
                self.send_response(503 if owner.down else 200)
                self.end_headers()
                self.wfile.write(json.dumps({"keys": owner.keys}).encode())

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
    check = verifier(issuer, pause=0)
    with pytest.raises(Unavailable) as refused:
        await check.verify(mint.token("ann"))
    assert refused.value.reason == "KEYS_UNAVAILABLE"
    assert refused.value.retry_after == timedelta(0)
    issuer.down = False
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


async def test_keys_of_other_kinds_are_passed_over(issuer: KeyServer) -> None:
    mint = TokenMint()
    issuer.publish(mint)
    issuer.keys = [
        {"kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB", "use": "sig", "alg": "RS256"},
        {"kty": "EC", "kid": "odd"},
        {"kty": "oct", "kid": "secret", "k": "c2VjcmV0", "alg": "HS256"},
        *issuer.keys,
    ]
    assert (await verifier(issuer).verify(mint.token("ann"))).subject == "ann"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the key set, which the test moves on by adding to `ahead` seconds."""
    clock = SimpleNamespace(ahead=0.0, time=time.time)
    clock.monotonic = lambda: 1000.0 + clock.ahead
    monkeypatch.setattr(tokens, "time", clock)
    return clock


async def test_a_key_set_is_fetched_once_until_it_is_too_old(
    issuer: KeyServer, clock: SimpleNamespace
) -> None:
    mint = TokenMint()
    issuer.publish(mint)
    check = verifier(issuer, max_age=300, pause=0)
    for clock.ahead in (0.0, 150.0, 300.0):
        await check.verify(mint.token(f"user at {clock.ahead}"))
        await asyncio.sleep(0.05)
    assert issuer.fetches == 1
    clock.ahead = 301.0
    await check.verify(mint.token("ann"))
    await eventually(lambda: issuer.fetches == 2)


async def test_keys_that_are_a_little_too_old_are_used_while_the_set_is_fetched_and_then_no_more(
    issuer: KeyServer, clock: SimpleNamespace
) -> None:
    withdrawn = TokenMint()
    issuer.publish(withdrawn)
    check = verifier(issuer, max_age=300, pause=0)
    await check.verify(withdrawn.token("ann"))
    issuer.publish(TokenMint())
    clock.ahead = 600.0
    await check.verify(withdrawn.token("bob"))
    await eventually(lambda: issuer.fetches == 2)
    with pytest.raises(Unauthenticated):
        await check.verify(withdrawn.token("carl"))


async def test_keys_that_are_far_too_old_are_not_used_before_the_set_was_fetched(
    issuer: KeyServer, clock: SimpleNamespace
) -> None:
    withdrawn = TokenMint()
    issuer.publish(withdrawn)
    check = verifier(issuer, max_age=300, pause=0)
    await check.verify(withdrawn.token("ann"))
    issuer.publish(TokenMint())
    clock.ahead = 601.0
    with pytest.raises(Unauthenticated):
        await check.verify(withdrawn.token("bob"))


async def test_an_issuer_that_is_down_is_asked_again_after_a_pause(
    issuer: KeyServer, clock: SimpleNamespace
) -> None:
    mint = TokenMint()
    issuer.publish(mint)
    issuer.down = True
    check = verifier(issuer, pause=5)
    for clock.ahead, fetches in ((0.0, 1), (1.0, 1), (5.0, 1), (5.1, 2)):
        with pytest.raises(KeysUnavailable) as refused:
            await check.verify(mint.token("ann"))
        assert issuer.fetches == fetches
        assert refused.value.retry_after == timedelta(seconds=5)
    issuer.down = False
    clock.ahead = 11.0
    assert (await check.verify(mint.token("ann"))).subject == "ann"


async def test_unless_told_otherwise_a_set_is_good_for_five_minutes_and_asked_for_every_five_seconds(
    issuer: KeyServer, clock: SimpleNamespace
) -> None:
    mint = TokenMint()
    issuer.publish(mint)
    check = verifier(issuer)
    for clock.ahead in (0.0, 5.0, 300.0):
        await check.verify(mint.token(f"user at {clock.ahead}"))
    with pytest.raises(Unauthenticated):
        await check.verify(TokenMint().token("ann"))  # of an unknown key, so the set is fetched
    assert issuer.fetches == 2
    clock.ahead = 305.0
    with pytest.raises(Unauthenticated):
        await check.verify(TokenMint().token("ann"))
    assert issuer.fetches == 2


async def test_a_caller_that_gives_up_does_not_stop_the_fetch_for_the_others(issuer: KeyServer) -> None:
    mint = TokenMint()
    issuer.publish(mint)
    check = verifier(issuer, pause=60)
    hasty = asyncio.create_task(check.verify(mint.token("ann")))
    patient = asyncio.create_task(check.verify(mint.token("bob")))
    await asyncio.sleep(0)
    hasty.cancel()
    assert (await patient).subject == "bob"
    assert issuer.fetches == 1


# ----------------------------------------------------------------------------------------------------- tokens


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens whose signatures were checked, in turn."""
    seen: list[str] = []
    decode = jwt.decode

    def note(token: str, *rest: Any, **options: Any) -> Any:
        seen.append(token)
        return decode(token, *rest, **options)

    monkeypatch.setattr(jwt, "decode", note)
    return seen


def static(*mints: TokenMint, **options: float) -> TokenVerifier:
    keys = [key for mint in mints for key in mint.jwks["keys"]]
    return TokenVerifier(StaticKeys({"keys": keys}), "stoa", "stoa", **options)


async def test_a_token_says_who_its_bearer_is_and_what_she_may() -> None:
    mint = TokenMint()
    check = static(mint)
    assert await check.verify(mint.token("ann")) == Claims("ann", frozenset({"customer"}))
    assert await check.verify(mint.token("bob", staff=True)) == Claims(
        "bob", frozenset({"customer", "staff"})
    )
    without = mint.token("carl", roles=[])
    assert await check.verify(without) == Claims("carl", frozenset())


async def test_a_signature_is_checked_once_while_the_token_is_good(checked: list[str]) -> None:
    mint = TokenMint()
    check, token = static(mint), mint.token("ann")
    assert [(await check.verify(token)).subject for _ in range(3)] == ["ann"] * 3
    assert checked == [token]


async def test_the_tokens_that_were_seen_last_are_remembered(
    checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_REMEMBERED", 2)
    mint = TokenMint()
    check = static(mint)
    one, two, three = (mint.token(name) for name in ("ann", "bob", "carl"))
    for token in (one, two, one, two, three, two, three, one):
        await check.verify(token)
    assert checked == [one, two, three, one]
    assert len(check._good) == tokens._REMEMBERED


async def test_a_remembered_token_is_forgotten_when_it_expires_or_its_key_is_withdrawn(
    checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mint, keys = TokenMint(), StaticKeys({})
    check = TokenVerifier(keys, "stoa", "stoa", leeway=3)
    keys._keys = StaticKeys(mint.jwks)._keys
    token = mint.token("ann", exp=int(time.time()) + 100)
    await check.verify(token)
    expiry = jwt.decode(token, options={"verify_signature": False})["exp"]
    checked.clear()
    now = SimpleNamespace(time=lambda: expiry + 2.9)
    monkeypatch.setattr(tokens, "time", now)
    await check.verify(token)
    assert checked == []
    now.time = lambda: expiry + 3
    await check.verify(token)  # checked anew, by a clock that has not moved
    assert checked == [token]
    keys._keys = {}
    with pytest.raises(Unauthenticated):
        await check.verify(token)
    assert token not in check._good


@pytest.mark.parametrize("claim", ["exp", "iss", "aud", "sub"])
async def test_a_token_without_a_claim_that_matters_is_refused(claim: str) -> None:
    mint = TokenMint()
    claims = jwt.decode(mint.token("ann"), options={"verify_signature": False})
    del claims[claim]
    token = jwt.encode(claims, mint._key, "ES256", {"kid": mint._kid})
    with pytest.raises(Unauthenticated) as refused:
        await static(mint).verify(token)
    assert (refused.value.code, refused.value.reason) == (Code.UNAUTHENTICATED, "TOKEN_INVALID")


@pytest.mark.parametrize("said", ["staff", 7, {"staff": True}])
async def test_roles_that_are_no_list_are_refused(said: object) -> None:
    mint = TokenMint()
    with pytest.raises(Unauthenticated, match="not valid"):
        await static(mint).verify(mint.token("ann", roles=said))
    with pytest.raises(Unauthenticated, match="not valid"):
        await static(mint).verify(mint.token(""))


async def test_clocks_may_differ_by_five_seconds_unless_told_otherwise() -> None:
    mint = TokenMint()
    just, long_ago = mint.token("ann", ttl=-4), mint.token("ann", ttl=-7)
    assert await static(mint).verify(just)
    for check, token in ((static(mint), long_ago), (static(mint, leeway=1), just)):
        with pytest.raises(Unauthenticated) as refused:
            await check.verify(token)
        assert refused.value.reason == "TOKEN_EXPIRED"


async def test_a_token_may_be_signed_with_eddsa() -> None:
    key = Ed25519PrivateKey.generate()
    entry = jwt.get_algorithm_by_name("EdDSA").to_jwk(key.public_key(), as_dict=True)
    check = TokenVerifier(StaticKeys({"keys": [{**entry, "kid": "ed", "use": "sig"}]}), "stoa", "stoa")
    claims = {"iss": "stoa", "aud": "stoa", "sub": "ann", "exp": time.time() + 60}
    token = jwt.encode(claims, key, "EdDSA", {"kid": "ed"})
    assert await check.verify(token) == Claims("ann", frozenset())
    forged = jwt.encode(claims, Ed25519PrivateKey.generate(), "EdDSA", {"kid": "ed"})
    with pytest.raises(Unauthenticated):
        await check.verify(forged)


@pytest.mark.parametrize(
    ("change", "usable"),
    [({"use": "sig"}, True), ({"use": None}, True), ({"use": "enc"}, False), ({"kid": None}, False)],
)
async def test_only_a_key_for_signatures_with_an_id_is_used(change: dict[str, Any], usable: bool) -> None:
    mint = TokenMint()
    (entry,) = mint.jwks["keys"]
    entry = {name: value for name, value in {**entry, **change}.items() if value is not None}
    check = TokenVerifier(StaticKeys({"keys": [entry]}), "stoa", "stoa")
    if usable:
        assert (await check.verify(mint.token("ann"))).subject == "ann"
    else:
        with pytest.raises(Unauthenticated):
            await check.verify(mint.token("ann"))


async def test_a_key_of_another_algorithm_is_not_used_even_if_the_token_agrees() -> None:
    secret = {"kty": "oct", "kid": "s", "k": "c2VjcmV0IG9mIDMyIGJ5dGVzIG9yIG1vcmUgISEhIQ", "alg": "HS256"}
    claims = {"iss": "stoa", "aud": "stoa", "sub": "ann", "exp": time.time() + 60}
    token = jwt.encode(claims, "secret of 32 bytes or more !!!!!", "HS256", {"kid": "s"})
    keys = StaticKeys({"keys": [secret]})
    assert await keys.find("s") is None
    with pytest.raises(Unauthenticated):
        await TokenVerifier(keys, "stoa", "stoa").verify(token)


async def test_a_set_that_is_no_key_set_has_no_keys(issuer: KeyServer) -> None:
    assert await StaticKeys({}).find("any") is None
    issuer.keys = ["nonsense"]
    with pytest.raises(KeysUnavailable):
        await verifier(issuer).verify(TokenMint().token("ann"))
