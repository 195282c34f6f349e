"""A database is changed while two versions of a service use it: more is added, and later the old taken away.

The versions differ in nothing but the migrations that they bring, which a ConfigMap adds to the image's own.
What is proven is the way there: release by release, the version before beside the new one, and under load.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg

from stoa_cluster.installation import Installation
from stoa_cluster.kubernetes import CommandFailed, Thing, is_ready
from stoa_cluster.stages import Figures, prove
from stoa_cluster.traffic import traffic
from stoa_stack.servers import postgres

_SERVICE = "inventory"
_TABLE, _COLUMN = "inventory", "shelf_of_proof"
_FOLDER = f"/opt/stoa/stoa_{_SERVICE}/migrations"
_NAME = "migrations-of-proof"
_SIDE_BY_SIDE = 15.0  # seconds
_STARTS_WITHIN = 90.0
_REFUSED_FOR = 40.0
_LOOK_EVERY = 0.5


class _Release(NamedTuple):
    """A version of the service, by what it adds to the migrations of the one before."""

    what: str
    file: str
    sql: str


_EXPAND = _Release(
    "expand", "9001_shelf.sql", f"ALTER TABLE {_TABLE} ADD COLUMN {_COLUMN} text NOT NULL DEFAULT '';\n"
)
_UNUSED = _Release("unused", "9002_without_shelf.sql", "-- From this version on nobody uses the column.\n")
_CONTRACT = _Release(
    "contract",
    "9003_no_shelf.sql",
    f"-- contract: unused since {_UNUSED.file}\nALTER TABLE {_TABLE} DROP COLUMN {_COLUMN};\n",
)
_RELEASES = (_EXPAND, _UNUSED, _CONTRACT)


async def old_and_new_share_a_database(shop: Installation, figures: Figures) -> None:
    """Add a column, stop using it, and take it away, in three releases, each beside the one before it."""
    before = await shop.cluster.get("deployment", _SERVICE)
    seconds: dict[str, float] = {}
    async with shop.at_hand() as at, traffic(shop) as tally:
        connection = await asyncpg.connect(postgres.superuser_url(at, _SERVICE))
        try:
            for number, release in enumerate(_RELEASES, 1):
                seconds[release.what] = await _roll(shop, _RELEASES[:number])
                prove(
                    await _has_column(connection) == (release is not _CONTRACT),
                    f"the release {release.what} has not done to the table what it should",
                )
            figures["seconds to roll"] = seconds
            figures["of them old and new side by side"] = _SIDE_BY_SIDE
            await _replace(shop, before)
            figures["a version that still used the column is kept out"] = await _is_kept_out(shop)
        finally:
            await _forget(connection)
            await connection.close()
            await _replace(shop, before)
            await shop.cluster.rolled_out(_SERVICE)
            await shop.cluster.kubectl("delete", "configmap", _NAME, "--ignore-not-found")
    tally.write(figures)
    prove(figures["a version that still used the column is kept out"], "a version was let in that is too old")
    tally.judge()


async def _roll(shop: Installation, releases: Sequence[_Release]) -> float:
    """Roll a version out, and stop half way for a while; returns the seconds."""
    began = time.monotonic()
    old = {pod["metadata"]["name"] for pod in await shop.cluster.pods(_SERVICE)}
    content = {release.file: release.sql for release in releases}
    await shop.cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": _NAME}, "data": content}
    )
    mounts = [{"name": _NAME, "mountPath": f"{_FOLDER}/{file}", "subPath": file} for file in content]
    pod = {
        "volumes": [{"name": _NAME, "configMap": {"name": _NAME}}],
        "containers": [{"name": _SERVICE, "volumeMounts": mounts}],
    }
    patch = json.dumps({"spec": {"template": {"spec": pod}}})
    await shop.cluster.kubectl("patch", "deployment", _SERVICE, "--patch", patch)
    await _until_one_is_new(shop, old, ready=False)
    await shop.cluster.kubectl("rollout", "pause", f"deployment/{_SERVICE}")
    try:
        await _until_one_is_new(shop, old, ready=True)
        await asyncio.sleep(_SIDE_BY_SIDE)
    finally:
        await shop.cluster.kubectl("rollout", "resume", f"deployment/{_SERVICE}")
    await shop.cluster.rolled_out(_SERVICE)
    return round(time.monotonic() - began, 1)


async def _until_one_is_new(shop: Installation, old: set[str], *, ready: bool) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    while not any(is_ready(pod) or not ready for pod in await _new(shop, old)):
        prove(time.monotonic() < deadline, f"the new version is not there within {_STARTS_WITHIN:g} s")
        await asyncio.sleep(_LOOK_EVERY)


async def _new(shop: Installation, old: set[str]) -> Sequence[Thing]:
    return [pod for pod in await shop.cluster.pods(_SERVICE) if pod["metadata"]["name"] not in old]


async def _is_kept_out(shop: Installation) -> bool:
    """Whether the version that is rolled out now does not come up."""
    try:
        await shop.cluster.rolled_out(_SERVICE, _REFUSED_FOR)
    except CommandFailed:
        return True
    return False


async def _replace(shop: Installation, deployment: Thing) -> None:
    """Have a Deployment as it was."""
    about: dict[str, Any] = dict(deployment["metadata"])
    for key in ("resourceVersion", "uid", "generation", "creationTimestamp", "managedFields"):
        about.pop(key, None)
    was = {key: value for key, value in deployment.items() if key != "status"} | {"metadata": about}
    await shop.cluster.kubectl("replace", "-f", "-", given=json.dumps(was))


async def _has_column(connection: asyncpg.Connection) -> bool:
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM information_schema.columns WHERE table_name = $1 AND column_name = $2)",
        _TABLE,
        _COLUMN,
    )
    return found


async def _forget(connection: asyncpg.Connection) -> None:
    """Leave the database as it was, so that the version of before starts."""
    await connection.execute(f"ALTER TABLE {_TABLE} DROP COLUMN IF EXISTS {_COLUMN}")
    files = [release.file for release in _RELEASES]
    await connection.execute("DELETE FROM schema_migrations WHERE name = ANY($1)", files)
