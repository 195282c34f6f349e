"""The composition root of the payment service."""

from datetime import timedelta

from stoa.payment.v1.payment_pb2_grpc import add_PaymentServiceServicer_to_server
from stoa_chassis.app import App, run
from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.kafka import Producer
from stoa_chassis.migrations import service_migrations
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_relay import OutboxRelay
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_events import PaymentFailed, PaymentRefunded, PaymentSuccessful
from stoa_payment import repository
from stoa_payment.api import PaymentServicer
from stoa_payment.peers import HttpGateway
from stoa_payment.service import Payments
from stoa_payment.settings import Settings


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    settings, clock = app.settings, SystemClock()
    database = await app.enter(
        Database.connect(settings.database_url, service_migrations("payment"), settings.database_pool_size)
    )
    codec = EventCodec(settings.schema_registry_url)
    await codec.load(PaymentSuccessful, PaymentFailed, PaymentRefunded)
    producer = await app.enter(Producer(settings.kafka_bootstrap))
    gateway = await app.enter(
        HttpGateway.connect(
            settings.gateway_url,
            settings.gateway_api_key,
            settings.gateway_webhook_secret,
            timedelta(seconds=settings.gateway_timeout_seconds),
        )
    )

    uow = postgres_unit_of_work(database, codec, repository.open_tx, clock)
    unsettled = repository.Unsettled(database, settings.backoff, settings.retry.lease)
    payments = Payments(
        uow,
        repository.Payments(database),
        repository.Refunds(database),
        unsettled,
        gateway,
        clock,
        settings.retry,
        settings.backoff,
    )
    app.serve(add_PaymentServiceServicer_to_server, PaymentServicer(payments))
    app.background("outbox relay", OutboxRelay(database, producer).run)
    app.background("unsettled payments", payments.unsettled.run)


if __name__ == "__main__":
    run("payment", Settings, compose)
