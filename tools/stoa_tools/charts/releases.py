"""What is installed where: each chart with the values of each environment, and some that none has but may."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stoa_stack.instance import CHECKOUT
from stoa_tools.charts import helm

ENVIRONMENTS = ("test", "staging", "production")
_SOURCES = ("charts", "gen/charts", "mesh/istio")
ENVIRONMENT_FILES = Path("charts/environments")
SHOP = Path("gen/charts/stoa")
INFRASTRUCTURE = Path("charts/infrastructure")
DECLARATIONS = Path("gen/charts/infrastructure.yaml")

# Suites of helm-unittest, by the chart that they run on: those of the umbrella's parts run on the umbrella.
SUITES: Mapping[Path, Sequence[str]] = {
    SHOP: [
        *(f"../../../charts/{part}/tests/*_test.yaml" for part in ("stoa-service", "edge", "ops")),
        "../../../mesh/istio/tests/*_test.yaml",
    ],
    INFRASTRUCTURE: ["tests/*_test.yaml"],
}


_NO_MESH = {
    "mesh": {"enabled": False},
    "certificates": {"issuer": {"kind": "Issuer", "name": "stoa"}},
}
_NGINX = {
    "kind": "nginx",
    "hosts": ["shop.stoa.example"],
    "principals": ["cluster.local/ns/ingress-nginx/sa/ingress-nginx"],
    "nginx": {"email": "operators@stoa.example"},
}
_POSTGRES = {
    "replica": "postgresql://{user}:{password}@postgres-ro.stoa-infrastructure:5432/{database}",
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/pg"}},
    "backup": {"endpoint": "https://objects.stoa.example", "secret": "backups"},
}


@dataclass(frozen=True)
class Release:
    """A chart with files of values, and some more; paths are relative to the checkout."""

    name: str
    chart: Path
    files: tuple[Path, ...]
    namespace: str = "stoa"
    values: Mapping[str, Any] = field(default_factory=dict)


def releases() -> list[Release]:
    """All that is rendered."""
    shops = [Release(f"shop in {name}", SHOP, (ENVIRONMENT_FILES / f"{name}.yaml",)) for name in ENVIRONMENTS]
    production = shops[-1]
    options: Mapping[str, Mapping[str, Any]] = {
        "without a mesh": {"global": _NO_MESH},
        "without a mesh, behind NGINX": {"global": {**_NO_MESH, "ingress": _NGINX}},
        "behind NGINX": {"global": {"ingress": _NGINX}},
        "behind NGINX, with a certificate for tests": {
            "global": {"ingress": {**_NGINX, "nginx": {"issuer": "selfsigned"}}}
        },
        "behind a gateway of the Gateway API": {"global": {"ingress": {"kind": "gateway-api"}}},
        "without a canary": {"catalog": {"rollout": {"enabled": False}}},
    }
    return [
        *shops,
        *(Release(f"shop {name}", SHOP, production.files, values=values) for name, values in options.items()),
        *_infrastructures(),
    ]


def _infrastructures() -> Iterator[Release]:
    """What the shop has around it."""
    test = Release("infrastructure in test", INFRASTRUCTURE, (DECLARATIONS,), "stoa-infrastructure")
    yield test
    yield replace(test, name="infrastructure without a mesh", values={"mesh": {"enabled": False}})
    for name in ("staging", "production"):
        files = (DECLARATIONS, ENVIRONMENT_FILES / "infrastructure" / f"{name}.yaml")
        yield replace(test, name=f"infrastructure in {name}", files=files)
    values = {"operators": {"postgres": _POSTGRES}}
    yield replace(test, name="infrastructure with a replica, backups by keys", files=files, values=values)


@contextmanager
def packed() -> Iterator[Path]:
    """A copy of all charts in which the umbrella has its parts: Helm packs them into the chart itself."""
    with TemporaryDirectory() as folder:
        copy = Path(folder)
        for source in _SOURCES:
            shutil.copytree(CHECKOUT / source, copy / source, dirs_exist_ok=True)
        helm.pack(copy / SHOP)
        yield copy
