"""Use cases at the same moment: row locks in PostgreSQL, and transactions that begin again in memory."""

import asyncio

import pytest

from stoa_user.model import (
    MAX_ADDRESSES,
    AddressBookFull,
    AddressKind,
    EmailTaken,
    InvalidCredentials,
    InvalidRefreshToken,
    SignInLocked,
)

from .conftest import PASSWORD, SOMEWHERE, UserService, new_email, outcomes, roles

SHIPPING, BILLING = AddressKind.SHIPPING, AddressKind.BILLING


async def test_of_several_registrations_at_the_same_moment_one_gets_the_email(
    service_on_each: UserService,
) -> None:
    email = new_email()
    done = await outcomes(*(service_on_each.register(email) for _ in range(8)))
    assert done.count(EmailTaken) == 7
    assert len([user for user in done if user is not EmailTaken]) == 1


async def test_addresses_added_at_the_same_moment_leave_one_default(service_on_each: UserService) -> None:
    user_id = (await service_on_each.register()).user_id
    await asyncio.gather(
        *(service_on_each.books.add(user_id, SHIPPING, SOMEWHERE, as_default=True) for _ in range(8))
    )
    page = await service_on_each.books.page(user_id, None, 100)
    assert (len(page), sum(a.is_default for a in page)) == (8, 1)


async def test_a_full_book_is_not_overfilled_by_additions_at_the_same_moment(
    service_on_each: UserService,
) -> None:
    user_id = (await service_on_each.register()).user_id
    add = [
        service_on_each.books.add(user_id, BILLING, SOMEWHERE, as_default=False)
        for _ in range(MAX_ADDRESSES + 3)
    ]
    assert (await outcomes(*add)).count(AddressBookFull) == 3


async def test_uses_at_the_same_moment_get_the_same_successor(service_on_each: UserService) -> None:
    user = await service_on_each.register()
    token = (await service_on_each.sessions.sign_in(user.email, PASSWORD)).refresh_token
    done = await asyncio.gather(*(service_on_each.sessions.refresh(token) for _ in range(6)))
    (next_,) = {signed_in.refresh_token for signed_in in done}
    service_on_each.clock.advance(seconds=11)
    with pytest.raises(InvalidRefreshToken):
        await service_on_each.sessions.refresh(token)
    with pytest.raises(InvalidRefreshToken):
        await service_on_each.sessions.refresh(next_)


async def test_of_several_accounts_that_want_an_email_at_the_same_moment_one_gets_it(
    service_on_each: UserService,
) -> None:
    users = [await service_on_each.register() for _ in range(4)]
    email = new_email()
    await asyncio.gather(*(service_on_each.change_email(user.user_id, email) for user in users))
    done = await outcomes(*(service_on_each.confirm_email(user.user_id) for user in users))
    assert (done.count(EmailTaken), done.count(None)) == (3, 1)


async def test_guesses_from_everywhere_at_the_same_moment_are_all_counted(
    service_on_each: UserService,
) -> None:
    user = await service_on_each.register()
    done = await outcomes(
        *(service_on_each.sessions.sign_in(user.email, "wrong", f"203.0.113.{i}") for i in range(40))
    )
    assert done.count(InvalidCredentials) in (10, 11)


async def test_guesses_at_the_same_moment_are_all_counted(service_on_each: UserService) -> None:
    user = await service_on_each.register()
    done = await outcomes(*(service_on_each.sessions.sign_in(user.email, "wrong") for _ in range(40)))
    # One more than ten may get through: the one that was being checked when the tenth failed.
    assert done.count(InvalidCredentials) in (10, 11)
    assert set(done) == {InvalidCredentials, SignInLocked}


async def test_staff_is_made_once_however_often_and_at_the_same_moment_the_service_starts(
    service_on_each: UserService,
) -> None:
    email = new_email()
    made = await asyncio.gather(*(service_on_each.accounts.ensure_staff(email, PASSWORD) for _ in range(4)))
    assert len({user.user_id for user in made}) == 1
    published = await service_on_each.store.published(made[0].user_id)
    assert [event.topic for event in published] == ["user.registered", "user.email_verified"]
    assert roles((await service_on_each.sessions.sign_in(email, PASSWORD)).access_token) == ["admin", "staff"]
