"""The composition root of the notification service."""

from stoa.notification.v1.notification_pb2_grpc import add_NotificationServiceServicer_to_server
from stoa_chassis.app import App, run
from stoa_notification.api import NotificationServicer
from stoa_notification.repository import NotificationReader, open_tx
from stoa_notification.service import Notifications
from stoa_notification.settings import Settings


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    store = await app.postgres(open_tx)
    notifications = Notifications(store.uow, NotificationReader(store.database), app.clock)
    app.serve(add_NotificationServiceServicer_to_server, NotificationServicer(notifications))


if __name__ == "__main__":
    run("notification", Settings, compose)
