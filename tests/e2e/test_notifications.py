"""A shopper is written to about what she did, once each time, and says what she wants to be told."""

from collections.abc import Callable
from typing import Any

import pytest

from stoa_stack.mail import Mail, Mailbox, Wanted
from tests.e2e.shop import Customer, Shop, eventually, mail_about, refusal

EVERYTHING: dict[str, Any] = {
    "channels": {"email": True, "sms": False, "push": False},
    "kinds": {"orders": True, "shipping": True, "marketing": False},
}

Read = Callable[[str, str], Any]


async def mail_to(mailbox: Mailbox, shopper: Customer, subject: str) -> Mail:
    """Wait for a mail to a shopper, of which there is one."""
    found = await mail_about(mailbox, shopper.email, subject)
    assert found["deliveries"] == len(mailbox.list(Wanted(shopper.email, subject))) == 1
    return found


async def test_who_buys_is_welcomed_and_told_what_comes_of_her_orders(shop: Shop, mailbox: Mailbox) -> None:
    ada = await shop.shopper()
    await mail_to(mailbox, ada, "Welcome")
    order = await ada.buy(await shop.item(price="20"), 2)
    confirmed = await mail_to(mailbox, ada, "is confirmed")
    assert order["order_id"] in confirmed["text"]
    assert "$40.00" in confirmed["html"]

    await ada.buy(await shop.item(), token="tok_declined")
    failed = await mail_to(mailbox, ada, "could not be paid")
    assert "the card was declined" in failed["text"]

    async def history() -> list[Any] | None:
        told = (await ada.list_notifications(ada.user_id))["notifications"]
        return list(told) if all(each["status"] == "sent" for each in told) and len(told) >= 3 else None

    told = await eventually(history)
    assert {each["kind"] for each in told} <= {"account", "orders", "shipping"}
    assert {each["channel"] for each in told} == {"email"}
    assert any("is confirmed" in each["subject"] for each in told)


async def test_who_does_not_want_mail_about_orders_gets_none(shop: Shop, mailbox: Mailbox) -> None:
    ada = await shop.shopper()
    await mail_to(mailbox, ada, "Welcome")
    assert await ada.get_notification_preferences(ada.user_id) == EVERYTHING | {
        "phone_number": "",
        "push_token": "",
    }
    unwanted = EVERYTHING | {"kinds": {"orders": False, "shipping": True, "marketing": False}}
    path = f"/api/v1/users/{ada.user_id}/notification-preferences"
    assert (await ada.send("PUT", path, json=unwanted)).json()["kinds"]["orders"] is False
    await ada.buy(await shop.item())
    bob = await shop.shopper()
    await bob.buy(await shop.item())
    await mail_to(mailbox, bob, "is confirmed")
    assert not mailbox.list(Wanted(to=ada.email, subject="is confirmed"))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"channels": None}, "channels"),
        ({"channels": {"email": True, "sms": True}}, "push"),
        ({"kinds": {"orders": "often", "shipping": True, "marketing": True}}, "kinds"),
        ({"kinds": {"orders": True, "shipping": True, "marketing": True, "gossip": True}}, "gossip"),
        ({"phone_number": "0171"}, "phone_number"),
        ({"push_token": 7}, "push_token"),
    ],
)
async def test_preferences_that_are_wrong_are_refused_with_the_field_and_change_nothing(
    shop: Shop, wrong: dict[str, Any], field: str
) -> None:
    ada = await shop.shopper()
    path = f"/api/v1/users/{ada.user_id}/notification-preferences"
    body = {name: value for name, value in (EVERYTHING | wrong).items() if value is not None}
    refused = await refusal(ada, "PUT", path, body)
    assert refused.status == 400
    assert field in " ".join((*refused.violations, refused.message))
    assert (await ada.get_notification_preferences(ada.user_id))["phone_number"] == ""


async def test_nobody_reads_what_another_was_told(shop: Shop) -> None:
    ada, bob = await shop.shopper(), await shop.shopper()
    for path in ("notifications", "notification-preferences"):
        assert (await refusal(bob, "GET", f"/api/v1/users/{ada.user_id}/{path}")).status == 403
