"""The composition root of the review service."""

from stoa.review.v1.review_pb2_grpc import add_ReviewServiceServicer_to_server
from stoa_chassis.app import App, run
from stoa_review.api import ReviewServicer
from stoa_review.repository import ReviewReader, open_collection, open_tx
from stoa_review.service import Reviews
from stoa_review.settings import Settings


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    store = await app.mongo(open_collection, open_tx)
    reviews = Reviews(store.uow, ReviewReader(store.collection), app.clock)
    app.serve(add_ReviewServiceServicer_to_server, ReviewServicer(reviews))


if __name__ == "__main__":
    run("review", Settings, compose)
