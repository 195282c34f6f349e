"""The document store on a full disk, which is a limit of what its process may write."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from stoa_chassis.testing import free_port
from stoa_stack.fetch import MONGO, Cache

pytestmark = [pytest.mark.stack, pytest.mark.own_stack]
_LIMIT_BYTES = 2**20


@contextmanager
def served(file: Path, limit: int = resource.RLIM_INFINITY) -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """A server that keeps a file, and a collection of it."""
    cache, port = Cache.of_user(), free_port()
    cache.fetch(MONGO, lambda _: None)
    command = [sys.executable, "-m", "stoa_stack.servers.mongo_on_h2", str(cache.path(MONGO)), str(file)]
    process = subprocess.Popen(
        [*command, "127.0.0.1", str(port)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)),
    )
    try:
        client: MongoClient[dict[str, Any]]
        with MongoClient(f"mongodb://127.0.0.1:{port}", serverSelectionTimeoutMS=60_000) as client:
            yield process, client["shop"]["products"]
    finally:
        process.kill()
        process.wait()


def filled(products: Any) -> int:
    """Insert documents until one is refused; return how many were not."""
    for number in range(1000):
        try:
            products.insert_one({"_id": number, "text": "x" * 10_000})
        except PyMongoError:
            return number
    return 1000


@pytest.mark.timeout(120)
def test_a_store_that_can_not_write_ends_and_has_what_it_acknowledged_when_it_is_started_again(
    tmp_path: Path,
) -> None:
    with served(tmp_path / "mongo.h2", _LIMIT_BYTES) as (process, products):
        acknowledged = filled(products)
        assert process.wait(30) == 1
    assert 0 < acknowledged < 1000
    with served(tmp_path / "mongo.h2") as (_, products):
        assert products.count_documents({}) >= acknowledged
        products.insert_one({"_id": "later"})
