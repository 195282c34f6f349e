"""Clients of MSK: what a broker gets to see, and what they are told."""

import base64
import hashlib
import hmac
import time
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import confluent_kafka
import pytest
from botocore.credentials import ReadOnlyCredentials

from stoa_chassis.kafka import msk
from stoa_chassis.kafka.connection import connection

BROKERS = ",".join(f"b-{number}.shop.abc123.c2.kafka.us-east-1.amazonaws.com:9098" for number in (1, 2))
KEY, SECRET, SESSION = "AKIAEXAMPLE", "secret/of+a+role", "a session"


def credentials() -> ReadOnlyCredentials:
    return ReadOnlyCredentials(KEY, SECRET, SESSION)


def shown(token: str) -> tuple[str, dict[str, str]]:
    """What a token says: the address, and the query."""
    address = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    return f"{address.scheme}://{address.netloc}{address.path}", dict(parse_qsl(address.query))


def signature(query: dict[str, str], region: str) -> str:
    """What the signature must be, by AWS' description of Signature Version 4, written out."""
    unsigned = sorted(
        (name, value) for name, value in query.items() if name not in ("X-Amz-Signature", "User-Agent")
    )
    canonical = "\n".join([
        "GET", "/", urlencode(unsigned, quote_via=quote, safe="-_.~"),
        f"host:kafka.{region}.amazonaws.com", "", "host",
        hashlib.sha256(b"").hexdigest(),
    ])  # fmt: skip
    date = query["X-Amz-Date"][:8]
    scope = f"{date}/{region}/kafka-cluster/aws4_request"
    text = "\n".join(
        ["AWS4-HMAC-SHA256", query["X-Amz-Date"], scope, hashlib.sha256(canonical.encode()).hexdigest()]
    )
    key = f"AWS4{SECRET}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


def test_a_token_is_a_signed_request_to_connect() -> None:
    token, good_until = msk.by_role(BROKERS, credentials)["oauth_cb"]("")
    address, query = shown(token)
    assert address == "https://kafka.us-east-1.amazonaws.com/"
    assert query["Action"] == "kafka-cluster:Connect"
    assert query["X-Amz-Security-Token"] == SESSION
    assert query["X-Amz-Expires"] == "900"
    assert query["X-Amz-Signature"] == signature(query, "us-east-1")
    assert "=" not in token
    assert good_until == pytest.approx(time.time() + 900, abs=5)


def test_a_client_asks_for_its_token_as_it_is_made() -> None:
    asked: list[bool] = []

    def counted() -> ReadOnlyCredentials:
        asked.append(True)
        return credentials()

    servers = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    confluent_kafka.Producer(msk.by_role(BROKERS, counted) | servers)
    assert asked


def test_brokers_of_msk_are_told_apart_by_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    config = connection(f"msk-iam://{BROKERS}")
    assert config["bootstrap.servers"] == BROKERS
    assert config["security.protocol"] == "SASL_SSL"
    assert "security.protocol" not in connection("127.0.0.1:9092")


@pytest.mark.parametrize("servers", ["kafka:9092", "b-1.shop.kafka", ""])
def test_other_brokers_are_refused(servers: str) -> None:
    with pytest.raises(ValueError, match="broker of MSK"):
        msk.by_role(servers, credentials)


def test_a_process_without_a_role_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ValueError, match="no role"):
        msk.by_role(BROKERS)
