"""Runs in a pod, with the identity of its ServiceAccount: sends calls, and tells what came back.

It needs Python and grpcio alone, and is given to the pod's Python as text. On its input is JSON:
`{"calls": [[target, path], …], "metadata": [[name, value], …]}`; on its output `[[code, details], …]` in the
same order. A request is empty: whoever lets it through refuses it for what it lacks, or answers it.
"""

import asyncio
import json
import sys
from typing import Any

import grpc

_AT_ONCE = 8
_TRIES = 4
_DEADLINE = 10.0  # seconds


async def main() -> None:
    given = json.load(sys.stdin)
    targets = {target for target, _ in given["calls"]}
    channels = {target: grpc.aio.insecure_channel(target) for target in targets}
    metadata = [tuple(pair) for pair in given["metadata"]]
    slots = asyncio.Semaphore(_AT_ONCE)

    async def send(target: str, path: str) -> tuple[str, str]:
        async with slots:
            return await call(channels[target], path, metadata)

    answers = await asyncio.gather(*(send(target, path) for target, path in given["calls"]))
    json.dump(answers, sys.stdout)


async def call(channel: grpc.aio.Channel, path: str, metadata: Any) -> tuple[str, str]:
    method: Any = channel.unary_unary(path)
    answer = "", ""
    for again in range(_TRIES):
        try:
            await method(b"", timeout=_DEADLINE, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            answer = error.code().name, (error.details() or "")[:200]
        else:
            return "OK", ""
        if answer[0] != "UNAVAILABLE":
            break
        await asyncio.sleep(0.5 * again)
    return answer


if __name__ == "__main__":
    asyncio.run(main())
