"""A cluster as an operator reaches it, by `kubectl` and `helm`, and what is often asked of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

Thing: TypeAlias = Mapping[str, Any]
"""An object of the cluster, as its API has it."""

_WITHIN = 180.0  # seconds


class CommandFailed(Exception):
    """What was asked of the cluster was refused, or took too long."""


@dataclass(frozen=True)
class Cluster:
    """The cluster that KUBECONFIG names, seen from one of its namespaces."""

    namespace: str

    def elsewhere(self, namespace: str) -> Cluster:
        """The same cluster, seen from another namespace."""
        return Cluster(namespace)

    async def kubectl(self, *words: str, given: str | None = None, within: float = _WITHIN) -> str:
        """Run kubectl in the namespace, and return what it printed. Raises CommandFailed."""
        return await run("kubectl", "--namespace", self.namespace, *words, given=given, within=within)

    async def helm(self, *words: str, within: float = _WITHIN) -> str:
        """Run helm in the namespace, and return what it printed. Raises CommandFailed."""
        return await run("helm", "--namespace", self.namespace, *words, within=within)

    async def apply(self, *things: Thing) -> None:
        """Bring objects to what they should be."""
        every = {"apiVersion": "v1", "kind": "List", "items": things}
        await self.kubectl("apply", "-f", "-", given=json.dumps(every))

    async def get(self, kind: str, name: str) -> Thing:
        """One object."""
        found: Thing = json.loads(await self.kubectl("get", kind, name, "--output", "json"))
        return found

    async def list(self, kind: str, *options: str) -> Sequence[Thing]:
        """All objects of a kind, or those that the options select."""
        found: Sequence[Thing] = json.loads(await self.kubectl("get", kind, "--output", "json", *options))[
            "items"
        ]
        return found

    async def pods(self, app: str = "") -> Sequence[Thing]:
        """The pods that are not about to go, all or those of a Deployment of the shop."""
        selected = ("--selector", f"app.kubernetes.io/name={app}") if app else ()
        return [
            pod for pod in await self.list("pods", *selected) if "deletionTimestamp" not in pod["metadata"]
        ]

    async def rolled_out(self, deployment: str, within: float = _WITHIN) -> float:
        """Wait until all pods of a Deployment are new and ready; returns the seconds."""
        began = time.monotonic()
        limit = f"--timeout={within:.0f}s"
        await self.kubectl("rollout", "status", f"deployment/{deployment}", limit, within=within + 10)
        return time.monotonic() - began

    async def python(self, pod: str, program: str, given: str = "", within: float = _WITHIN) -> str:
        """Run a Python program in the first container of a pod, and return what it printed."""
        container = await self._first_container(pod)
        command = ("exec", "--stdin", pod, "--container", container, "--", "python3", "-c", program)
        return await self.kubectl(*command, given=given, within=within)

    async def logs(self, pod: str) -> str:
        """What the first container of a pod has printed."""
        return await self.kubectl("logs", pod, "--container", await self._first_container(pod), "--tail=-1")

    async def _first_container(self, pod: str) -> str:
        name: str = (await self.get("pod", pod))["spec"]["containers"][0]["name"]
        return name

    async def job(self, name: str, within: float) -> tuple[bool, str]:
        """Wait for the end of a Job; returns whether it was a good one, and what was printed."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            ends = {each["type"] for each in (await self.get("job", name))["status"].get("conditions", ())}
            if ends & {"Complete", "Failed"}:
                return "Complete" in ends, await self.kubectl("logs", f"job/{name}", "--tail=-1")
            await asyncio.sleep(1)
        raise CommandFailed(f"the job {name} did not end within {within:g} s")

    @asynccontextmanager
    async def forwarded(self, service: str, port: int, to: int) -> AsyncIterator[None]:
        """Have a port of a service at a port of this machine, within the block. Raises CommandFailed."""
        words = ("--namespace", self.namespace, "port-forward", f"service/{service}", f"{to}:{port}")
        process = await asyncio.create_subprocess_exec(
            "kubectl", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert process.stdout is not None
        try:
            if b"Forwarding" not in (said := await process.stdout.readline()):
                raise CommandFailed(f"port {port} of {service}: {said.decode().strip()}")
            draining = asyncio.create_task(_drain(process.stdout))
            yield
            draining.cancel()
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def run(*command: str, given: str | None = None, within: float = _WITHIN) -> str:
    """Run a command, and return what it printed. Raises CommandFailed with what it said of the cause."""
    shown = " ".join(command)[:200]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(within):
            out, err = await process.communicate(None if given is None else given.encode())
    except TimeoutError:
        raise CommandFailed(f"{shown}: not done within {within:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise CommandFailed(f"{shown}: {(err or out).decode().strip()[-2000:]}")
    return out.decode()


def is_ready(pod: Thing) -> bool:
    """Whether all containers of a pod are ready, its sidecar among them."""
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def has_sidecar(pod: Thing) -> bool:
    """Whether a proxy of the mesh runs in a pod, as a container or as an init container that stays."""
    spec = pod["spec"]
    return "istio-proxy" in {each["name"] for each in (*spec["containers"], *spec.get("initContainers", ()))}


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(4096):
        pass
