"""Pods that call with the identity of a ServiceAccount, as a process that somebody took over would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

from stoa_cluster.kubernetes import Cluster, Thing

_PROGRAM = files("stoa_cluster").joinpath("caller.py").read_text()
_LABEL = "stoa.dev/proof"
_STARTS_WITHIN = 180.0  # seconds
_CALLS_WITHIN = 300.0


class Sent(NamedTuple):
    """What is called, without the leading slash: stoa.user.v1.UserService/GetUser; and where."""

    target: str
    path: str


class Answer(NamedTuple):
    """How a call ended: the name of gRPC's code, and what was said with it."""

    code: str
    details: str

    @property
    def refused_by_mesh(self) -> bool:
        """Whether a proxy refused it, before the service has seen it."""
        return self.code == "PERMISSION_DENIED" and self.details.startswith("RBAC: access denied")

    @property
    def answered(self) -> bool:
        """Whether the service itself answered, whatever it said."""
        return not (self.refused_by_mesh or self.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", ""))


@dataclass(frozen=True)
class Caller:
    """A pod that waits to be told what to call."""

    cluster: Cluster
    pod: str

    async def send(self, calls: Sequence[Sent], metadata: Mapping[str, str] | None = None) -> list[Answer]:
        """Send calls, and return their answers in the same order."""
        given = {
            "calls": [(call.target, f"/{call.path}") for call in calls],
            "metadata": list((metadata or {}).items()),
        }
        said = await self.cluster.python(self.pod, _PROGRAM, json.dumps(given), within=_CALLS_WITHIN)
        return [Answer(*answer) for answer in json.loads(said)]


@asynccontextmanager
async def callers(
    cluster: Cluster,
    image: str,
    identities: Collection[str],
    *,
    sidecar: bool = True,
    make: Collection[str] = (),
) -> AsyncIterator[Mapping[str, Caller]]:
    """A pod for each ServiceAccount, within the block; those of `make` are made for it.

    Nothing of the shop sends calls to the pods, and their proxies may call whatever there is: what is proven
    is what the called refuse, not what a proxy of the caller's own keeps from being sent.
    """
    accounts = [_account(name) for name in make]
    pods = {identity: _pod(identity, image, sidecar=sidecar) for identity in identities}
    await _remove(cluster)
    try:
        await cluster.apply(*accounts, *([_outlook()] if sidecar else []), *pods.values())
        names = [f"pod/{pod['metadata']['name']}" for pod in pods.values()]
        within = f"--timeout={_STARTS_WITHIN:.0f}s"
        await cluster.kubectl("wait", "--for=condition=Ready", within, *names, within=_STARTS_WITHIN + 10)
        yield {identity: Caller(cluster, pod["metadata"]["name"]) for identity, pod in pods.items()}
    finally:
        await asyncio.shield(_remove(cluster))


async def _remove(cluster: Cluster) -> None:
    for kinds in ("pods,serviceaccounts", "sidecars.networking.istio.io"):
        await cluster.kubectl(
            "delete", kinds, "--selector", _LABEL, "--ignore-not-found", "--grace-period=1", "--wait"
        )


def _account(name: str) -> Thing:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "labels": {_LABEL: ""}}}


def _outlook() -> Thing:
    """Lets the callers' proxies see all services."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {"name": "callers", "labels": {_LABEL: ""}},
        "spec": {"workloadSelector": {"labels": {_LABEL: ""}}, "egress": [{"hosts": ["*/*"]}]},
    }


def _pod(identity: str, image: str, *, sidecar: bool) -> Thing:
    waits = "import time; time.sleep(3600)"
    container = {
        "name": "caller",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", waits],
        "resources": {
            "requests": {"cpu": "10m", "memory": "48Mi"},
            "limits": {"cpu": "1", "memory": "192Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"caller-{identity}",
            "labels": {_LABEL: "", "sidecar.istio.io/inject": "true" if sidecar else "false"},
        },
        "spec": {
            "serviceAccountName": identity,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
        },
    }
