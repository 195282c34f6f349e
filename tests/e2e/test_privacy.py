"""Nothing that says who somebody is gets into a log, of a service or of a server, however a request fails."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from stoa_rest import (
    Address,
    AdjustInventoryBody,
    QuoteShippingRequestItem,
    RefundPaymentBody,
    Review,
)
from stoa_stack.carriers import Carriers
from stoa_stack.mail import Mailbox
from tests.e2e.shop import Customer, Shop, carried, eventually, order_body, packed, refusal, token_in_mail

_LOGGED_WITHIN = 1.0  # seconds


def _told_by(logs: Path, words: dict[str, str]) -> list[str]:
    return [
        f"{log.name}: {what}: {line[:300]}"
        for log in sorted(logs.glob("*.log*"))
        for line in log.read_text(errors="replace").splitlines()
        for what, word in words.items()
        if word.lower() in line.lower()
    ]


async def refused(expected: str, caller: Customer, method: str, target: str, body: Any = None) -> None:
    """Send what must be refused, with this status and reason: refused for another, it would try nothing."""
    told = await refusal(caller, method, target, body)
    assert f"{told.status} {told.reason}" == expected, (method, target, body)


@pytest.mark.local("reads the logs of all parts in the state folder")
@pytest.mark.timeout(180)
async def test_no_log_tells_who_somebody_is_or_what_only_they_know(
    shop: Shop, state: Path, mailbox: Mailbox, carriers: Carriers
) -> None:
    mark = uuid4().hex[:10]
    person = {
        "e-mail": f"ada.{mark}@mail-{mark}.example",
        "another e-mail": f"countess.{mark}@mail-{mark}.example",
        "password": f"correct horse {mark}",
        "wrong password": f"battery staple {mark}",
        "first name": f"Adaline{mark}",
        "last name": f"Lovelace{mark}",
        "street": f"{mark} St James's Square",
        "phone": "+12075550142",
        "guest's e-mail": f"guest.{mark}@mail-{mark}.example",
    }
    name = {"first_name": person["first name"], "last_name": person["last name"]}
    address: Address = {
        "recipient": f"{person['first name']} {person['last name']}",
        "line1": person["street"],
        "city": "Portland",
        "region": "ME",
        "postal_code": "04101",
        "country": "US",
    }
    ada, nobody = Customer(shop.http), shop.nobody()
    await ada.create_user(
        email=person["e-mail"],
        password=person["password"],
        first_name=name["first_name"],
        last_name=name["last_name"],
    )
    await ada.sign_in(person["e-mail"], person["password"])
    told = person | {"access token": ada.access_token, "refresh token": ada.refresh_token}

    for email in (person["e-mail"], person["e-mail"].upper()):
        body = {"email": email, "password": person["password"], **name}
        await refused("409 EMAIL_TAKEN", nobody, "POST", "/api/v1/users", body)
    for expected, sign_in in (
        ("401 INVALID_CREDENTIALS", {"email": person["e-mail"], "password": person["wrong password"]}),
        ("401 INVALID_CREDENTIALS", {"email": person["another e-mail"], "password": person["password"]}),
        ("400 INVALID_ARGUMENT", {"email": person["e-mail"], "password": [person["password"]]}),
        ("400 INVALID_ARGUMENT", {"email": person["e-mail"], "passwort": person["password"]}),
    ):
        await refused(expected, nobody, "POST", "/api/v1/auth/login", sign_in)
    again = {"refresh_token": f"{ada.refresh_token}x"}
    await refused("401 INVALID_REFRESH_TOKEN", nobody, "POST", "/api/v1/auth/refresh", again)
    own = f"/api/v1/users/{ada.user_id}"
    for profile in (
        {"email": f"{person['another e-mail']} {person['e-mail']}"},
        {"first_name": person["first name"] * 50},
        {"first_name": f"{person['first name']}\u0000"},
        {"phone": person["phone"] * 9},
        {"nickname": person["first name"]},
    ):
        await refused("400 INVALID_ARGUMENT", ada, "PATCH", own, profile)
    for wrong in ({"country": "XX"}, {"line1": person["street"] * 50}, {"street": person["street"]}):
        await refused("400 INVALID_ARGUMENT", ada, "POST", f"{own}/addresses", {**address, **wrong})
    wishes = await ada.get_notification_preferences(ada.user_id)
    for phone, status in ((person["phone"], 200), (person["phone"] * 9, 400)):
        wishes["phone_number"] = phone
        answer = await ada.send("PUT", f"{own}/notification-preferences", json=wishes)
        assert answer.status_code == status, answer.text
    other = await shop.shopper()
    query = f"email={person['e-mail']}&access_token={ada.access_token}"
    await refused("400 INVALID_ARGUMENT", other, "GET", f"{own}?{query}")
    stranger = Customer(shop.http)
    stranger.access_token = f"{ada.access_token}x"
    await refused("401 TOKEN_INVALID", stranger, "GET", own)

    item = await shop.item()
    for words in (person["e-mail"], person["street"]):
        await nobody.search(q=words)
    items: list[QuoteShippingRequestItem] = [{"variant_id": item.variant_id, "quantity": 1}]
    await ada.quote_shipping(items=items, address=address)
    elsewhere = {"items": items, "address": {**address, "postal_code": person["first name"]}}
    await refused("400 INVALID_ARGUMENT", ada, "POST", "/api/v1/shipping/quotes", elsewhere)

    guest = await shop.guest()
    told |= {"guest's token": guest.refresh_token, "guest's access token": guest.access_token}
    await guest.add(item)
    of_guest = {**order_body(), "shipping_address": address, "email": person["guest's e-mail"]}
    wrong_guest = {**of_guest, "email": f"{person['e-mail']}@"}
    orders = "/api/v1/orders"
    await refused("400 INVALID_ARGUMENT", guest, "POST", orders, wrong_guest)
    bought = (await guest.send("POST", orders, json=of_guest)).json()
    await guest.settled(bought)
    told["guest's link"] = bought["access_token"]
    by_link = await nobody.get_guest_order(access_token=bought["access_token"])
    assert by_link["order_id"] == bought["order_id"]
    link = f"/api/v1/guest-orders?access_token={bought['access_token'][::-1]}"
    await refused("404 ORDER_NOT_FOUND", nobody, "GET", link)
    await nobody.request_password_reset(email=person["e-mail"])
    for subject in ("confirm", "new password"):
        told[f"token to {subject}"] = await token_in_mail(mailbox, person["e-mail"], subject)
    for path in ("password-reset", "email-verification"):
        confirm = {"token": told["token to confirm"][::-1], "password": person["password"]}
        await refused("400 INVALID_ARGUMENT", nobody, "POST", f"/api/v1/auth/{path}/confirm", confirm)
    body = {"email": person["e-mail"], "password": person["password"], "guest_token": ada.access_token}
    await refused("400 INVALID_ARGUMENT", nobody, "POST", "/api/v1/auth/login", body)

    await ada.create_address(ada.user_id, kind="KIND_SHIPPING", **address)
    for card in ("tok_visa", "tok_declined"):
        await ada.add(item)
        placed = {**order_body(card), "shipping_address": address}
        abroad = {**placed, "shipping_address": {**address, "country": "XX"}}
        await refused("400 INVALID_ARGUMENT", ada, "POST", orders, abroad)
        order = (await ada.send("POST", orders, json=placed)).json()
        await refused(
            "400 INVALID_ARGUMENT", ada, "POST", orders, {**placed, "payment_token": person["street"]}
        )
        await ada.settled(order)
        cancel = {"reason": f"{person['first name']} changed her mind"}
        answer = await ada.send("PUT", f"{orders}/{order['order_id']}/cancel", json=cancel)
        assert answer.status_code < 500

    # What she says of what she got, and what others say of her.
    said = f"{person['first name']} of {person['street']}"
    kept = await carried(carriers, ada, await packed(ada, item, 3), 9, "delivered")
    review: Review = {"rating": 5, "title": f"{person['first name']} likes it", "review": f"Sent to {said}"}
    written = await eventually(lambda: ada.create_review(item.product_id, **review))
    reviews = f"/api/v1/products/{item.product_id}/reviews"
    await refused("409 ALREADY_REVIEWED", ada, "POST", reviews, {**review, "title": said})
    await refused("400 INVALID_ARGUMENT", ada, "POST", reviews, {**review, "review": said * 200})
    reviewed = f"/api/v1/reviews/{written['review_id']}"
    await shop.staff.create_reply(written["review_id"], reply=f"Thank you, {said}")
    await refused("400 INVALID_ARGUMENT", ada, "POST", f"{reviewed}/replies", {"reply": said * 200})
    await shop.staff.moderate_review(written["review_id"], status="rejected", reason=f"It names {said}")
    returns = f"{orders}/{kept['order_id']}/returns"
    back = {"request_id": str(uuid4()), "items": items, "reason": f"{said} is too dark for it"}
    sent = (await ada.send("POST", returns, json=back)).json()
    await refused("409 REQUEST_ID_REUSED", ada, "POST", returns, {**back, "reason": said})
    await shop.staff.reject_return(sent["order_id"], sent["return_id"], reason=f"{said} wore it out")
    refund: RefundPaymentBody = {"request_id": str(uuid4()), "reason": f"{said} complained"}
    refund["amount"] = {"currency_code": "USD", "units": "1"}
    payment_id = (await ada.get_order(kept["order_id"]))["payment"]["payment_id"]
    await shop.staff.refund_payment(payment_id, **refund)
    refunds = f"/api/v1/payments/{payment_id}/refunds"
    await refused("409 REQUEST_ID_REUSED", shop.staff, "POST", refunds, {**refund, "reason": said})
    adjusted: AdjustInventoryBody = {
        "request_id": str(uuid4()),
        "delta": 1,
        "reason": f"{said} sent one back",
    }
    await shop.staff.adjust_inventory(item.variant_id, **adjusted)
    await refused("400 INVALID_ARGUMENT", shop.staff, "PUT", f"/api/v1/users/{ada.user_id}/roles",
        {"roles": ["owner"], "reason": f"{said} is hired"})  # fmt: skip

    await ada.logout(refresh_token=ada.refresh_token)
    ended = {"refresh_token": ada.refresh_token}
    await refused("401 INVALID_REFRESH_TOKEN", nobody, "POST", "/api/v1/auth/refresh", ended)

    await asyncio.sleep(_LOGGED_WITHIN)
    assert _told_by(state / "logs", told) == []


def test_a_log_that_tells_something_is_found(tmp_path: Path) -> None:
    (tmp_path / "postgres.log").write_text("ERROR: taken\nDETAIL: Key (email)=(Ada@mail.example) exists\n")
    [found] = _told_by(tmp_path, {"e-mail": "ada@mail.example", "street": "St James's Square"})
    assert found.startswith("postgres.log: e-mail: DETAIL")
