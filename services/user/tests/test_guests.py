"""Guests: shoppers without an account, and how they get one."""

from datetime import timedelta
from uuid import uuid4

import jwt
import pytest

from stoa_events import UserGuestMerged
from stoa_user.model import (
    EmailTaken,
    GuestMerged,
    InvalidCredentials,
    InvalidGuestToken,
    InvalidRefreshToken,
    TooManyRequests,
)
from stoa_user.service import SignedIn

from .conftest import PASSWORD, Store, UserService, new_email, outcomes, session_of, subject_of

HERE, THERE = "192.0.2.1", "198.51.100.1"


def claims(signed_in: SignedIn) -> dict[str, object]:
    found: dict[str, object] = jwt.decode(signed_in.access_token, options={"verify_signature": False})
    return found


async def merges(store: Store, *user_ids: object) -> list[UserGuestMerged]:
    return [
        event.payload
        for user_id in user_ids
        for event in await store.published(user_id)  # type: ignore[arg-type]
        if isinstance(event.payload, UserGuestMerged)
    ]


async def test_a_guest_has_tokens_that_say_so_and_no_roles(service_on_each: UserService) -> None:
    guest = await service_on_each.guests.welcome(HERE)
    assert (claims(guest)["guest"], claims(guest)["roles"]) == (True, [])
    assert subject_of(guest) != subject_of(await service_on_each.guests.welcome(HERE))


async def test_who_has_an_account_is_no_guest(service: UserService) -> None:
    user = await service.register()
    assert "guest" not in claims(await service.sessions.sign_in(user.email, PASSWORD))


async def test_a_guest_stays_the_same_by_refreshing_until_the_time_of_guests_is_over(
    service_on_each: UserService,
) -> None:
    service = service_on_each
    guest = await service.guests.welcome()
    service.clock.advance(days=29)
    again = await service.sessions.refresh(guest.refresh_token)
    assert (subject_of(again), claims(again)["guest"]) == (subject_of(guest), True)
    service.clock.advance(days=1)
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(again.refresh_token)


async def test_a_guest_who_signs_out_is_none_any_more(service: UserService) -> None:
    guest = await service.guests.welcome()
    await service.sessions.sign_out(guest.refresh_token)
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(guest.refresh_token)
    user = await service.register()
    for token in (guest.refresh_token, guest.access_token):
        with pytest.raises(InvalidGuestToken):
            await service.sessions.sign_in(user.email, PASSWORD, guest_token=token)


@pytest.mark.parametrize("token", ["refresh_token", "access_token"])
async def test_who_signs_in_takes_along_what_was_the_guests_and_the_guest_ends(
    service_on_each: UserService, token: str
) -> None:
    service = service_on_each
    user, guest = await service.register(), await service.guests.welcome()
    await service.sessions.sign_in(user.email, PASSWORD, guest_token=getattr(guest, token))
    assert await merges(service.store, user.user_id) == [
        UserGuestMerged(user_id=user.user_id, guest_id=subject_of(guest))
    ]
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(guest.refresh_token)


async def test_who_registers_takes_along_what_was_the_guests(service_on_each: UserService) -> None:
    service = service_on_each
    guest = await service.guests.welcome()
    email = new_email()
    user = await service.accounts.register(email, PASSWORD, "Ann", "Lee", guest_token=guest.refresh_token)
    topics = [event.topic for event in await service.store.published(user.user_id)]
    assert topics == ["user.registered", "user.email_verification_requested", "user.guest_merged"]
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(guest.refresh_token)


async def test_a_guest_is_merged_once_however_often_the_same_is_asked(service_on_each: UserService) -> None:
    service = service_on_each
    user, guest = await service.register(), await service.guests.welcome()
    for token in (guest.refresh_token, guest.refresh_token, guest.access_token):
        await service.sessions.sign_in(user.email, PASSWORD, guest_token=token)
    assert len(await merges(service.store, user.user_id)) == 1


async def test_a_guest_becomes_the_owner_of_one_account_of_those_that_ask_at_the_same_moment(
    service_on_each: UserService,
) -> None:
    service = service_on_each
    users, guest = [await service.register() for _ in range(4)], await service.guests.welcome()
    done = await outcomes(
        *(service.sessions.sign_in(user.email, PASSWORD, guest_token=guest.refresh_token) for user in users)
    )
    assert done.count(GuestMerged) == 3
    assert len(await merges(service.store, *(user.user_id for user in users))) == 1


async def test_a_second_account_does_not_get_what_was_the_guests_and_nothing_comes_of_asking(
    service_on_each: UserService,
) -> None:
    service = service_on_each
    first, second = await service.register(), await service.register()
    guest = await service.guests.welcome()
    await service.sessions.sign_in(first.email, PASSWORD, guest_token=guest.refresh_token)
    with pytest.raises(GuestMerged, match="guest_token: is of a guest who has another account already"):
        await service.sessions.sign_in(second.email, PASSWORD, guest_token=guest.access_token)
    email = new_email()
    with pytest.raises(GuestMerged):
        await service.accounts.register(email, PASSWORD, "Ann", "Lee", guest_token=guest.refresh_token)
    assert await service.store.users.by_email(email) is None
    assert await service.sessions.page(second.user_id, None, 10) == []


async def test_a_refreshed_guest_is_merged_by_the_token_of_before_for_as_long_as_two_tabs_need(
    service: UserService,
) -> None:
    user, guest = await service.register(), await service.guests.welcome()
    newest = await service.sessions.refresh(guest.refresh_token)
    service.clock.advance(seconds=11)
    with pytest.raises(InvalidGuestToken):
        await service.sessions.sign_in(user.email, PASSWORD, guest_token=guest.refresh_token)
    await service.sessions.sign_in(user.email, PASSWORD, guest_token=newest.refresh_token)


async def test_what_is_no_guests_token_merges_nothing(service: UserService) -> None:
    user, another = await service.register(), await service.register()
    signed_in = await service.sessions.sign_in(another.email, PASSWORD)
    guest = await service.guests.welcome()
    header, payload, _ = guest.access_token.split(".")
    forged = jwt.encode(claims(guest), "a secret of 32 bytes, or of more", "HS256")
    for token in (
        "nothing",
        "a.b.c",
        "\N{SNOWMAN}",
        f"{header}.{payload}.",
        forged,
        signed_in.refresh_token,
        signed_in.access_token,
    ):
        with pytest.raises(InvalidGuestToken, match="guest_token: is not that of a guest, or has expired"):
            await service.sessions.sign_in(user.email, PASSWORD, guest_token=token)
    service.clock.advance(minutes=15)
    with pytest.raises(InvalidGuestToken):
        await service.sessions.sign_in(user.email, PASSWORD, guest_token=guest.access_token)
    assert await merges(service.store, user.user_id, another.user_id) == []


async def test_a_wrong_password_merges_nothing(service: UserService) -> None:
    user, guest = await service.register(), await service.guests.welcome()
    with pytest.raises(InvalidCredentials):
        await service.sessions.sign_in(user.email, "wrong", guest_token=guest.refresh_token)
    with pytest.raises(EmailTaken):
        await service.accounts.register(user.email, PASSWORD, "Ann", "Lee", guest_token=guest.refresh_token)
    assert await merges(service.store, user.user_id) == []
    await service.sessions.refresh(guest.refresh_token)


async def test_one_place_makes_so_many_guests_in_an_hour_and_others_are_none_of_its(
    service_on_each: UserService,
) -> None:
    service = service_on_each
    here, there = (f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::1" for _ in range(2))
    for _ in range(5):
        await service.guests.welcome(here)
    with pytest.raises(TooManyRequests) as refused:
        await service.guests.welcome(here)
    assert refused.value.retry_after == timedelta(hours=1)
    await service.guests.welcome(there)
    service.clock.advance(hours=1)
    await service.guests.welcome(here)


async def test_who_comes_from_nowhere_is_not_counted(service: UserService) -> None:
    for _ in range(7):
        await service.guests.welcome("")


async def test_a_merge_is_remembered_for_as_long_as_a_token_of_the_guest_could_be_shown(
    service: UserService,
) -> None:
    first, second = await service.register(), await service.register()
    guest = await service.guests.welcome()
    service.clock.advance(days=29)
    await service.sessions.sign_in(first.email, PASSWORD, guest_token=guest.refresh_token)
    service.clock.advance(days=30)
    await service.guests.prune()
    with pytest.raises(GuestMerged):
        await service.sessions.sign_in(second.email, PASSWORD, guest_token=guest.refresh_token)
    service.clock.advance(days=1)
    await service.guests.prune()
    await service.sessions.prune()
    with pytest.raises(InvalidGuestToken):
        await service.sessions.sign_in(second.email, PASSWORD, guest_token=guest.refresh_token)


async def test_the_session_of_a_guest_is_none_of_an_account(service: UserService) -> None:
    user, guest = await service.register(), await service.guests.welcome()
    signed_in = await service.sessions.sign_in(user.email, PASSWORD, guest_token=guest.refresh_token)
    (shown,) = await service.sessions.page(user.user_id, None, 10)
    assert shown.session_id == session_of(signed_in)
