"""A shopper who insists: a client that sends a request until it is answered, and notes what it is shown."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import cached_property
from typing import Any
from uuid import uuid4

import httpx

from stoa_chaos.record import Record
from stoa_rest import CANCEL_ORDER, GET_ORDER, LOGIN, PLACE_ORDER, Operation, Order, Review
from stoa_stack import shopping
from stoa_stack.rest import Answer, ApiError, Client
from stoa_stack.shopping import ADDRESS, Item

_TIMEOUT = 120.0  # seconds that a shopper tries for before giving up
_SETTLED_WITHIN = 180.0
_TRY_AGAIN = (429, 503, 504)
_BUSY = ("REQUEST_IN_PROGRESS", "CART_BUSY", "CONCURRENT_CHANGES")
_NO_ENTRY = ("INVALID_CREDENTIALS", "SIGN_IN_LOCKED")  # answers to a wrong password
_CART_WITHIN = 60.0  # seconds from the end of an order to its cart, while anything may be down
_DELIVERED_WITHIN = 180.0  # seconds until it is known who may review what
_LOOK_EVERY = 0.2
_KINDS = {429: "429 shed", 503: "503 unavailable", 504: "504 timed out"}
_ANSWERED_WITH_AN_ORDER = (PLACE_ORDER, GET_ORDER, CANCEL_ORDER)


class GaveUp(Exception):
    """The shop could not be reached for longer than anyone waits."""


class InsistentClient(Client):
    """Somebody with an account, who tries each request for `timeout` seconds, with a pause in between.

    Every answer is counted in `requests`, every order that is shown is noted in the record.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        record: Record,
        requests: Counter[str],
        *,
        timeout: float = _TIMEOUT,
        pause: float = 0.5,
    ) -> None:
        super().__init__(http)
        self.record = record
        self.requests = requests
        self._timeout = timeout
        self._pause = pause

    async def exchange(
        self, operation: Operation, target: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Send a request until it is answered. Raises ApiError if the shop says no, and GaveUp."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                answer = await self._counted(operation, target, body)
            except ApiError as error:
                if error.reason in _NO_ENTRY and operation == LOGIN:
                    raise
                if error.status not in _TRY_AGAIN and error.reason not in _BUSY:
                    if error.status >= 500 or error.status == 401:
                        self.record.complain(f"{error} (request {error.request_id})")
                    raise
            except httpx.TransportError:
                pass
            else:
                if operation in _ANSWERED_WITH_AN_ORDER:
                    self.record.saw(answer.body)
                return answer
            if time.monotonic() > deadline:
                raise GaveUp(f"{operation.method} {target}")
            await asyncio.sleep(self._pause * random.uniform(0.5, 1))

    async def _counted(self, operation: Operation, target: str, body: Mapping[str, Any] | None) -> Answer:
        try:
            answer = await self.attempt(operation, target, body)
        except ApiError as error:
            self.requests[_kind(error.status)] += 1
            raise
        except httpx.TimeoutException:
            self.requests["no answer"] += 1
            raise
        except httpx.TransportError:
            self.requests["no connection"] += 1
            raise
        self.requests["answered"] += 1
        return answer


class Shopper(InsistentClient):
    """Who buys."""

    @cached_property
    def may_come_back(self) -> defaultdict[str, set[int]]:
        """Quantities by variant that may come into the cart at any time.

        They are of orders that were cancelled after they had been confirmed. Their cart stays as it is,
        unless the cancellation overtakes the confirmation on the way to the cart service, which then gives
        back what it holds for them (ADR 22).
        """
        return defaultdict(set)

    async def mistype_password(self) -> None:
        """Sign in with a wrong password, then with the right one. Raises ApiError if that is refused, too."""
        try:
            await self.login(email=self.email, password=uuid4().hex)
        except ApiError as error:
            if error.reason not in _NO_ENTRY:
                raise
        else:
            self.record.complain(f"a wrong password opened the account of {self.user_id}")
        await self.renew()

    async def add(self, item: Item, quantity: int) -> None:
        """Put something into the cart."""
        await shopping.put_into_cart(self, self.user_id, item, quantity)

    async def place(self, card: str, request_id: str) -> Order:
        """Order what is in the cart. Raises ApiError, GaveUp.

        Whose answer was lost on the way may be told that the order has been cancelled since, and looks at it.
        """
        try:
            return await self.place_order(request_id=request_id, shipping_address=ADDRESS, payment_token=card)
        except ApiError as error:
            if error.reason != "REQUEST_ID_USED" or "order_id" not in error.metadata:
                raise
            return await self.get_order(error.metadata["order_id"])

    async def cart_holds(self, wanted: Mapping[str, int]) -> bool:
        """Look at the cart until it holds so many of each variant and nothing else; False: it never did.

        What may come back may be there as well: of what is wanted too, the larger of the two quantities.
        """
        deadline = time.monotonic() + _CART_WITHIN
        while True:
            cart = await self.get_cart(self.user_id)
            there = Counter({item["variant_id"]: item["quantity"] for item in cart["items"]})
            if all(there[each] in self._may_hold(each, wanted.get(each, 0)) for each in {*there, *wanted}):
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_EVERY)

    def _may_hold(self, variant_id: str, wanted: int) -> set[int]:
        came_back = self.may_come_back.get(variant_id, ())
        return {wanted, *(max(wanted, quantity) for quantity in came_back)}

    async def review(self, product_id: str, rating: int) -> None:
        """Review something, or change the review of it, and find helpful what others say, or no longer.

        Raises ApiError, GaveUp.
        """
        try:
            review = await self._review_when_delivered(product_id, rating)
        except ApiError as error:
            if error.reason != "ALREADY_REVIEWED":
                raise
            review = await self.get_review(error.metadata["review_id"])
            await self.update_review(
                review["review_id"], rating=rating, title=review["title"], etag=review["etag"]
            )
        shown = await self.get_review(review["review_id"])
        if shown["rating"] != rating:
            self.record.complain(f"review {review['review_id']} says {shown['rating']} instead of {rating}")
        page = await self.list_product_reviews(product_id, page_size=3)
        for other in page["reviews"]:
            if other["user_id"] != self.user_id:
                await self.vote_review(other["review_id"], helpful=rating > 2)

    async def _review_when_delivered(self, product_id: str, rating: int) -> Review:
        deadline = time.monotonic() + _DELIVERED_WITHIN
        while True:
            try:
                return await self.create_review(product_id, rating=rating, title=f"{rating} of 5")
            except ApiError as error:
                if error.reason != "NOT_A_BUYER" or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(self._pause)

    async def settled(self, order: Order) -> Order:
        """Look at an order until it is no longer pending. Raises NotSettled, GaveUp."""
        return await shopping.settled(self, order, within=_SETTLED_WITHIN, every=0.1, slower=1.3)

    async def cancel(self, order: Order) -> None:
        """Cancel an order, unless trouble took so long that the carrier has its parcel."""
        self.record.cancelled(order["order_id"])
        try:
            await self.cancel_order(order["order_id"], reason="changed my mind")
        except ApiError as error:
            if error.reason != "ORDER_NOT_CANCELLABLE":
                raise


def quantities(order: Order) -> Counter[str]:
    """Return how many of each variant were ordered."""
    return Counter({line["variant_id"]: line["quantity"] for line in order["items"]})


def _kind(status: int) -> str:
    return _KINDS.get(status) or (f"{status} refused" if status < 500 else str(status))
