"""The notification service on stores and providers in memory, and examples of events."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest

from stoa_chassis.due import Backoff
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.testing import SettableClock
from stoa_notification import testing
from stoa_notification.model import Channel, DeliveryPolicy, Recipient
from stoa_notification.rendering import Templates
from stoa_notification.service import Delivery, Notifications
from stoa_notification.testing import FakeProvider

BACKOFF = Backoff(timedelta(seconds=1), timedelta(seconds=60))
POLICY = DeliveryPolicy(
    tell_within=timedelta(hours=24), give_up_after=timedelta(hours=24), lease=timedelta(seconds=21)
)
STAFF = Recipient("staff@shop.test")
SHOP_URL = "https://shop.test"


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def now(clock: SettableClock) -> datetime:
    return clock.now()


@pytest.fixture
def store() -> MemoryStore[testing.Rows]:
    return MemoryStore(testing.Rows())


@pytest.fixture
def templates() -> Templates:
    return Templates(SHOP_URL, "The Shop")


@pytest.fixture
def providers() -> Mapping[Channel, FakeProvider]:
    return {
        Channel.EMAIL: FakeProvider("mail"),
        Channel.SMS: FakeProvider("sms", repeatable=False),
        Channel.PUSH: FakeProvider("push"),
    }


@pytest.fixture
def mail(providers: Mapping[Channel, FakeProvider]) -> FakeProvider:
    return providers[Channel.EMAIL]


@pytest.fixture
def sms(providers: Mapping[Channel, FakeProvider]) -> FakeProvider:
    return providers[Channel.SMS]


@pytest.fixture
def push(providers: Mapping[Channel, FakeProvider]) -> FakeProvider:
    return providers[Channel.PUSH]


@pytest.fixture
def delivery(
    store: MemoryStore[testing.Rows],
    providers: Mapping[Channel, FakeProvider],
    templates: Templates,
    clock: SettableClock,
) -> Delivery:
    return Delivery(
        memory_unit_of_work(lambda: store, testing.open_tx, clock),
        testing.Outgoing(lambda: store, BACKOFF, POLICY.lease),
        providers,
        templates,
        POLICY,
        BACKOFF,
        clock,
    )


@pytest.fixture
def notifications(
    store: MemoryStore[testing.Rows], delivery: Delivery, templates: Templates, clock: SettableClock
) -> Notifications:
    return Notifications(
        memory_unit_of_work(lambda: store, testing.open_tx, clock),
        testing.NotificationReader(lambda: store),
        delivery,
        templates,
        POLICY,
        STAFF,
        clock,
    )
