"""The Envoy edge: its configuration, rendered from the contracts.

    config = write(EdgeSettings(upstreams={"order": "127.0.0.1:18104", …}, tls_dir=…), folder)
    # then: envoy -c <config>

What a request passes, in this order (envoy.yaml.j2): identity headers that only we may set are dropped, and
the request gets its id; what the access log tells of it is noted; CORS; the body's size; the limit by
address; the token; the limit by user; `check.lua`, which drops what no service reads and compares the request
with its shape in the contract (shapes.py); the transcoder; the service. Each public RPC has a route of its
own, with its timeout, its retries and what it asks of a token, and one more for HEAD if it is a GET.
Whatever is answered on the way is a google.rpc.Status (replies.py).
"""

from stoa_gateway.render import render, write
from stoa_gateway.settings import EdgeSettings, Limit, RateLimits

__all__ = ["EdgeSettings", "Limit", "RateLimits", "render", "write"]
