"""The audit of the shop's books, as a Job in the cluster."""

from __future__ import annotations

from typing import Any

from stoa_cluster.installation import Installation
from stoa_cluster.kubernetes import Thing
from stoa_cluster.stages import Figures, prove

_NAME = "audit-of-proof"
_SETTLES_WITHIN = 90  # seconds
_ENDS_WITHIN = 240.0
_SETTINGS = "/var/run/stoa/operator"


async def audit(shop: Installation, figures: Figures) -> None:
    """Have the audit look at all books; raises NotProven if they do not balance."""
    await shop.cluster.kubectl("delete", "job", _NAME, "--ignore-not-found", "--wait")
    await shop.cluster.apply(_job(shop.image("ops")))
    balanced, said = await shop.cluster.job(_NAME, _ENDS_WITHIN)
    figures["books balance"] = balanced
    prove(balanced, f"the books do not balance: {said[-1500:]}")


def _job(image: str) -> Thing:
    container: dict[str, Any] = {
        "name": "ops",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["audit", "--wait", str(_SETTLES_WITHIN)],
        "env": [{"name": "STOA_OPS_DIR", "value": _SETTINGS}],
        "volumeMounts": [
            {"name": "settings", "mountPath": _SETTINGS, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    pod = {
        "serviceAccountName": "ops",
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001},
        "containers": [container],
        "volumes": [
            {"name": "settings", "secret": {"secretName": "operator", "defaultMode": 0o440}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    labels = {"app.kubernetes.io/name": "ops", "app.kubernetes.io/part-of": "stoa"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": _NAME, "labels": labels},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }
