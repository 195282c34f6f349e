"""Who may call what: every identity sends every call, and the mesh decides as the chassis does at home."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from stoa_cluster import home
from stoa_cluster.callers import Answer, Call, Caller, callers
from stoa_cluster.installation import GRPC_PORT, METRICS_PORT, Installation
from stoa_cluster.stages import Figures, prove
from stoa_contracts.declarations import EDGE
from stoa_contracts.descriptors import Rpc, read
from stoa_services import SERVICES

_STRANGER = "stranger"  # an identity of the mesh that no contract names
_OPERATORS = "ops"
_AT_ONCE = 3
_SHOWN = 10


async def every_identity_calls_everything(shop: Installation, figures: Figures) -> None:
    """Send every method's call as every identity; the mesh refuses exactly what the chassis would.

    Then again with the token of an admin: what is refused stays so, since a token makes no caller of a
    service. An identity of the same name in another namespace is refused everywhere.
    """
    rpcs = read().rpcs
    identities = [*SERVICES, EDGE, _OPERATORS, _STRANGER]
    refused_at_home = await home.refused(identities, rpcs)
    async with shop.http() as http:
        token = {"authorization": f"Bearer {(await shop.staff(http)).access_token}"}
    async with callers(shop.cluster, shop.image("ops"), identities, make=[_STRANGER]) as pods:
        answers = await _ask(shop, pods, rpcs, {})
        with_token = await _ask(shop, pods, rpcs, token)
    figures["identities"] = len(identities)
    figures["methods"] = len(rpcs)
    figures["calls sent"] = len(answers) + len(with_token)
    figures["refused by the mesh"] = _refusals(answers)
    figures["let through by the mesh"] = len(answers) - _refusals(answers)
    figures["refused with an admin's token as well"] = _refusals(with_token)
    figures["answers of those let through"] = dict(_codes(answers))
    wrong = [_wrong(key, answer, refused_at_home) for key, answer in answers.items()]
    stolen = [key for key, answer in with_token.items() if key[0] != EDGE]
    wrong += [_wrong(key, with_token[key], refused_at_home) for key in stolen]
    differences = [each for each in wrong if each]
    figures["decided otherwise than by the chassis"] = len(differences)
    prove(not differences, f"{len(differences)} differ from home: {'; '.join(differences[:_SHOWN])}")


async def identities_of_other_namespaces_are_refused(shop: Installation, figures: Figures) -> None:
    """Call as services of the same name from elsewhere in the mesh: nothing of it is let through."""
    rpcs = read().rpcs
    elsewhere = await shop.outside(in_mesh=True)
    identities = [*SERVICES, EDGE]
    async with callers(elsewhere, shop.image("ops"), identities, make=identities) as pods:
        answers = await _ask(shop, pods, rpcs, {})
    figures["calls from another namespace"] = len(answers)
    figures["refused of them"] = _refusals(answers)
    passed = [f"{who} {path}: {answer}" for (who, path), answer in answers.items() if not answer.refused_by_mesh]
    prove(not passed, f"{len(passed)} were not refused: {'; '.join(passed[:_SHOWN])}")


async def plaintext_is_refused(shop: Installation, figures: Figures) -> None:
    """Call without a sidecar, by the service and by the pod itself, with and without an admin's token."""
    outside = await shop.outside(in_mesh=False)
    async with shop.http() as http:
        token = {"authorization": f"Bearer {(await shop.staff(http)).access_token}"}
    method = {rpc.service: rpc.call_path for rpc in read().rpcs}
    calls = []
    for name in SERVICES:
        addresses = {shop.target(name), *(pod["status"]["podIP"] for pod in await shop.cluster.pods(name))}
        for address in addresses:
            host = address.partition(":")[0]
            calls += [Call(f"{host}:{GRPC_PORT}", method[name]), Call(f"{host}:{METRICS_PORT}", method[name])]
            calls += [Call(f"{host}:{GRPC_PORT}", "grpc.health.v1.Health/Check")]
    async with callers(outside, shop.image("ops"), ["default"], sidecar=False) as pods:
        answers = [*await pods["default"].send(calls), *await pods["default"].send(calls, token)]
    figures["plaintext calls"] = len(answers)
    figures["plaintext refused"] = sum(answer.refused_as_unproven for answer in answers)
    heard = [
        f"{call}: {answer}"
        for call, answer in zip((*calls, *calls), answers, strict=True)
        if not answer.refused_as_unproven
    ]
    prove(not heard, f"{len(heard)} plaintext calls were answered: {'; '.join(heard[:_SHOWN])}")


async def _ask(
    shop: Installation, pods: Mapping[str, Caller], rpcs: Sequence[Rpc], metadata: Mapping[str, str]
) -> dict[tuple[str, str], Answer]:
    """Send every call from every pod; return the answers by identity and method."""
    calls = [Call(shop.target(rpc.service), rpc.call_path) for rpc in rpcs]
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(identity: str, caller: Caller) -> dict[tuple[str, str], Answer]:
        async with slots:
            answers = await caller.send(calls, metadata)
        return {(identity, call.path): answer for call, answer in zip(calls, answers, strict=True)}

    every = await asyncio.gather(*(ask(identity, caller) for identity, caller in pods.items()))
    return {key: answer for each in every for key, answer in each.items()}


def _wrong(key: tuple[str, str], answer: Answer, refused_at_home: frozenset[tuple[str, str]]) -> str:
    """What the mesh decided otherwise than the chassis; empty if nothing."""
    identity, path = key
    if key in refused_at_home:
        return "" if answer.refused_by_mesh else f"{identity} → {path} was not refused: {answer}"
    return "" if answer.answered else f"{identity} → {path} was not let through: {answer}"


def _refusals(answers: Mapping[tuple[str, str], Answer]) -> int:
    return sum(answer.refused_by_mesh for answer in answers.values())


def _codes(answers: Mapping[tuple[str, str], Answer]) -> Counter[str]:
    return Counter(answer.code for answer in answers.values() if not answer.refused_by_mesh)
