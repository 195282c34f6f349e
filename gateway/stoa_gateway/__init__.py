"""The Envoy edge: its configuration, rendered from the contracts.

config = write(EdgeSettings(upstreams={"order": "127.0.0.1:18104", …}, tls_dir=…), folder)
# then: envoy -c <config>
"""

from stoa_gateway.render import render, write
from stoa_gateway.settings import EdgeSettings, Limit, RateLimits

__all__ = ["EdgeSettings", "Limit", "RateLimits", "render", "write"]
