"""The notification service over gRPC: who may call, what is refused, what the messages say."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from stoa.notification.v1.notification_pb2 import (
    GetNotificationPreferencesRequest,
    ListNotificationsRequest,
    NotificationChannels,
    NotificationKinds,
    NotificationPreferences,
    UpdateNotificationPreferencesRequest,
)
from stoa.notification.v1.notification_pb2_grpc import (
    NotificationServiceStub,
    add_NotificationServiceServicer_to_server,
)
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.testing import InProcessServer, serve_in_process
from stoa_events import UserErased
from stoa_notification.api import NotificationServicer
from stoa_notification.service import Delivery, Notifications

from . import examples
from .examples import event


@pytest.fixture
async def server(notifications: Notifications) -> AsyncIterator[InProcessServer]:
    add, servicer = add_NotificationServiceServicer_to_server, NotificationServicer(notifications)
    async with serve_in_process(add, servicer, name="notification") as running:
        yield running


@pytest.fixture
def user_id() -> UUID:
    return uuid4()


@pytest.fixture
def owner(server: InProcessServer, user_id: UUID) -> NotificationServiceStub:
    return server.stub(NotificationServiceStub, as_user=user_id)


def preferences(**changes: Any) -> NotificationPreferences:
    fields: dict[str, Any] = {
        "channels": NotificationChannels(email=False, sms=True, push=True),
        "kinds": NotificationKinds(orders=False, shipping=True, marketing=True),
        "phone_number": "+4930123456",
        "push_token": "device",
    }
    return NotificationPreferences(**{**fields, **changes})


async def test_preferences_are_the_shops_until_they_are_chosen_and_then_the_users(
    owner: NotificationServiceStub, user_id: UUID
) -> None:
    read = GetNotificationPreferencesRequest(user_id=str(user_id))
    assert (await owner.GetNotificationPreferences(read)).preferences == NotificationPreferences(
        channels=NotificationChannels(email=True, sms=False, push=False),
        kinds=NotificationKinds(orders=True, shipping=True, marketing=False),
    )
    chosen = preferences()
    assert len(chosen.ListFields()) == len(chosen.DESCRIPTOR.fields)
    # Whatever the case of the id.
    update = UpdateNotificationPreferencesRequest(user_id=str(user_id).upper(), preferences=chosen)
    assert (await owner.UpdateNotificationPreferences(update)).preferences == chosen
    assert (await owner.GetNotificationPreferences(read)).preferences == chosen
    read.user_id = update.user_id
    assert (await owner.GetNotificationPreferences(read)).preferences == chosen


@pytest.mark.parametrize(
    "sms", [NotificationChannels(email=True, sms=each, push=False) for each in (True, False)]
)
async def test_each_channel_and_kind_is_its_own(
    owner: NotificationServiceStub, user_id: UUID, sms: NotificationChannels
) -> None:
    kinds = NotificationKinds(orders=sms.sms, shipping=not sms.sms, marketing=sms.sms)
    chosen = preferences(channels=sms, kinds=kinds)
    update = UpdateNotificationPreferencesRequest(user_id=str(user_id), preferences=chosen)
    assert (await owner.UpdateNotificationPreferences(update)).preferences == chosen


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"channels": None}, "channels"),
        ({"kinds": None}, "kinds"),
        ({"channels": NotificationChannels(email=True, sms=True)}, "channels.push"),
        ({"kinds": NotificationKinds(orders=True, marketing=True)}, "kinds.shipping"),
        ({"phone_number": "030 123456"}, "phone_number"),
        ({"phone_number": "+1"}, "phone_number"),
        ({"push_token": "x" * 4097}, "push_token"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_changed(
    owner: NotificationServiceStub, user_id: UUID, changes: dict[str, Any], field: str
) -> None:
    update = UpdateNotificationPreferencesRequest(user_id=str(user_id), preferences=preferences(**changes))
    read = GetNotificationPreferencesRequest(user_id=str(user_id))
    before = await owner.GetNotificationPreferences(read)
    with pytest.raises(RemoteError) as refused:
        await owner.UpdateNotificationPreferences(update)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in refused.value.violations] == [field]
    assert await owner.GetNotificationPreferences(read) == before


async def test_a_user_lists_what_she_was_told_page_by_page(
    owner: NotificationServiceStub, notifications: Notifications, delivery: Delivery, user_id: UUID
) -> None:
    await notifications.on_user_registered(event(examples.registered(user_id)))
    await delivery.due.work_off()
    for _ in range(2):
        await notifications.on_order_confirmed(event(examples.confirmed(user_id)))
    page = await owner.ListNotifications(ListNotificationsRequest(user_id=str(user_id), page_size=2))
    assert [(each.kind, each.channel, each.status) for each in page.notifications] == [
        ("orders", "email", "pending")
    ] * 2
    page = await owner.ListNotifications(
        ListNotificationsRequest(user_id=str(user_id).upper(), page_token=page.next_page_token)
    )
    (welcome,) = page.notifications
    assert (welcome.kind, welcome.subject, welcome.status) == ("account", "Welcome to The Shop", "sent")
    assert len(welcome.ListFields()) == len(welcome.DESCRIPTOR.fields)
    assert page.next_page_token == ""


async def test_nobody_else_reads_or_chooses(server: InProcessServer, user_id: UUID) -> None:
    for stub in (
        server.stub(NotificationServiceStub),
        server.stub(NotificationServiceStub, as_user=uuid4()),
        server.stub(NotificationServiceStub, as_user=uuid4(), staff=True),
        server.stub(NotificationServiceStub, as_service="order"),
    ):
        calls: tuple[tuple[Any, Any], ...] = (
            (stub.GetNotificationPreferences, GetNotificationPreferencesRequest(user_id=str(user_id))),
            (
                stub.UpdateNotificationPreferences,
                UpdateNotificationPreferencesRequest(user_id=str(user_id), preferences=preferences()),
            ),
            (stub.ListNotifications, ListNotificationsRequest(user_id=str(user_id))),
        )
        for call, request in calls:
            with pytest.raises(RemoteError) as refused:
                await call(request)
            assert refused.value.code in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED)


async def test_who_was_erased_has_nothing_to_choose(
    owner: NotificationServiceStub, notifications: Notifications, user_id: UUID
) -> None:
    await notifications.on_user_erased(event(UserErased(user_id=user_id)))
    update = UpdateNotificationPreferencesRequest(user_id=str(user_id), preferences=preferences())
    with pytest.raises(RemoteError) as refused:
        await owner.UpdateNotificationPreferences(update)
    assert (refused.value.code, refused.value.reason) == (Code.NOT_FOUND, "CONTACT_ERASED")
