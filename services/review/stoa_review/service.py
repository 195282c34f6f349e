"""The use cases of reviews: who may write them, writing and judging them, reading them.

Each transaction writes one document, so what follows from a change in other documents is done after it: at
once, so that who wrote sees it, and again when the event of the change comes, in case that failed. Both do
the same and by versions, so it makes no difference how often and in which order.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from stoa_chassis.avro import Event
from stoa_chassis.clock import Clock, in_milliseconds
from stoa_chassis.uow import Busy, UnitOfWork, transactional
from stoa_events import (
    OrderBuyerChanged,
    OrderDelivered,
    ReviewCreated,
    ReviewUpdated,
    ReviewVoted,
    UserErased,
    UserGuestMerged,
)
from stoa_review.model import (
    Entry,
    Opinion,
    Orders,
    Place,
    Reply,
    Review,
    Sort,
    Status,
    Tally,
    VoteBucket,
    review_id_of,
)
from stoa_review.ports import ReviewReader, Tx


class Buying:
    """Keeping who has received what."""

    def __init__(self, uow: UnitOfWork[Tx]) -> None:
        self._uow = uow

    async def on_order_delivered(self, event: Event[OrderDelivered]) -> None:
        """Note what a buyer has received; what a guest has, who has an account since, for the account."""
        order = event.payload
        products = {item.product_id: (order.order_id,) for item in order.items}
        account = await self._receive(order.user_id, order.order_id, products)
        if account is not None:
            await self._take_over(account, products)

    async def on_order_buyer_changed(self, event: Event[OrderBuyerChanged]) -> None:
        """Count an order of a guest for an account, whether it was delivered yet or not."""
        change = event.payload
        delivered = await self._move(change.guest_id, change.order_id, change.user_id)
        await self._take_over(change.user_id, delivered)

    async def on_guest_merged(self, event: Event[UserGuestMerged]) -> None:
        """Count what a guest has received for her account, now and whenever more is delivered."""
        merged = event.payload
        await self._take_over(merged.user_id, await self._merge(merged.guest_id, merged.user_id))

    @transactional
    async def _receive(self, tx: Tx, user_id: UUID, order_id: UUID, products: Orders) -> UUID | None:
        """Note a delivery, unless it is an account's by now: then return whose."""
        buyer = await tx.buyers.get(user_id)
        owner = buyer.owner_of(order_id)
        if owner is None:
            buyer.take_over(products)
            await tx.buyers.save(buyer)
        return owner

    @transactional
    async def _take_over(self, tx: Tx, user_id: UUID, products: Orders) -> None:
        buyer = await tx.buyers.get(user_id)
        buyer.take_over(products)
        await tx.buyers.save(buyer)

    @transactional
    async def _move(self, tx: Tx, guest_id: UUID, order_id: UUID, user_id: UUID) -> Orders:
        guest = await tx.buyers.get(guest_id)
        guest.move(order_id, user_id)
        await tx.buyers.save(guest)
        return dict.fromkeys(guest.products_of(order_id), (order_id,))

    @transactional
    async def _merge(self, tx: Tx, guest_id: UUID, user_id: UUID) -> Orders:
        guest = await tx.buyers.get(guest_id)
        guest.merge_into(user_id)
        await tx.buyers.save(guest)
        return guest.orders


class Reviewing:
    """Writing reviews, and judging them."""

    def __init__(self, uow: UnitOfWork[Tx], reader: ReviewReader, clock: Clock, *, moderated: bool) -> None:
        """`moderated`: reviews wait until staff has published them."""
        self._uow = uow
        self._reader = reader
        self._clock = clock
        self._moderated = moderated

    async def create(self, caller: UUID, product_id: UUID, order_id: UUID | None, opinion: Opinion) -> Review:
        """Review a product. Raises NotABuyer, AlreadyReviewed, InvalidArgument."""
        return await self._shown(await self._create(caller, product_id, order_id, opinion))

    async def update(
        self, caller: UUID, review_id: UUID, order_id: UUID | None, opinion: Opinion, etag: str
    ) -> Review:
        """Replace what a review says. Raises ReviewNotFound, NotTheAuthor, EtagMismatch, InvalidArgument."""
        return await self._shown(await self._update(caller, review_id, order_id, opinion, etag))

    async def delete(self, caller: UUID, review_id: UUID) -> None:
        """Take a review back. Raises ReviewNotFound, NotTheAuthor."""
        await self._shown(await self._delete(caller, review_id))

    async def moderate(self, review_id: UUID, status: Status, reason: str) -> Review:
        """Publish or reject a review. Raises ReviewNotFound."""
        return await self._shown(await self._moderate(review_id, status, reason))

    async def vote(self, caller: UUID, review_id: UUID, helpful: bool) -> Review:
        """Find a review helpful, or no longer. Raises ReviewNotFound, NotPublished, OwnReview, VotesFull."""
        review = await self._vote(caller, review_id, helpful)
        count = await self._reader.votes(review)
        return replace(review, helpful_votes=count.votes)

    @transactional
    async def reply(
        self, tx: Tx, caller: UUID, review_id: UUID, text: str, parent_id: UUID | None, *, is_staff: bool
    ) -> Reply:
        """Reply to a review. Raises ReviewNotFound, NotPublished, RepliesFull, InvalidArgument."""
        review = await tx.reviews.get(review_id)
        reply = review.add_reply(caller, text, parent_id, self._now(), is_staff=is_staff)
        await tx.reviews.save(review)
        return reply

    @transactional
    async def take_back_reply(
        self, tx: Tx, caller: UUID, review_id: UUID, reply_id: UUID, *, is_staff: bool
    ) -> None:
        """Take back what a reply says. Raises ReviewNotFound, ReplyNotFound, NotTheAuthor."""
        review = await tx.reviews.get(review_id)
        review.take_back_reply(reply_id, caller, is_staff=is_staff)
        await tx.reviews.save(review)

    async def on_review_changed(self, event: Event[ReviewCreated] | Event[ReviewUpdated]) -> None:
        """List a review as it is now, and forget who was erased while it was written."""
        review = await self._reader.get(event.payload.review_id)
        await self._list(review)
        for user_id in await self._reader.erased(review.people):
            await self._forget(review.review_id, user_id)

    async def on_review_voted(self, event: Event[ReviewVoted]) -> None:
        """Count the votes for a review as they are now."""
        review = await self._reader.get(event.payload.review_id)
        count = await self._reader.votes(review)
        await self._count_votes(review.review_id, review.edition, count.votes, count.version)

    async def on_user_erased(self, event: Event[UserErased]) -> None:
        """Forget a user: reviews and replies stay, without the person.

        She can review nothing from the first step on. What she has bought, and may have reviewed, is
        forgotten last, so that an attempt that fails halfway can be made again.
        """
        user_id = event.payload.user_id
        bought = await self._erase(user_id)
        reviews = [review_id_of(user_id, product_id) for product_id in bought]
        for review in await self._reader.batch(reviews):
            await self._forget(review.review_id, user_id)
        for review_id in await self._reader.with_replies_of(user_id):
            await self._forget(review_id, user_id)
        await self._forget_orders(user_id)

    @transactional
    async def _create(
        self, tx: Tx, caller: UUID, product_id: UUID, order_id: UUID | None, opinion: Opinion
    ) -> Review:
        received = (await tx.buyers.get(caller)).order_of(product_id, order_id)
        review = await tx.reviews.find(review_id_of(caller, product_id))
        if review is None:
            first = await tx.lists.get(product_id, 0)
            review = Review.write(
                product_id, caller, received, opinion, self._now(),
                moderated=self._moderated, bucket=first.next_number,
            )  # fmt: skip
        elif review.status is Status.DELETED:
            review.write_again(caller, received, opinion, self._now(), moderated=self._moderated)
        else:
            review.check_same(order_id, opinion)
        await tx.reviews.save(review)
        return review

    @transactional
    async def _update(
        self, tx: Tx, caller: UUID, review_id: UUID, order_id: UUID | None, opinion: Opinion, etag: str
    ) -> Review:
        review = await tx.reviews.get(review_id)
        review.update(caller, order_id, opinion, etag, self._now(), moderated=self._moderated)
        await tx.reviews.save(review)
        return review

    @transactional
    async def _delete(self, tx: Tx, caller: UUID, review_id: UUID) -> Review:
        review = await tx.reviews.get(review_id)
        review.delete(caller, self._now())
        await tx.reviews.save(review)
        return review

    @transactional
    async def _moderate(self, tx: Tx, review_id: UUID, status: Status, reason: str) -> Review:
        review = await tx.reviews.get(review_id)
        review.moderate(status, reason, self._now())
        await tx.reviews.save(review)
        return review

    @transactional
    async def _vote(self, tx: Tx, caller: UUID, review_id: UUID, helpful: bool) -> Review:
        review = await tx.reviews.get(review_id)
        review.check_voter(caller)
        bucket = await tx.votes.get(review, VoteBucket.number_of(review_id, caller))
        bucket.vote(caller, helpful)
        await tx.votes.save(bucket)
        return review

    @transactional
    async def _count_votes(self, tx: Tx, review_id: UUID, edition: int, votes: int, version: int) -> None:
        review = await tx.reviews.get(review_id)
        review.count_votes(edition, votes, version)
        await tx.reviews.save(review)

    @transactional
    async def _erase(self, tx: Tx, user_id: UUID) -> Sequence[UUID]:
        buyer = await tx.buyers.get(user_id)
        buyer.erase()
        await tx.buyers.save(buyer)
        return list(buyer.orders)

    @transactional
    async def _forget_orders(self, tx: Tx, user_id: UUID) -> None:
        buyer = await tx.buyers.get(user_id)
        buyer.forget_orders()
        await tx.buyers.save(buyer)

    @transactional
    async def _forget(self, tx: Tx, review_id: UUID, user_id: UUID) -> None:
        review = await tx.reviews.get(review_id)
        review.forget(user_id)
        await tx.reviews.save(review)

    async def _shown(self, review: Review) -> Review:
        """List a review that was stored a moment ago; if many others do the same, when its event comes."""
        with suppress(Busy):
            await self._list(review)
        return review

    async def _list(self, review: Review) -> None:
        tally = await self._put(review)
        if review.bucket:
            await self._note(review.product_id, review.bucket, tally)

    @transactional
    async def _put(self, tx: Tx, review: Review) -> Tally:
        bucket = await tx.lists.get(review.product_id, review.bucket)
        bucket.put(Entry.of(review))
        await tx.lists.save(bucket)
        return bucket.tally

    @transactional
    async def _note(self, tx: Tx, product_id: UUID, number: int, tally: Tally) -> None:
        first = await tx.lists.get(product_id, 0)
        first.note(number, tally)
        await tx.lists.save(first)

    def _now(self) -> datetime:
        return in_milliseconds(self._clock.now())


@dataclass(frozen=True, slots=True)
class Listed:
    """A review, and its place in the list that it was found in."""

    place: Place
    review: Review


class Reading:
    """Reading reviews."""

    def __init__(self, reader: ReviewReader) -> None:
        self._reader = reader

    async def get(self, review_id: UUID, caller: UUID | None, *, is_staff: bool) -> Review:
        """Read a review that the caller may see. Raises ReviewNotFound."""
        review = await self._reader.get(review_id)
        review.check_visible(caller, is_staff=is_staff)
        return review

    async def of_product(
        self, product_id: UUID, sort: Sort, after: Place | None, limit: int
    ) -> Sequence[Listed]:
        """Read a product's published reviews in an order; `after`: those that follow on this place."""
        entries = (
            entry for bucket in await self._reader.list(product_id) for entry in bucket.entries.values()
        )
        places = ((entry.place(sort), entry.review_id) for entry in entries if entry.is_published)
        left = sorted((each for each in places if after is None or each[0] < after), reverse=True)
        found: list[Listed] = []
        # One that the list still has may just have been rejected: then the next ones are read as well.
        while left and len(found) < limit:
            asked, left = {review_id: place for place, review_id in left[:limit]}, left[limit:]
            reviews = await self._reader.batch(list(asked))
            found += [Listed(asked[each.review_id], each) for each in reviews if each.is_published]
        return found[:limit]

    async def with_status(
        self, status: Status, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[Review]:
        """Read the reviews of all products that have a status, those that wait longest first."""
        return await self._reader.with_status(status, after, limit)
