"""Amazon MSK: brokers that know a client by its IAM role, over TLS.

The token is a signed request (Signature Version 4) that the broker shows to IAM; what it then
lets the client do follows from the policy of its role. Its form is that of AWS' own signers, which bring a
second client of AWS (https://github.com/aws/aws-msk-iam-sasl-signer-python).
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from functools import partial
from typing import Any

SCHEME = "msk-iam://"
"""What a bootstrap begins with if its brokers want this."""

_LIFE_SECONDS = 900
_WHO = "stoa"

Credentials = Any
"""botocore's, which has no types."""


def by_role(servers: str, credentials: Callable[[], Credentials] | None = None) -> dict[str, Any]:
    """Return what a client of these brokers is told: where they are, and its token.

    The role is that of the process, as all clients of AWS find it, unless `credentials` says otherwise.
    Raises ValueError for servers that are not named as MSK's are.
    """
    signed = partial(_token, _region(servers), credentials or _of_this_process())
    return {
        "bootstrap.servers": servers,
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "OAUTHBEARER",
        "oauth_cb": lambda _: signed(),
    }


def _region(servers: str) -> str:
    """b-1.name.abc123.c2.kafka.us-east-1.amazonaws.com:9098 → us-east-1."""
    host = servers.split(",")[0].rpartition(":")[0]
    labels = host.split(".")
    if "kafka" not in labels[:-1]:
        raise ValueError(f"{host or servers} is not the name of a broker of MSK with its port")
    return labels[labels.index("kafka") + 1]


def _of_this_process() -> Callable[[], Credentials]:
    # Imported where it is used: a shop elsewhere needs none of it in its memory.
    from botocore.session import Session

    found = Session().get_credentials()
    if found is None:
        raise ValueError("this process has no role at AWS, by which the brokers would know it")
    return lambda: found.get_frozen_credentials()  # renewed when they are about to end


def _token(region: str, credentials: Callable[[], Credentials]) -> tuple[str, float]:
    """A token, and until when it is good, in seconds since the epoch."""
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    request = AWSRequest(
        "GET", f"https://kafka.{region}.amazonaws.com/", params={"Action": "kafka-cluster:Connect"}
    )
    signed_at = time.time()
    SigV4QueryAuth(credentials(), "kafka-cluster", region, expires=_LIFE_SECONDS).add_auth(request)
    url = f"{request.url}&User-Agent={_WHO}"
    return base64.urlsafe_b64encode(url.encode()).decode().rstrip("="), signed_at + _LIFE_SECONDS
