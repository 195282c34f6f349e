"""Amazon MSK: brokers that know a client by its IAM role, over TLS.

The token is a request to connect, signed by the role's keys (Signature Version 4), which the broker shows to
IAM; what IAM then lets the client do follows from the role's policy. A pod gets a role by a token of its
ServiceAccount, which STS takes for keys (IAM roles for service accounts). Both are a page of AWS' manual; its
own client would be a quarter more of each image, for these two requests.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen
from xml.etree import ElementTree

SCHEME = "msk-iam://"
"""What a bootstrap begins with if its brokers want this."""

_LIFE_SECONDS = 900
_EARLY_SECONDS = 300  # keys that end sooner are not signed with
_TIMEOUT_SECONDS = 5.0
_STS = "{https://sts.amazonaws.com/doc/2011-06-15/}"
_SERVICE = "kafka-cluster"


class NoRole(ValueError):
    """This process has no role at AWS, by which brokers would know it."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What a role signs with, and until when, in seconds since the epoch."""

    id: str
    secret: str
    session: str
    end: float


def by_role(servers: str, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return what a client of these brokers is told: where they are, and how it gets its tokens.

    Raises ValueError for servers that are not named as MSK's are, and NoRole.
    """
    region = _region(servers)
    role = _Role(region, environment)
    return {
        "bootstrap.servers": servers,
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "OAUTHBEARER",
        "oauth_cb": lambda _: token(region, role.keys(), datetime.now(UTC)),
    }


def token(region: str, keys: Keys, now: datetime) -> tuple[str, float]:
    """Return what a client shows, and until when it is good, in seconds since the epoch."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/{_SERVICE}/aws4_request"
    host = f"kafka.{region}.amazonaws.com"
    asked = {
        "Action": "kafka-cluster:Connect",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{keys.id}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(_LIFE_SECONDS),
        "X-Amz-SignedHeaders": "host",
    }
    if keys.session:
        asked["X-Amz-Security-Token"] = keys.session
    query = urlencode(sorted(asked.items()), quote_via=quote, safe="-_.~")
    request = f"GET\n/\n{query}\nhost:{host}\n\nhost\n{_sha256('')}"
    key = f"AWS4{keys.secret}".encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{_sha256(request)}"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    url = f"https://{host}/?{query}&X-Amz-Signature={key.hex()}&User-Agent=stoa"
    return base64.urlsafe_b64encode(url.encode()).decode().rstrip("="), now.timestamp() + _LIFE_SECONDS


class _Role:
    """The role of this process, whose keys are asked for again before they end."""

    def __init__(self, region: str, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._endpoint = environment.get("AWS_ENDPOINT_URL_STS", f"https://sts.{region}.amazonaws.com")
        self._keys: Keys | None = None
        if not {"AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"} & environment.keys():
            raise NoRole("this process has no role at AWS: its ServiceAccount names none")

    def keys(self) -> Keys:
        """Raises OSError if STS can't be reached, or refuses."""
        if self._keys is None or self._keys.end < time.time() + _EARLY_SECONDS:
            self._keys = self._given() or self._asked_for()
        return self._keys

    def _given(self) -> Keys | None:
        found = self._environment
        if "AWS_ACCESS_KEY_ID" not in found:
            return None
        session = found.get("AWS_SESSION_TOKEN", "")
        return Keys(found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"], session, float("inf"))

    def _asked_for(self) -> Keys:
        found = self._environment
        wanted = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": found["AWS_ROLE_ARN"],
            "RoleSessionName": found.get("AWS_ROLE_SESSION_NAME", "stoa"),
            "WebIdentityToken": Path(found["AWS_WEB_IDENTITY_TOKEN_FILE"]).read_text().strip(),
        }
        request = Request(self._endpoint, urlencode(wanted).encode())
        with urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            given = ElementTree.fromstring(answer.read()).find(f".//{_STS}Credentials")
        if given is None:
            raise OSError("STS has answered without keys")
        told = {each.tag.removeprefix(_STS): each.text or "" for each in given}
        end = datetime.fromisoformat(told["Expiration"]).timestamp()
        return Keys(told["AccessKeyId"], told["SecretAccessKey"], told["SessionToken"], end)


def _region(servers: str) -> str:
    """b-1.name.abc123.c2.kafka.us-east-1.amazonaws.com:9098 → us-east-1."""
    host = servers.split(",")[0].rpartition(":")[0]
    labels = host.split(".")
    if "kafka" not in labels[:-1]:
        raise ValueError(f"{host or servers} is not the name of a broker of MSK with its port")
    return labels[labels.index("kafka") + 1]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
