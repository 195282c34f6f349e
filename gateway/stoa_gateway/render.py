"""Renders Envoy's configuration: `envoy.yaml.j2` with a route for each public RPC of the contract."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from urllib.parse import urlsplit

import jinja2

from stoa_contracts.descriptors import read
from stoa_gateway.replies import replies
from stoa_gateway.routes import EdgeRoute, edge_routes, transcodable
from stoa_gateway.settings import EdgeSettings
from stoa_gateway.shapes import lua_tables

_HERE = Path(__file__).parent
# How long a service may take, in seconds. A write waits for others, a read does not.
_READ_TIMEOUT, _WRITE_TIMEOUT = 5, 15


def render(settings: EdgeSettings, folder: Path) -> dict[str, bytes]:
    """Return the files that Envoy needs in `folder`, by name; start it with `envoy -c <folder>/envoy.yaml`.

    They are the same for the same settings and contract. Raises ValueError if a service of the contract has
    no upstream.
    """
    routes = edge_routes(read(settings.descriptors))
    if missing := {each.rpc.service for each in routes} - settings.upstreams.keys():
        raise ValueError(f"no upstream for {', '.join(sorted(missing))}")
    pages = _pages(settings)
    services = sorted({each.name.split("/")[0]: each.rpc.service for each in routes}.items())
    itself = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host
    jwks_url = settings.jwks_url or f"http://{itself}:{settings.port}/api/v1/auth/jwks"
    jwks = urlsplit(jwks_url)
    config = _template("envoy.yaml.j2").render(
        edge=settings,
        folder=folder,
        served=_served(routes),
        pages=pages,
        allowed=_allowed_methods(routes, pages),
        services=services,
        upstreams={name: settings.upstreams[name] for name in sorted({service for _, service in services})},
        jwks_url=jwks_url,
        jwks=jwks,
        jwks_address=f"{jwks.hostname}:{jwks.port or (443 if jwks.scheme == 'https' else 80)}",
        replies=replies(settings.max_body_bytes),
        check=lua_tables(routes) + "\n\n" + (_HERE / "check.lua").read_text(),
        timeout=lambda each: settings.timeouts.get(
            each.name, _READ_TIMEOUT if each.route.verb == "GET" else _WRITE_TIMEOUT
        ),
    )
    files = {"envoy.yaml": config.encode(), "stoa.binpb": transcodable(settings.descriptors)}
    if settings.tls_dir:
        # Files of their own, since Envoy reads them again when the certificates rotate.
        for name in ("certificate.yaml", "authority.yaml"):
            files[name] = _template(f"{name}.j2").render(edge=settings).encode()
    return files


def write(settings: EdgeSettings, folder: Path) -> Path:
    """Write the files into a folder and return the one to start Envoy with."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in render(settings, folder).items():
        (folder / name).write_bytes(content)
    return folder / "envoy.yaml"


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = lambda value: json.dumps(str(value))
    environment.filters["host"] = lambda address: address.rpartition(":")[0]
    environment.filters["port"] = lambda address: address.rpartition(":")[2]
    return environment.get_template(name)


def _served(routes: list[EdgeRoute]) -> list[tuple[EdgeRoute, str]]:
    """The routes with the methods that lead to them: what can be read answers HEAD too, after all others."""
    return [(each, each.route.verb) for each in routes] + [
        (each, "HEAD") for each in routes if each.route.verb == "GET"
    ]


def _pages(settings: EdgeSettings) -> list[dict[str, str]]:
    """What the edge answers by itself."""
    links = {"name": "stoa", "products": "/api/v1/products", "categories": "/api/v1/categories"}
    pages = [_page("/healthz", "application/json", inline_string=json.dumps({"status": "ok"}))]
    if settings.openapi:
        links["openapi"] = "/openapi.yaml"
        pages.append(_page("/openapi.yaml", "application/yaml", filename=str(settings.openapi)))
    return [*pages, _page("/", "application/json", inline_string=json.dumps(links))]


def _page(path: str, content_type: str, **body: str) -> dict[str, str]:
    return {"path": path, "type": content_type, "body": json.dumps(body)}


def _allowed_methods(routes: list[EdgeRoute], pages: list[dict[str, str]]) -> list[tuple[str, str]]:
    """The paths, as patterns, and the methods that each has: for answers that a method is not allowed."""
    by_path = sorted(routes, key=lambda each: (each.route.path.count("{"), each.regex))
    return [(re.escape(page["path"]), _methods(["GET"])) for page in pages] + [
        (regex, _methods(each.route.verb for each in group))
        for regex, group in groupby(by_path, key=lambda each: each.regex)
    ]


def _methods(verbs: Iterable[str]) -> str:
    """What a header says of a path that has these verbs: the edge knows HEAD and OPTIONS by itself."""
    known = {*verbs, "OPTIONS"}
    return ", ".join(sorted(known | {"HEAD"} if "GET" in known else known))
