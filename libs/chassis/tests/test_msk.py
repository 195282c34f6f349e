"""Clients of MSK: what a broker gets to see, by AWS' own signer, and where the keys come from."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import confluent_kafka
import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from moto.server import ThreadedMotoServer

from stoa_chassis.kafka import msk
from stoa_chassis.kafka.connection import connection

BROKERS = ",".join(f"b-{number}.shop.abc123.c2.kafka.us-east-1.amazonaws.com:9098" for number in (1, 2))
KEYS = msk.Keys("AKIAEXAMPLE", "secret/of+a+role", "a/session+of=it", float("inf"))
GIVEN = {"AWS_ACCESS_KEY_ID": KEYS.id, "AWS_SECRET_ACCESS_KEY": KEYS.secret}
NOW = datetime(2026, 11, 26, 12, 30, tzinfo=UTC)


def shown(token: str) -> tuple[str, dict[str, str]]:
    """What a token says: the address, and the query."""
    address = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    return f"{address.scheme}://{address.netloc}{address.path}", dict(parse_qsl(address.query))


@pytest.mark.parametrize("session", ["", KEYS.session])
def test_a_token_is_what_the_client_of_aws_signs(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = msk.Keys(KEYS.id, KEYS.secret, session, KEYS.end)
    token, good_until = msk.token("us-east-1", keys, NOW)
    address, query = shown(token)
    assert query.pop("User-Agent")
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_: NOW.replace(tzinfo=None))
    request = AWSRequest("GET", address, params={"Action": "kafka-cluster:Connect"})
    credentials = ReadOnlyCredentials(keys.id, keys.secret, session or None)
    SigV4QueryAuth(credentials, "kafka-cluster", "us-east-1", expires=900).add_auth(request)
    assert query == dict(parse_qsl(urlsplit(request.url).query))
    assert good_until == NOW.timestamp() + 900
    assert "=" not in token


def test_a_client_asks_for_its_token_as_it_is_made() -> None:
    asked: list[bool] = []
    config = msk.by_role(BROKERS, GIVEN)
    callback = config["oauth_cb"]

    def counted(text: str) -> tuple[str, float]:
        asked.append(True)
        result: tuple[str, float] = callback(text)
        return result

    confluent_kafka.Producer(
        config | {"oauth_cb": counted, "bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    )
    assert asked


@pytest.fixture
def sts() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_a_pod_gets_keys_for_the_token_of_its_service_account(
    sts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(msk, "_TIMEOUT_SECONDS", 60)  # moto learns how to be STS when it is first asked
    (tmp_path / "token").write_text("a token of the cluster's\n")
    pod = {
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/stoa-production-order",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_ENDPOINT_URL_STS": sts,
    }
    callback = msk.by_role(BROKERS, pod)["oauth_cb"]
    _, first = shown(callback("")[0])
    _, second = shown(callback("")[0])
    assert first["X-Amz-Security-Token"]
    assert first["X-Amz-Credential"] == second["X-Amz-Credential"], "keys that are good are kept"


def test_sts_that_refuses_is_a_failure_of_the_token_alone(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a token")
    pod = {
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/none",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1",
    }
    callback = msk.by_role(BROKERS, pod)["oauth_cb"]
    with pytest.raises(OSError, match="refused"):
        callback("")


def test_brokers_of_msk_are_told_apart_by_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    config = connection(f"msk-iam://{BROKERS}")
    assert config["bootstrap.servers"] == BROKERS
    assert config["security.protocol"] == "SASL_SSL"
    assert "security.protocol" not in connection("127.0.0.1:9092")


@pytest.mark.parametrize("servers", ["kafka:9092", "b-1.shop.kafka", ""])
def test_other_brokers_are_refused(servers: str) -> None:
    with pytest.raises(ValueError, match="broker of MSK"):
        msk.by_role(servers, GIVEN)


def test_a_process_without_a_role_is_told_so() -> None:
    with pytest.raises(msk.NoRole):
        msk.by_role(BROKERS, {})
