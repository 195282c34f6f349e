"""The composition root of the review service."""

from stoa.review.v1.review_pb2_grpc import add_ReviewServiceServicer_to_server
from stoa_chassis.app import App, run
from stoa_review.api import ReviewServicer
from stoa_review.events import handlers
from stoa_review.repository import ReviewReader, open_collection, open_tx
from stoa_review.service import Buying, Reading, Reviewing
from stoa_review.settings import Settings


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    store = await app.mongo(open_collection, open_tx)
    reader = ReviewReader(store.collection)
    reviewing = Reviewing(store.uow, reader, app.clock, moderated=app.settings.moderated)
    app.serve(add_ReviewServiceServicer_to_server, ReviewServicer(Reading(reader), reviewing))
    await app.consume(handlers(Buying(store.uow), reviewing))


if __name__ == "__main__":
    run("review", Settings, compose)
