"""MongoDB, or what speaks its protocol: a `mongod` from the PATH, else mongo-java-server on an H2 file."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from stoa_stack.fetch import MONGO, Cache
from stoa_stack.instance import Instance
from stoa_stack.part import Part, Report


def part(at: Instance, cache: Cache) -> Part:
    """The server; not to be started when STOA_MONGO_URL names another."""
    port = at.port("mongo")
    mongod = shutil.which("mongod")
    jars = cache.path(MONGO)

    def prepare(report: Report) -> None:
        at.folder("mongo")
        if mongod is None:
            cache.fetch(MONGO, report)

    async def ready() -> None:
        from pymongo import AsyncMongoClient

        async with AsyncMongoClient[dict[str, object]](
            mongo_url(at), serverSelectionTimeoutMS=2000
        ) as client:
            probe = {"at": datetime.now(UTC)}
            await client["stoa"]["ready"].replace_one({"_id": "probe"}, probe, upsert=True)

    if mongod is not None:
        command = [mongod, "--bind_ip", at.listen_host, "--port", str(port)]
        command += ["--dbpath", str(at.state / "mongo"), "--wiredTigerCacheSizeGB", "0.25"]
    else:
        file = at.state / "mongo" / "mongo.h2"
        command = [sys.executable, "-m", "stoa_stack.servers.mongo_on_h2"]
        command += [str(jars), str(file), at.listen_host, str(port)]
    return Part(
        name="mongo",
        command=command,
        reads=[] if mongod is not None else [Path(__file__).with_name("mongo_on_h2.py")],
        prepare=prepare,
        ready=ready,
        ports=[port],
        url=f"mongodb://{at.address('mongo')}",
    )


def mongo_url(at: Instance) -> str:
    """Where documents are stored: the instance's own server, or the one that its environment names."""
    return at.mongo_url or f"mongodb://{at.address('mongo')}"
