"""People sign in, stay signed in and change how they sign in, and nobody else is in their way."""

import asyncio
import re
import time
from uuid import uuid4

import httpx
import pytest

from stoa_stack.mail import Mailbox, Wanted
from stoa_stack.rest import ApiError
from stoa_stack.shopping import ADDRESS
from tests.e2e.shop import Customer, Shop, eventually, order_body, refusal, token_in_mail

PASSWORD = "correct horse battery"
LOGIN, REFRESH = "/api/v1/auth/login", "/api/v1/auth/refresh"
RESET, CONFIRM_RESET = "/api/v1/auth/password-reset", "/api/v1/auth/password-reset/confirm"
CONFIRM_EMAIL = "/api/v1/auth/email-verification/confirm"


async def a_person(shop: Shop) -> Customer:
    """Somebody new, signed in."""
    ada = shop.nobody()
    email = f"{uuid4().hex}@stoa.example"
    await ada.create_user(email=email, password=PASSWORD, first_name="Ada", last_name="Byron")
    return await ada.sign_in(email, PASSWORD)


async def test_a_refresh_token_gives_the_same_next_one_to_two_tabs_at_once(shop: Shop) -> None:
    ada = await a_person(shop)
    token = ada.refresh_token
    tabs = await asyncio.gather(*(shop.nobody().refresh(refresh_token=token) for _ in range(2)))
    (next_,) = {tab["refresh_token"] for tab in tabs}
    assert next_ != token
    assert (await shop.nobody().refresh(refresh_token=next_))["refresh_token"] != next_


@pytest.mark.local("needs two addresses of this machine, which a gateway before the edge would have to see")
async def test_who_guesses_elsewhere_keeps_nobody_out_of_where_she_signed_in(shop: Shop) -> None:
    ada = await a_person(shop)
    elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    async with httpx.AsyncClient(base_url=shop.http.base_url, transport=elsewhere) as http:
        reasons = set()
        for _ in range(14):
            with pytest.raises(ApiError) as refused:
                await Customer(http).login(email=ada.email, password="wrong")
            reasons.add(refused.value.reason)
        assert reasons == {"INVALID_CREDENTIALS", "SIGN_IN_LOCKED"}
    await ada.renew()


async def test_a_new_account_confirms_its_address_by_the_link_in_its_mail(
    shop: Shop, mailbox: Mailbox
) -> None:
    ada = await a_person(shop)
    assert (await ada.get_user(ada.user_id))["email_verified"] is False
    token = await token_in_mail(mailbox, ada.email, "confirm")
    await shop.nobody().confirm_email(token=token)
    assert (await ada.get_user(ada.user_id))["email_verified"] is True
    again = await refusal(shop.nobody(), "POST", CONFIRM_EMAIL, {"token": token})
    assert (again.status, set(again.violations)) == (400, {"token"})


async def test_another_email_needs_the_password_and_takes_effect_when_it_is_confirmed(
    shop: Shop, mailbox: Mailbox
) -> None:
    ada = await a_person(shop)
    elsewhere = await shop.nobody().sign_in(ada.email, PASSWORD)
    new = f"  {uuid4().hex}@B\u00fccher.example "
    with pytest.raises(ApiError) as refused:
        await ada.update_user(ada.user_id, email=new)
    assert (refused.value.status, set(refused.value.violations)) == (400, {"current_password"})
    changed = await ada.update_user(ada.user_id, email=new, current_password=PASSWORD)
    assert (changed["email"], changed["pending_email"]) == (ada.email, new.strip())
    await elsewhere.renew()
    token = await token_in_mail(mailbox, new.strip().split("@")[0], "confirm")
    await shop.nobody().confirm_email(token=token)
    moved = await ada.get_user(ada.user_id)
    assert (moved["email"], moved["pending_email"], moved["email_verified"]) == (new.strip(), "", True)
    with pytest.raises(ApiError):
        await elsewhere.refresh(refresh_token=elsewhere.refresh_token)
    await ada.refresh(refresh_token=ada.refresh_token)
    await shop.nobody().sign_in(new.strip().upper(), PASSWORD)


async def test_an_owner_whom_a_stranger_tries_to_lock_out_gets_back_in_by_mail(
    shop: Shop, mailbox: Mailbox
) -> None:
    """The attack: from the owner's own network somebody tries passwords until the account is locked there,
    asks for new passwords in her name again and again, and signs in with what was once her password."""
    ada = await a_person(shop)
    thief = await shop.nobody().sign_in(ada.email, PASSWORD)
    for _ in range(12):
        await refusal(shop.nobody(), "POST", LOGIN, {"email": ada.email, "password": "wrong"})
        await shop.nobody().request_password_reset(email=ada.email)
    locked = await refusal(shop.nobody(), "POST", LOGIN, {"email": ada.email, "password": PASSWORD})
    assert (locked.status, locked.reason) == (429, "SIGN_IN_LOCKED")
    token = await token_in_mail(mailbox, ada.email, "password")
    sent = mailbox.list(Wanted(to=ada.email, subject="new password"))
    assert len(sent) <= 3
    new = "another good password"
    await shop.nobody().confirm_password_reset(token=token, password=new)
    await ada.sign_in(ada.email, new)
    for gone in (thief.refresh_token, "nothing"):
        refused = await refusal(shop.nobody(), "POST", REFRESH, {"refresh_token": gone})
        assert refused.reason == "INVALID_REFRESH_TOKEN"
    again = await refusal(shop.nobody(), "POST", CONFIRM_RESET, {"token": token, "password": new})
    assert (again.status, set(again.violations)) == (400, {"token"})
    await token_in_mail(mailbox, ada.email, "confirm")


async def test_nothing_tells_whether_an_email_has_an_account(shop: Shop, mailbox: Mailbox) -> None:
    ada = await a_person(shop)
    answers = []
    for email in (ada.email, f"{uuid4().hex}@stoa.example", ada.email.upper()):
        began = time.monotonic()
        answer = await shop.nobody().send("POST", RESET, json={"email": email})
        assert time.monotonic() - began >= 0.24
        answers.append((answer.status_code, answer.text))
    assert len(set(answers)) == 1
    await token_in_mail(mailbox, ada.email, "new password")


async def test_a_guest_fills_a_cart_and_orders_and_keeps_it_all_by_registering(shop: Shop) -> None:
    item, another = await shop.item(stock=5), await shop.item(stock=5)
    guest = await shop.guest()
    await guest.add(item)
    body = {**order_body(), "email": f"{uuid4().hex}@stoa.example"}
    placed = await guest.send("POST", "/api/v1/orders", json=body)
    assert placed.status_code == 200, placed.text
    order = await guest.settled(placed.json())
    await guest.add(another, 2)
    for path in ("", "/addresses", "/sessions", "/export"):
        refused = await refusal(guest, "GET", f"/api/v1/users/{guest.user_id}{path}")
        assert (refused.status, refused.reason) == (403, "ACCOUNT_NEEDED")

    ada, email = shop.nobody(), f"{uuid4().hex}@stoa.example"
    await ada.create_user(
        email=email, password=PASSWORD, first_name="Ada", last_name="Byron", guest_token=guest.refresh_token
    )
    await ada.sign_in(email, PASSWORD)

    async def hers() -> bool:
        orders = (await ada.list_user_orders(ada.user_id))["orders"]
        cart = (await ada.get_cart(ada.user_id))["items"]
        return [each["order_id"] for each in orders] == [order["order_id"]] and bool(cart)

    await eventually(hers)
    (line,) = (await ada.get_cart(ada.user_id))["items"]
    assert (line["variant_id"], line["quantity"]) == (another.variant_id, 2)
    gone = await refusal(guest, "POST", REFRESH, {"refresh_token": guest.refresh_token})
    assert gone.reason == "INVALID_REFRESH_TOKEN"
    bob = await a_person(shop)
    body = {"email": bob.email, "password": PASSWORD, "guest_token": guest.access_token}
    second = await refusal(shop.nobody(), "POST", LOGIN, body)
    assert (second.status, second.reason, set(second.violations)) == (400, "GUEST_MERGED", {"guest_token"})


async def test_an_owner_sees_where_she_is_signed_in_and_ends_what_is_not_hers(shop: Shop) -> None:
    ada = await a_person(shop)
    phone = Customer(shop.http, **{"user-agent": "Mozilla/5.0 (Android 15) Firefox/140.0"})
    await phone.sign_in(ada.email, PASSWORD)
    on_phone, here = (await ada.list_sessions(ada.user_id))["sessions"]
    assert on_phone["device"] == "Firefox on Android"
    assert on_phone["network"] == here["network"]
    assert re.fullmatch(r"\d+\.\d+\.\d+\.x", here["network"])  # as whoever is in front of the edge tells it
    assert (on_phone["current"], here["current"]) == (False, True)
    await ada.revoke_session(ada.user_id, on_phone["session_id"])
    with pytest.raises(ApiError):
        await phone.refresh(refresh_token=phone.refresh_token)
    (left,) = (await ada.list_sessions(ada.user_id))["sessions"]
    assert left["session_id"] == here["session_id"]
    bob = await a_person(shop)
    path = f"/api/v1/users/{bob.user_id}/sessions/{left['session_id']}"
    assert (await refusal(bob, "DELETE", path)).reason == "SESSION_NOT_FOUND"


async def test_an_account_is_exported_and_erased_and_its_address_is_free_again(shop: Shop) -> None:
    ada = await a_person(shop)
    await ada.create_address(ada.user_id, kind="KIND_SHIPPING", **ADDRESS)
    order = await ada.buy(await shop.item())
    export = await ada.export_user(ada.user_id)
    assert (export["user"]["email"], len(export["addresses"]), len(export["sessions"])) == (ada.email, 1, 1)
    for path in export["elsewhere"]:
        assert (await ada.send("GET", path)).status_code == 200, path

    mine = f"/api/v1/users/{ada.user_id}"
    wrong = await refusal(ada, "DELETE", mine, {"current_password": "wrong"})
    assert (wrong.status, set(wrong.violations)) == (400, {"current_password"})
    await ada.erase_user(ada.user_id, current_password=PASSWORD)
    gone = await refusal(ada, "GET", mine)
    assert (gone.status, gone.reason) == (404, "USER_NOT_FOUND")
    refused = await refusal(shop.nobody(), "POST", LOGIN, {"email": ada.email, "password": PASSWORD})
    assert refused.reason == "INVALID_CREDENTIALS"

    async def forgotten() -> bool:
        kept = await shop.staff.get_order(order["order_id"])
        return ada.email not in str(kept) and ADDRESS["recipient"] not in str(kept)

    await eventually(forgotten)
    kept = await shop.staff.get_order(order["order_id"])
    assert kept["total_amount"] == order["total_amount"]
    again = shop.nobody()
    await again.create_user(email=ada.email, password=PASSWORD, first_name="Ada", last_name="Byron")
    await again.sign_in(ada.email, PASSWORD)
    assert again.user_id != ada.user_id
    assert not (await again.list_user_orders(again.user_id))["orders"]


async def test_support_does_not_become_admin_by_naming_an_address_for_one(shop: Shop) -> None:
    support, boss = await shop.hire(await a_person(shop), "support"), await shop.worker("admin")
    customer = await a_person(shop)
    path = f"/api/v1/users/{boss.user_id}"
    for method, body in (
        ("PATCH", {"email": support.email, "current_password": PASSWORD}),
        ("PATCH", {"first_name": "Eve"}),
        ("DELETE", {"current_password": PASSWORD}),
    ):
        refused = await refusal(support, method, path, body)
        assert (refused.status, refused.reason) == (403, "STAFF_PROTECTED")
    roles = {"roles": ["admin"], "reason": "please"}
    refused = await refusal(support, "PUT", f"/api/v1/users/{support.user_id}/roles", roles)
    assert (refused.status, refused.reason) == (403, "ROLE_NEEDED")
    assert (await support.update_user(customer.user_id, first_name="Anne"))["first_name"] == "Anne"
    shown = await boss.get_user_roles(support.user_id)
    assert (shown["roles"], [each["after"] for each in shown["changes"]]) == (["support"], [["support"]])


async def test_staff_of_one_kind_sees_no_orders_of_others(shop: Shop) -> None:
    packer, support, ada = await shop.worker("warehouse"), await shop.worker("support"), await shop.shopper()
    await ada.add(await shop.item())
    order = await ada.order()
    path = f"/api/v1/orders/{order['order_id']}"
    assert (await refusal(packer, "GET", path)).reason == "ORDER_NOT_FOUND"
    cancelled = await refusal(packer, "PUT", f"{path}/cancel", {"reason": "because"})
    assert cancelled.reason == "ORDER_NOT_FOUND"
    assert (await support.get_order(order["order_id"]))["order_id"] == order["order_id"]
