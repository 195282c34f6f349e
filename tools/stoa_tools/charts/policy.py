"""What every object and every pod must be, whichever chart it comes from; checked on what is rendered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Object = Mapping[str, Any]

_TEMPLATES = {
    "Pod": (),
    "Deployment": ("template",),
    "StatefulSet": ("template",),
    "DaemonSet": ("template",),
    "Job": ("template",),
    "CronJob": ("jobTemplate", "spec", "template"),
}
_RESOURCES = ("cpu", "memory")


def violations(thing: Object) -> list[str]:
    """Return what an object breaks, in words; nothing if it has no pods."""
    return [f"{name(thing)}: {problem}" for pod in pods(thing) for problem in _of_pod(pod)]


def named_twice(things: Iterable[Object]) -> list[str]:
    """Return which objects of a release have one name, in words: a cluster would keep the last of them."""
    names = Counter(
        (thing["apiVersion"], name(thing), thing["metadata"].get("namespace", "")) for thing in things
    )
    return [f"{each} is there {count} times" for (_, each, _), count in names.items() if count > 1]


def name(thing: Object) -> str:
    """How people name an object: Deployment/order."""
    return f"{thing['kind']}/{thing['metadata']['name']}"


def pods(thing: Object) -> Iterator[Object]:
    """The specifications of the pods that an object makes."""
    if thing["kind"] in _TEMPLATES:
        spec = thing["spec"]
        for key in _TEMPLATES[thing["kind"]]:
            spec = spec[key]
        yield spec.get("spec", spec)


def _of_pod(pod: Object) -> Iterator[str]:
    if pod.get("serviceAccountName", "default") == "default":
        yield "runs as the namespace's default service account"
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield f"has {key}"
    if any("hostPath" in volume for volume in pod.get("volumes", ())):
        yield "mounts a folder of its node"
    common = pod.get("securityContext", {})
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        own = {**common, **container.get("securityContext", {})}
        yield from (f"{container['name']} {problem}" for problem in _of_container(container, own))


def _of_container(container: Object, security: Object) -> Iterator[str]:
    yield from (problem for problem, wrong in _SECURITY.items() if wrong(security))
    if _is_movable(container["image"]):
        yield f"has the image {container['image']}: neither a digest nor a tag other than latest"
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        if missing := [each for each in _RESOURCES if each not in resources.get(kind, {})]:
            yield f"has no {kind} of {' and '.join(missing)}"


_SECURITY: Mapping[str, Callable[[Object], bool]] = {
    "is privileged": lambda it: it.get("privileged", False),
    "may gain privileges": lambda it: it.get("allowPrivilegeEscalation", True),
    "may write to its root file system": lambda it: not it.get("readOnlyRootFilesystem", False),
    "may run as root": lambda it: not it.get("runAsNonRoot", False) or it.get("runAsUser") == 0,
    "keeps capabilities": lambda it: (
        it.get("capabilities", {}).get("drop") != ["ALL"] or bool(it["capabilities"].get("add"))
    ),
    "has no seccomp profile": lambda it: it.get("seccompProfile", {}).get("type") != "RuntimeDefault",
}


def _is_movable(image: str) -> bool:
    if "@sha256:" in image:
        return False
    _, _, tag = image.rpartition("/")[2].partition(":")
    return tag in ("", "latest")
