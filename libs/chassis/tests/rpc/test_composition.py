"""What a composition root may ask for, and when what it opened counts as ready."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from stoa.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from stoa.payment.v1.payment_pb2_grpc import PaymentServiceStub
from stoa_chassis import readiness
from stoa_chassis.app import App, StartError
from stoa_chassis.background import periodic
from stoa_chassis.context import correlation_id
from stoa_chassis.readiness import Readiness
from stoa_chassis.settings import PostgresSettings
from stoa_chassis.testing import eventually
from stoa_events import OrderPlaced


@pytest.fixture
def app() -> App[PostgresSettings]:
    return App("order", PostgresSettings())


async def test_a_service_finds_those_that_it_may_call(app: App[PostgresSettings]) -> None:
    assert app.client(CatalogServiceStub, "catalog")
    assert app._channels["catalog"]._address == "127.0.0.1:18101"


async def test_where_a_peer_is_can_be_set(
    app: App[PostgresSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOA_PAYMENT_TARGET", "payment.stoa:443")
    app.client(PaymentServiceStub, "payment")
    assert app._channels["payment"]._address == "payment.stoa:443"


async def test_a_peer_that_no_policy_grants_is_refused_at_start() -> None:
    app = App("inventory", PostgresSettings())
    with pytest.raises(StartError, match="no policy lets inventory call payment"):
        app.client(PaymentServiceStub, "payment")


async def test_handlers_have_to_be_for_what_is_declared(app: App[PostgresSettings]) -> None:
    async def handle(_: Any) -> None: ...

    with pytest.raises(StartError, match=r"not what it declares as consumes"):
        await app.consume({OrderPlaced: handle})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "localhost.", ""])
@pytest.mark.parametrize("setting", ["host", "metrics_host"])
def test_a_service_whose_port_others_than_its_sidecar_reach_does_not_start(setting: str, host: str) -> None:
    exposed: dict[str, Any] = {"sidecar_mtls": True, setting: host}
    with pytest.raises(StartError, match=f"STOA_{setting.upper()} must be 127.0.0.1, and is {host}"):
        App("order", PostgresSettings(**exposed))
    App("order", PostgresSettings(**exposed | {"sidecar_mtls": False}))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_service_beside_a_sidecar_listens_to_it_alone(host: str) -> None:
    App("order", PostgresSettings(sidecar_mtls=True, host=host, metrics_host=host))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(readiness, "_AGAIN_SECONDS", 0.02)


async def watched(answers: Callable[[], bool]) -> tuple[list[bool], "asyncio.Task[None]"]:
    ready, seen = Readiness(), list[bool]()

    async def check() -> bool:
        return answers()

    async def note(value: bool) -> None:
        seen.append(value)

    ready.add("store", check)
    return seen, asyncio.create_task(ready.watch(note))


@pytest.mark.usefixtures("quick")
async def test_readiness_follows_what_it_checks() -> None:
    up = False
    seen, watching = await watched(lambda: up)
    await eventually(lambda: seen == [False])
    up = True
    await eventually(lambda: seen == [False, True])
    up = False
    await eventually(lambda: seen == [False, True, False])
    watching.cancel()


@pytest.mark.usefixtures("quick")
async def test_a_check_that_fails_once_does_not_count() -> None:
    answers = [True, False, True, False, True]
    seen, watching = await watched(lambda: answers.pop() if answers else True)
    await eventually(lambda: not answers)
    assert seen == [True]
    watching.cancel()


async def test_periodic_work_has_a_correlation_id_of_its_own_each_time() -> None:
    ids: list[str] = []

    async def work() -> None:
        ids.append(correlation_id())
        if len(ids) == 3:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        await periodic(0, work)()
    assert len(set(ids)) == 3
    assert "" not in ids
