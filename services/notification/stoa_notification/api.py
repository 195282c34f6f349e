"""The gRPC servicer: messages to use cases and back."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from stoa.notification.v1 import notification_pb2, notification_pb2_grpc
from stoa_chassis.paging import page
from stoa_chassis.timestamps import to_timestamp
from stoa_notification.model import Notification, Preferences
from stoa_notification.service import Notifications


class NotificationServicer(notification_pb2_grpc.NotificationServiceServicer):
    """stoa.notification.v1.NotificationService."""

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications

    async def GetNotificationPreferences(
        self, request: notification_pb2.GetNotificationPreferencesRequest, context: Any
    ) -> notification_pb2.GetNotificationPreferencesResponse:
        """Read a user's preferences."""
        preferences = await self._notifications.preferences(UUID(request.user_id))
        return notification_pb2.GetNotificationPreferencesResponse(preferences=_preferences(preferences))

    async def UpdateNotificationPreferences(
        self, request: notification_pb2.UpdateNotificationPreferencesRequest, context: Any
    ) -> notification_pb2.UpdateNotificationPreferencesResponse:
        """Replace a user's preferences."""
        asked = request.preferences
        preferences = await self._notifications.prefer(
            UUID(request.user_id),
            Preferences(
                email=asked.channels.email,
                sms=asked.channels.sms,
                push=asked.channels.push,
                orders=asked.kinds.orders,
                shipping=asked.kinds.shipping,
                marketing=asked.kinds.marketing,
                phone_number=asked.phone_number,
                push_token=asked.push_token,
            ),
        )
        return notification_pb2.UpdateNotificationPreferencesResponse(preferences=_preferences(preferences))

    async def ListNotifications(
        self, request: notification_pb2.ListNotificationsRequest, context: Any
    ) -> notification_pb2.ListNotificationsResponse:
        """List what a user was told."""
        user_id = UUID(request.user_id)

        async def read(after: Mapping[str, Any], limit: int) -> Sequence[Notification]:
            before = UUID(after["notification_id"]) if after else None
            return await self._notifications.list(user_id, before, limit)

        found = await page(
            request,
            {"user_id": user_id},
            read,
            lambda last: {"notification_id": last.notification_id},
        )
        return notification_pb2.ListNotificationsResponse(
            notifications=map(_notification, found.items), next_page_token=found.next_page_token
        )


def _preferences(preferences: Preferences) -> notification_pb2.NotificationPreferences:
    return notification_pb2.NotificationPreferences(
        channels=notification_pb2.NotificationChannels(
            email=preferences.email, sms=preferences.sms, push=preferences.push
        ),
        kinds=notification_pb2.NotificationKinds(
            orders=preferences.orders, shipping=preferences.shipping, marketing=preferences.marketing
        ),
        phone_number=preferences.phone_number,
        push_token=preferences.push_token,
    )


def _notification(notification: Notification) -> notification_pb2.Notification:
    return notification_pb2.Notification(
        notification_id=str(notification.notification_id),
        kind=notification.kind,
        channel=notification.channel,
        subject=notification.subject,
        status=notification.status,
        created_at=to_timestamp(notification.created_at),
    )
