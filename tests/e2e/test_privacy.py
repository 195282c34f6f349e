"""Nothing that says who somebody is gets into a log, of a service or of a server, however a request fails."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from stoa_rest import Address, QuoteShippingRequestItem
from stoa_stack.mail import Mailbox
from tests.e2e.shop import Customer, Shop, order_body, refusal, token_in_mail

_LOGGED_WITHIN = 1.0  # seconds


def _told_by(logs: Path, words: dict[str, str]) -> list[str]:
    return [
        f"{log.name}: {what}: {line[:300]}"
        for log in sorted(logs.glob("*.log*"))
        for line in log.read_text(errors="replace").splitlines()
        for what, word in words.items()
        if word.lower() in line.lower()
    ]


@pytest.mark.local("reads the logs of all parts in the state folder")
@pytest.mark.timeout(180)
async def test_no_log_tells_who_somebody_is_or_what_only_they_know(
    shop: Shop, state: Path, mailbox: Mailbox
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
        assert (
            await refusal(
                nobody, "POST", "/api/v1/users", {"email": email, "password": person["password"], **name}
            )
        ).status == 409
    for body in (
        {"email": person["e-mail"], "password": person["wrong password"]},
        {"email": person["another e-mail"], "password": person["password"]},
        {"email": person["e-mail"], "password": [person["password"]]},
        {"email": person["e-mail"], "passwort": person["password"]},
    ):
        await refusal(nobody, "POST", "/api/v1/auth/login", body)
    await refusal(nobody, "POST", "/api/v1/auth/refresh", {"refresh_token": f"{ada.refresh_token}x"})
    own = f"/api/v1/users/{ada.user_id}"
    for profile in (
        {"email": f"{person['another e-mail']} {person['e-mail']}"},
        {"first_name": person["first name"] * 50},
        {"first_name": f"{person['first name']}\u0000"},
        {"phone": person["phone"] * 9},
        {"nickname": person["first name"]},
    ):
        assert (await refusal(ada, "PATCH", own, profile)).status == 400
    for wrong in ({"country": "XX"}, {"line1": person["street"] * 50}, {"street": person["street"]}):
        await refusal(ada, "POST", f"{own}/addresses", {**address, **wrong})
    wishes = await ada.get_notification_preferences(ada.user_id)
    for phone, status in ((person["phone"], 200), (person["phone"] * 9, 400)):
        wishes["phone_number"] = phone
        answer = await ada.send("PUT", f"{own}/notification-preferences", json=wishes)
        assert answer.status_code == status, answer.text
    other = await shop.shopper()
    await refusal(other, "GET", f"{own}?email={person['e-mail']}&access_token={ada.access_token}")
    stranger = Customer(shop.http)
    stranger.access_token = f"{ada.access_token}x"
    await refusal(stranger, "GET", own)

    item = await shop.item()
    review = {"rating": 5, "title": f"{person['first name']} likes it", "body": f"Sent to {person['street']}"}
    await refusal(ada, "POST", f"/api/v1/products/{item.product_id}/reviews", review)
    for words in (person["e-mail"], person["street"]):
        await nobody.search(q=words)
    items: list[QuoteShippingRequestItem] = [{"variant_id": item.variant_id, "quantity": 1}]
    await ada.quote_shipping(items=items, address=address)
    elsewhere = {"items": items, "address": {**address, "postal_code": person["first name"]}}
    assert (await refusal(ada, "POST", "/api/v1/shipping/quotes", elsewhere)).status == 400

    guest = await shop.guest()
    told |= {"guest's token": guest.refresh_token, "guest's access token": guest.access_token}
    await guest.add(item)
    of_guest = {**order_body(), "shipping_address": address, "email": person["guest's e-mail"]}
    await refusal(guest, "POST", "/api/v1/orders", {**of_guest, "email": f"{person['e-mail']}@"})
    bought = (await guest.send("POST", "/api/v1/orders", json=of_guest)).json()
    await guest.settled(bought)
    told["guest's link"] = bought["access_token"]
    by_link = await nobody.get_guest_order(access_token=bought["access_token"])
    assert by_link["order_id"] == bought["order_id"]
    await refusal(nobody, "GET", f"/api/v1/guest-orders?access_token={bought['access_token'][::-1]}")
    await nobody.request_password_reset(email=person["e-mail"])
    for subject in ("confirm", "new password"):
        told[f"token to {subject}"] = await token_in_mail(mailbox, person["e-mail"], subject)
    for path in ("password-reset", "email-verification"):
        confirm = {"token": told["token to confirm"][::-1], "password": person["password"]}
        await refusal(nobody, "POST", f"/api/v1/auth/{path}/confirm", confirm)
    await refusal(
        nobody,
        "POST",
        "/api/v1/auth/login",
        {"email": person["e-mail"], "password": person["password"], "guest_token": ada.access_token},
    )

    await ada.create_address(ada.user_id, kind="KIND_SHIPPING", **address)
    for card in ("tok_visa", "tok_declined"):
        await ada.add(item)
        placed = {**order_body(card), "shipping_address": address}
        await refusal(
            ada, "POST", "/api/v1/orders", {**placed, "shipping_address": {**address, "country": "XX"}}
        )
        order = (await ada.send("POST", "/api/v1/orders", json=placed)).json()
        await refusal(ada, "POST", "/api/v1/orders", {**placed, "payment_token": person["street"]})
        await ada.settled(order)
        cancel = f"/api/v1/orders/{order['order_id']}/cancel"
        answer = await ada.send("PUT", cancel, json={"reason": f"{person['first name']} changed her mind"})
        assert answer.status_code < 500
    await ada.logout(refresh_token=ada.refresh_token)
    await refusal(nobody, "POST", "/api/v1/auth/refresh", {"refresh_token": ada.refresh_token})

    await asyncio.sleep(_LOGGED_WITHIN)
    assert _told_by(state / "logs", told) == []


def test_a_log_that_tells_something_is_found(tmp_path: Path) -> None:
    (tmp_path / "postgres.log").write_text("ERROR: taken\nDETAIL: Key (email)=(Ada@mail.example) exists\n")
    [found] = _told_by(tmp_path, {"e-mail": "ada@mail.example", "street": "St James's Square"})
    assert found.startswith("postgres.log: e-mail: DETAIL")
