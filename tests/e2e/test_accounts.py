"""People sign in, stay signed in and change how they sign in, and nobody else is in their way."""

import asyncio
from uuid import uuid4

import httpx
import pytest

from stoa_stack.rest import ApiError
from tests.e2e.shop import Customer, Shop

PASSWORD = "correct horse battery"


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


async def test_another_email_needs_the_password_and_ends_the_other_sessions(shop: Shop) -> None:
    ada = await a_person(shop)
    elsewhere = await shop.nobody().sign_in(ada.email, PASSWORD)
    new = f"  {uuid4().hex}@B\u00fccher.example "
    with pytest.raises(ApiError) as refused:
        await ada.update_user(ada.user_id, email=new)
    assert (refused.value.status, set(refused.value.violations)) == (400, {"current_password"})
    changed = await ada.update_user(ada.user_id, email=new, current_password=PASSWORD)
    assert changed["email"] == new.strip()
    with pytest.raises(ApiError):
        await elsewhere.refresh(refresh_token=elsewhere.refresh_token)
    await ada.refresh(refresh_token=ada.refresh_token)
    await shop.nobody().sign_in(new.strip().upper(), PASSWORD)
