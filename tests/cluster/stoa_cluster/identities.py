"""Who may call what: every identity sends every call, and the mesh decides as the chassis does at home."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from stoa_cluster.callers import Answer, Caller, Sent, callers
from stoa_cluster.installation import GRPC_PORT, METRICS_PORT, Installation
from stoa_cluster.matrix import IDENTITIES, STRANGER, Call, matrix
from stoa_cluster.stages import Figures, prove
from stoa_contracts.declarations import EDGE
from stoa_services import SERVICES

_AT_ONCE = 3
_SHOWN = 10


async def every_identity_calls_everything(shop: Installation, figures: Figures) -> None:
    """Call every method as every identity: the mesh refuses exactly what the chassis would at home."""
    calls = await asyncio.to_thread(matrix)
    async with callers(shop.cluster, shop.image("ops"), IDENTITIES, make=[STRANGER]) as pods:
        answers = await _ask(shop, pods, calls, {})
    figures["identities"] = len(IDENTITIES)
    figures["methods"] = len({call.method for call in calls})
    figures["calls"] = len(calls)
    figures["refused by the mesh"] = sum(answer.refused_by_mesh for answer in answers)
    figures["refused by the chassis at home"] = sum(not call.allowed for call in calls)
    figures["answered by the service"] = sum(answer.answered for answer in answers)
    figures["how"] = dict(Counter(answer.code for answer in answers if answer.answered))
    _compare(calls, answers, figures)


async def a_stolen_token_makes_no_caller(shop: Installation, figures: Figures) -> None:
    """Call as every identity but the edge's with an admin's token: what was refused stays refused."""
    calls = [call for call in await asyncio.to_thread(matrix) if call.identity != EDGE]
    identities = [identity for identity in IDENTITIES if identity != EDGE]
    async with shop.http() as http:
        token = (await shop.staff(http)).access_token
    async with callers(shop.cluster, shop.image("ops"), identities, make=[STRANGER]) as pods:
        answers = await _ask(shop, pods, calls, {"authorization": f"Bearer {token}"})
    figures["calls"] = len(calls)
    figures["refused by the mesh"] = sum(answer.refused_by_mesh for answer in answers)
    _compare(calls, answers, figures)


async def identities_of_other_namespaces_are_refused(shop: Installation, figures: Figures) -> None:
    """Call as services of the same names from elsewhere in the mesh: nothing of it is let through."""
    calls = [
        call for call in await asyncio.to_thread(matrix) if call.identity in SERVICES or call.identity == EDGE
    ]
    identities = [*SERVICES, EDGE]
    elsewhere = await shop.outside(in_mesh=True)
    async with callers(elsewhere, shop.image("ops"), identities, make=identities) as pods:
        answers = await _ask(shop, pods, calls, {})
    figures["calls"] = len(calls)
    figures["refused by the mesh"] = sum(answer.refused_by_mesh for answer in answers)
    _compare([call._replace(allowed=False) for call in calls], answers, figures)


async def plaintext_is_refused(shop: Installation, figures: Figures) -> None:
    """Call without a certificate, by way of the service and at the pod itself: nothing is heard."""
    outside = await shop.outside(in_mesh=False)
    methods = {call.service: call.method.lstrip("/") for call in await asyncio.to_thread(matrix)}
    calls = []
    for name, method in methods.items():
        hosts = [shop.host(name), *(pod["status"]["podIP"] for pod in await shop.cluster.pods(name))]
        for host in hosts:
            calls += [Sent(f"{host}:{port}", method) for port in (GRPC_PORT, METRICS_PORT)]
            calls.append(Sent(f"{host}:{GRPC_PORT}", "grpc.health.v1.Health/Check"))
    async with shop.http() as http:
        token = {"authorization": f"Bearer {(await shop.staff(http)).access_token}"}
    async with callers(outside, shop.image("ops"), ["default"], sidecar=False) as pods:
        answers = [*await pods["default"].send(calls), *await pods["default"].send(calls, token)]
    figures["plaintext calls"] = len(answers)
    figures["not heard"] = sum(answer.code == "UNAVAILABLE" for answer in answers)
    heard = [
        f"{call}: {answer}"
        for call, answer in zip((*calls, *calls), answers, strict=True)
        if answer.code != "UNAVAILABLE"
    ]
    prove(not heard, f"{len(heard)} plaintext calls were answered: {'; '.join(heard[:_SHOWN])}")


async def _ask(
    shop: Installation, pods: Mapping[str, Caller], calls: Sequence[Call], metadata: Mapping[str, str]
) -> list[Answer]:
    """Send each call from the pod of its identity; return the answers in the order of the calls."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(identity: str) -> dict[Call, Answer]:
        own = [call for call in calls if call.identity == identity]
        sent = [Sent(f"{shop.host(call.service)}:{GRPC_PORT}", call.method.lstrip("/")) for call in own]
        async with slots:
            return dict(zip(own, await pods[identity].send(sent, metadata), strict=True))

    answers = {
        call: answer for each in await asyncio.gather(*map(ask, pods)) for call, answer in each.items()
    }
    return [answers[call] for call in calls]


def _compare(calls: Sequence[Call], answers: Sequence[Answer], figures: Figures) -> None:
    """Raise NotProven if the mesh decided otherwise than the calls say."""
    wrong = [
        f"{call.identity} → {call.method} {'not let through' if call.allowed else 'not refused'}: {answer}"
        for call, answer in zip(calls, answers, strict=True)
        if not (answer.answered if call.allowed else answer.refused_by_mesh)
    ]
    figures["decided otherwise than by the chassis"] = len(wrong)
    prove(not wrong, f"{len(wrong)} calls: {'; '.join(wrong[:_SHOWN])}")
