"""`python -m stoa_gateway FOLDER --upstream order=order:9000 …`: write what Envoy is started with.

With `--start` it then becomes Envoy: so the image of the edge runs. The local stack calls
`stoa_gateway.write` itself.
"""

import argparse
import os
import sys
from pathlib import Path

from stoa_gateway import envoy
from stoa_gateway.render import write
from stoa_gateway.settings import EdgeSettings, RateLimits

_DEFAULTS = EdgeSettings(upstreams={})
_PLAIN = {
    "host": "address to listen on",
    "port": "port to listen on",
    "admin_port": "port of Envoy's admin interface",
    "jwks_url": "the issuer's keys; empty: those of the user service",
    "jwt_issuer": "who signs good tokens",
    "jwt_audience": "the audience of valid tokens",
    "spiffe_prefix": "what the identities of services begin with",
    "trusted_hops": "how many proxies in front may say who the client is",
    "access_log": "a file; empty: standard output",
    "trace_endpoint": "host:port of an OTLP collector; empty: no spans",
}


def main(arguments: list[str]) -> None:
    """Write the files; start Envoy in this process's place, or say which file it is started with."""
    options = _parser().parse_args(arguments)
    settings = EdgeSettings(
        upstreams=dict(pair.split("=", 1) for pair in options.upstream),
        tls_dir=options.tls_dir,
        sidecar=options.sidecar,
        rate_limits=RateLimits() if options.rate_limits else None,
        cors_origins=tuple(options.cors_origin),
        **{name: getattr(options, name) for name in _PLAIN},
    )
    try:
        config = write(settings, options.folder)
    except ValueError as error:
        sys.exit(str(error))
    if options.start:
        starting = envoy.command(config, concurrency=options.concurrency)
        os.execv(starting[0], starting)
    sys.stdout.write(f"{config}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stoa_gateway",
        description="Write Envoy's configuration for the contract's public RPCs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument(
        "--upstream",
        action="append",
        default=[],
        metavar="SERVICE=HOST:PORT",
        help="where a service is; once for each",
    )
    parser.add_argument("--tls-dir", type=Path, help="folder of the edge's cert.pem, key.pem and ca.pem")
    parser.add_argument(
        "--sidecar",
        action=argparse.BooleanOptionalAction,
        default=_DEFAULTS.sidecar,
        help="a mesh's sidecar does mTLS and watches the instances of each service",
    )
    parser.add_argument("--cors-origin", action="append", default=[], help="web origin that may call")
    parser.add_argument(
        "--rate-limits", action=argparse.BooleanOptionalAction, default=True, help="shed load"
    )
    parser.add_argument("--start", action="store_true", help="start Envoy with it")
    parser.add_argument("--concurrency", type=int, default=2, help="threads of the Envoy that is started")
    for name, words in _PLAIN.items():
        default = getattr(_DEFAULTS, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=words)
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
