"""The composition root of the payment service."""

from stoa.payment.v1.payment_pb2_grpc import add_PaymentServiceServicer_to_server
from stoa_chassis.app import App, run
from stoa_payment import repository
from stoa_payment.api import PaymentServicer
from stoa_payment.events import handlers
from stoa_payment.peers import connect_gateway
from stoa_payment.service import Payments
from stoa_payment.settings import Settings


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    settings = app.settings
    store = await app.postgres(repository.open_tx)
    gateway = await app.enter(connect_gateway(settings))
    payments = Payments(
        store.uow,
        repository.Payments(store.database),
        repository.Refunds(store.database),
        repository.Unsettled(store.database, settings.backoff, settings.retry.lease),
        gateway,
        app.clock,
        settings.retry,
        settings.backoff,
        capture_later=settings.capture_later,
    )

    app.serve(add_PaymentServiceServicer_to_server, PaymentServicer(payments))
    await app.consume(handlers(payments))
    app.background("unsettled payments", payments.unsettled.run)


if __name__ == "__main__":
    run("payment", Settings, compose)
