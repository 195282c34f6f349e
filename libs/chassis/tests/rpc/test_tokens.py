"""Where signing keys come from, and what happens when they can't be had."""

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from stoa_chassis.errors import Unauthenticated, Unavailable
from stoa_chassis.testing import TokenMint
from stoa_chassis.tokens import RemoteKeys, TokenVerifier


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
