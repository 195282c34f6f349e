"""What buyers think of a product, from its delivery to the rating that the shop shows."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from stoa_rest import Rating, Review
from stoa_stack.deliveries import deliver_to
from stoa_stack.instance import Instance
from stoa_stack.shopping import Item
from tests.e2e.shop import Customer, Shop, eventually, refusal

REVIEW: Review = {"rating": 4, "title": "Bright", "review": "It lights up\nthe whole room."}


async def buyers(shop: Shop, item: Item, count: int) -> list[Customer]:
    """Customers to whom something was delivered."""
    customers = [await shop.shopper() for _ in range(count)]
    await deliver_to(Instance.current(), [customer.user_id for customer in customers], item)
    return customers


async def reviewed(customer: Customer, item: Item, **changes: Any) -> Review:
    """Review what was bought, as soon as the shop knows that it was delivered."""
    return await eventually(lambda: customer.create_review(item.product_id, **{**REVIEW, **changes}))


async def shows(shop: Shop, item: Item, rating: Rating) -> bool:
    """Wait until a product shows a rating."""

    async def look() -> bool | None:
        found = (await shop.nobody().get_product(item.product_id)).get("rating", {})
        return {"average": found.get("average", 0), "count": found.get("count", 0)} == rating or None

    return await eventually(look)


@pytest.mark.timeout(180)
async def test_buyers_review_a_product_and_everyone_sees_its_rating(shop: Shop) -> None:
    item = await shop.item()
    ada, bob = await buyers(shop, item, 2)
    stranger = await shop.shopper()
    told = await refusal(stranger, "POST", f"/api/v1/products/{item.product_id}/reviews", REVIEW)
    assert (told.status, told.reason) == (403, "NOT_A_BUYER")

    first = await reviewed(ada, item, photos=["https://photos.example/lamp.jpg"])
    assert (first["user_id"], first["is_verified_purchase"], first["status"]) == (
        ada.user_id,
        True,
        "published",
    )
    second = await reviewed(bob, item, rating=1, title="Dim")
    assert await shows(shop, item, {"average": 2.5, "count": 2})
    told = await refusal(ada, "POST", f"/api/v1/products/{item.product_id}/reviews", {**REVIEW, "rating": 5})
    assert (told.status, told.reason) == (409, "ALREADY_REVIEWED")

    voted = await stranger.vote_review(first["review_id"], helpful=True)
    assert (await stranger.vote_review(first["review_id"], helpful=True))["helpful_votes"] == 1
    assert voted["helpful_votes"] == 1

    async def most_helpful() -> bool | None:
        page = await shop.nobody().list_product_reviews(item.product_id, page_size=1)
        (review,) = page["reviews"]
        return (review["review_id"], review["helpful_votes"]) == (first["review_id"], 1) or None

    await eventually(most_helpful)
    page = await shop.nobody().list_product_reviews(item.product_id, sort="rating", page_size=1)
    rest = await shop.nobody().list_product_reviews(
        item.product_id, sort="rating", page_size=1, page_token=page["next_page_token"]
    )
    listed = [*page["reviews"], *rest["reviews"]]
    assert [review["review_id"] for review in listed] == [first["review_id"], second["review_id"]]

    question = await stranger.create_reply(first["review_id"], reply="Does it dim?")
    answer = await shop.staff.create_reply(
        first["review_id"], reply="It does.", parent_id=question["reply_id"]
    )
    read = await shop.nobody().get_review(first["review_id"])
    assert [reply["reply_id"] for reply in read["replies"]] == [question["reply_id"], answer["reply_id"]]

    changed = await ada.update_review(first["review_id"], rating=5, title="Very bright", etag=read["etag"])
    assert changed["etag"] != read["etag"]
    assert await shows(shop, item, {"average": 3.0, "count": 2})
    await shop.staff.moderate_review(second["review_id"], status="rejected", reason="about another lamp")
    assert await shows(shop, item, {"average": 5.0, "count": 1})
    assert (await bob.get_review(second["review_id"]))["moderation_reason"] == "about another lamp"
    assert (await refusal(ada, "GET", f"/api/v1/reviews/{second['review_id']}")).status == 404
    await ada.delete_review(first["review_id"])
    assert await shows(shop, item, {"average": 0.0, "count": 0})
    assert (await shop.nobody().list_product_reviews(item.product_id)).get("reviews", []) == []


@pytest.mark.timeout(180)
async def test_many_at_once_are_counted_exactly(shop: Shop) -> None:
    item = await shop.item()
    customers = await buyers(shop, item, 5)
    reviews = await asyncio.gather(
        *(reviewed(customer, item, rating=number + 1) for number, customer in enumerate(customers))
    )
    assert await shows(shop, item, {"average": 3.0, "count": 5})
    votes = (customer.vote_review(reviews[0]["review_id"], helpful=True) for customer in customers[1:] * 3)
    await asyncio.gather(*votes)
    assert (await shop.nobody().get_review(reviews[0]["review_id"]))["review_id"]

    async def counted() -> bool | None:
        found = await shop.nobody().get_review(reviews[0]["review_id"])
        return found.get("helpful_votes") == 4 or None

    await eventually(counted)


REVIEWS = f"/api/v1/products/{uuid4()}/reviews"


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", REVIEWS, {**REVIEW, "rating": 0}, "rating"),
        ("POST", REVIEWS, {**REVIEW, "rating": 6}, "rating"),
        ("POST", REVIEWS, {"title": "Bright"}, "rating"),
        ("POST", REVIEWS, {**REVIEW, "title": ""}, "title"),
        ("POST", REVIEWS, {**REVIEW, "title": "\u200b"}, "title"),
        ("POST", REVIEWS, {**REVIEW, "review": "x" * 5001}, "review"),
        ("POST", REVIEWS, {**REVIEW, "photos": ["http://photos.example/lamp.jpg"]}, "photos[0]"),
        ("POST", REVIEWS, {**REVIEW, "order_id": "mine"}, "order_id"),
        ("POST", "/api/v1/products/lamp/reviews", REVIEW, "product_id"),
        ("GET", f"{REVIEWS}?sort=worst", None, "sort"),
        ("GET", f"{REVIEWS}?page_size=101", None, "page_size"),
        ("GET", f"{REVIEWS}?page_token=made-up", None, "page_token"),
        ("POST", f"/api/v1/reviews/{uuid4()}/votes", {}, "helpful"),
        ("POST", f"/api/v1/reviews/{uuid4()}/replies", {"reply": ""}, "reply"),
        ("PUT", f"/api/v1/reviews/{uuid4()}", REVIEW, "etag"),
        ("PUT", f"/api/v1/reviews/{uuid4()}/moderation", {"status": "deleted"}, "status"),
    ],
)
async def test_what_is_wrong_is_named(shop: Shop, method: str, path: str, body: Any, field: str) -> None:
    told = await refusal(shop.staff, method, path, body)
    assert told.status == 400
    assert field in told.violations
