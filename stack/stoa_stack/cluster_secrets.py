"""`stoa secrets`: the Secrets of a shop for tests in a Kubernetes cluster.

Each has files under the names that the same shop on this machine has them by: one Secret for each service,
named as it is (its STOA_SECRETS_DIR), `operator` for the operators' tools (their STOA_OPS_DIR), one for each
server that keeps secrets, and `access` with the accounts to sign in with. Values that the cluster has already
stay; what is missing is made. A shop that is not for tests gets its Secrets from a vault (docs/deploy.md).
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from stoa_services import SERVICES
from stoa_stack import access, cluster, operators
from stoa_stack.credentials import Secrets
from stoa_stack.instance import Instance
from stoa_stack.servers.table import SERVERS
from stoa_stack.services import STAFF_SECRET, place_secrets

ACCESS = "access"
_LABELS = {"app.kubernetes.io/part-of": "stoa", "app.kubernetes.io/managed-by": "stoa-secrets"}
_SELECTOR = ",".join(f"{name}={value}" for name, value in _LABELS.items())
_STACK = "stack"  # the folder of what several have in common


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret of the cluster: the content of its files."""

    namespace: str
    name: str
    files: Mapping[str, str]

    def manifest(self) -> dict[str, Any]:
        """Return it as Kubernetes reads it."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": self.namespace, "name": self.name, "labels": _LABELS},
            "type": "Opaque",
            "data": {key: base64.b64encode(text.encode()).decode() for key, text in self.files.items()},
        }

    @classmethod
    def read(cls, manifest: Mapping[str, Any]) -> Secret:
        """Read it from what Kubernetes answers."""
        about, data = manifest["metadata"], manifest.get("data") or {}
        files = {key: base64.b64decode(value).decode() for key, value in data.items()}
        return cls(about["namespace"], about["name"], files)


class KubectlFailed(Exception):
    """The cluster does not answer as it should; the message is what kubectl said."""


def command(namespaces: cluster.Namespaces, console: Console, *, show: bool) -> int:
    """Bring the cluster's Secrets to what the shop needs, or only print them; returns the exit code."""
    try:
        found = _in_cluster(namespaces)
        with tempfile.TemporaryDirectory() as folder:
            wanted = wanted_secrets(cluster.instance(Path(folder), namespaces), namespaces, found)
        manifests = json.dumps(
            {"apiVersion": "v1", "kind": "List", "items": [secret.manifest() for secret in wanted]}
        )
        if show:
            sys.stdout.write(f"{manifests}\n")
            return 0
        # Server-side: else the values would stand in an annotation as well.
        _kubectl("apply", "--server-side", "--field-manager=stoa-secrets", "--filename=-", given=manifests)
    except KubectlFailed as problem:
        console.print(str(problem), soft_wrap=True)
        return 1
    before = {(secret.namespace, secret.name): secret.files for secret in found}
    new, changed = 0, 0
    for secret in wanted:
        files = before.get((secret.namespace, secret.name))
        new += files is None
        changed += files is not None and files != secret.files
    console.print(f"{len(wanted)} Secrets: {new} new, {changed} changed.")
    return 0


def wanted_secrets(
    at: Instance, namespaces: cluster.Namespaces, found: Iterable[Secret] = ()
) -> Sequence[Secret]:
    """The Secrets that a shop needs.

    `at` is its instance, in an empty folder, `found` what there is of them already.
    """
    _restore(at, namespaces, found)
    common = Secrets(at.folder("secrets", _STACK))
    services = []
    for service in SERVICES.values():
        files = {path.name: path.read_text() for path in place_secrets(at, service)}
        services.append(Secret(namespaces.shop, service.name, files))
    servers = [
        Secret(namespaces.infrastructure, name, {each: common.get(each) for each in part.secrets})
        for name, part in ((name, make(at)) for name, make in SERVERS.items())
        if part.secrets
    ]
    operator = Secret(namespaces.shop, operators.IDENTITY, operators.settings(at))
    accounts = {"access.json": access.content(at)}
    accounts |= {each: common.get(each) for each in (STAFF_SECRET, access.CUSTOMER_SECRET)}
    return [*services, operator, Secret(namespaces.shop, ACCESS, accounts), *servers]


def fetch(at: Instance, namespaces: cluster.Namespaces) -> None:
    """Put what the cluster keeps secret of its shop into the folders of an instance on this machine.

    It is for those who test the shop as operators of all that it needs. Raises KubectlFailed.
    """
    _restore(at, namespaces, _in_cluster(namespaces))


def _restore(at: Instance, namespaces: cluster.Namespaces, found: Iterable[Secret]) -> None:
    """Put what there is into the folders of an instance, from where all else is derived from it."""
    for secret in found:
        own = secret.namespace == namespaces.shop and secret.name in SERVICES
        folder = Secrets(at.folder("secrets", secret.name if own else _STACK))
        for name, value in secret.files.items():
            folder.put(name, value)


def _in_cluster(namespaces: cluster.Namespaces) -> Sequence[Secret]:
    found = []
    for namespace in dict.fromkeys((namespaces.shop, namespaces.infrastructure)):
        ours = (f"--namespace={namespace}", f"--selector={_SELECTOR}")
        answer = _kubectl("get", "secrets", *ours, "--output=json")
        found += [Secret.read(item) for item in json.loads(answer)["items"]]
    return found


def _kubectl(*arguments: str, given: str = "") -> str:
    try:
        ended = subprocess.run(
            ["kubectl", *arguments], input=given, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise KubectlFailed("There is no kubectl on the PATH.") from None
    if ended.returncode:
        raise KubectlFailed(ended.stderr.strip() or f"kubectl ended with {ended.returncode}.")
    return ended.stdout
