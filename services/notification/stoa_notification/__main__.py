"""The composition root of the notification service."""

from stoa.notification.v1.notification_pb2_grpc import add_NotificationServiceServicer_to_server
from stoa_chassis.app import App, run
from stoa_notification import peers, repository
from stoa_notification.api import NotificationServicer
from stoa_notification.events import handlers
from stoa_notification.rendering import Templates
from stoa_notification.service import Delivery, Notifications
from stoa_notification.settings import Settings


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    settings = app.settings
    store = await app.postgres(repository.open_tx)
    templates = Templates(settings.shop_url, settings.shop_name)
    delivery = Delivery(
        store.uow,
        repository.Outgoing(store.database, settings.backoff, settings.policy.lease),
        await app.enter(peers.connect(settings)),
        templates,
        settings.policy,
        settings.backoff,
        app.clock,
    )
    notifications = Notifications(
        store.uow,
        repository.NotificationReader(store.database, await app.replica(store.database)),
        delivery,
        templates,
        settings.policy,
        settings.staff,
        app.clock,
    )

    app.serve(add_NotificationServiceServicer_to_server, NotificationServicer(notifications))
    app.background("delivery", delivery.due.run)
    await app.consume(handlers(notifications))


if __name__ == "__main__":
    run("notification", Settings, compose)
