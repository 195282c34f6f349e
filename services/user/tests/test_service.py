"""What the use cases do to a real database."""

import asyncio
import time
from datetime import timedelta
from statistics import median
from typing import Any
from uuid import uuid4

import jwt
import pytest

from stoa_chassis.context import bound
from stoa_chassis.errors import DomainError
from stoa_events import UserProfileUpdated, UserRegistered
from stoa_user.model import (
    MAX_ADDRESSES,
    STAFF,
    AddressBookFull,
    AddressKind,
    AddressNotFound,
    EmailTaken,
    InvalidCredentials,
    InvalidRefreshToken,
    PostalAddress,
    ProfileChange,
    SignInLocked,
    UserNotFound,
)
from stoa_user.passwords import Passwords, SignInBusy

from .conftest import PASSWORD, UserService, new_email

pytestmark = pytest.mark.stack
SHIPPING, BILLING = AddressKind.SHIPPING, AddressKind.BILLING
SOMEWHERE = PostalAddress(
    recipient="Ann Lee", line1="1 Elm Street", city="Boston", postal_code="02108", country="US"
)


def roles(access_token: str) -> list[str]:
    found: list[str] = jwt.decode(access_token, options={"verify_signature": False})["roles"]
    return found


async def outcomes(*calls: Any) -> list[Any]:
    """Run calls at the same moment; a call that raised counts as the type of its error."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    return [type(each) if isinstance(each, BaseException) else each for each in done]


async def test_an_account_is_stored_as_it_was_registered(service: UserService) -> None:
    user = await service.register()
    found = await service.accounts.get(user.user_id)
    assert (found.email, found.first_name, found.last_name) == (user.email, "Ann", "Lee")
    assert (found.created_at, found.roles) == (user.created_at, frozenset())


async def test_an_unknown_account_is_not_found(service: UserService) -> None:
    with pytest.raises(UserNotFound):
        await service.accounts.get(uuid4())
    with pytest.raises(UserNotFound):
        await service.accounts.change_profile(uuid4(), ProfileChange(first_name="Ann"))
    with pytest.raises(UserNotFound):
        await service.books.add(uuid4(), SHIPPING, SOMEWHERE, as_default=True)


async def test_the_password_is_stored_only_as_its_argon2id_hash(service: UserService) -> None:
    user = await service.register()
    stored = await service.database.fetchval(
        "SELECT row_to_json(users)::text FROM users WHERE user_id = $1", user.user_id
    )
    assert "$argon2id$v=19$" in stored
    assert PASSWORD not in stored


async def test_an_email_is_unique_without_regard_to_case(service: UserService) -> None:
    user = await service.register()
    with pytest.raises(EmailTaken) as taken:
        await service.register(user.email.swapcase())
    assert [violation.field for violation in taken.value.violations] == ["email"]


async def test_of_several_registrations_at_the_same_moment_one_gets_the_email(service: UserService) -> None:
    email = new_email()
    done = await outcomes(*(service.register(email) for _ in range(8)))
    assert done.count(EmailTaken) == 7
    assert len([user for user in done if user is not EmailTaken]) == 1


async def test_registering_and_changing_are_published_with_the_request_they_go_back_to(
    service: UserService,
) -> None:
    with bound("request-1"):
        user = await service.register()
        await service.accounts.change_profile(user.user_id, ProfileChange(first_name="Anne"))
    registered, changed = await service.events(user.user_id)
    who = {"user_id": user.user_id, "email": user.email, "last_name": "Lee"}
    assert registered.payload == UserRegistered(first_name="Ann", **who)
    assert changed.payload == UserProfileUpdated(first_name="Anne", **who)
    assert {registered.correlation_id, changed.correlation_id} == {"request-1"}


async def test_a_registration_that_fails_publishes_nothing(service: UserService) -> None:
    user = await service.register()
    before = await service.database.fetchval("SELECT count(*) FROM outbox")
    with pytest.raises(EmailTaken):
        await service.register(user.email)
    assert await service.database.fetchval("SELECT count(*) FROM outbox") == before


async def test_a_changed_email_is_what_one_signs_in_with(service: UserService) -> None:
    user, other = await service.register(), await service.register()
    with pytest.raises(EmailTaken):
        await service.accounts.change_profile(user.user_id, ProfileChange(email=other.email.upper()))
    new = new_email()
    await service.accounts.change_profile(user.user_id, ProfileChange(email=new))
    await service.sessions.sign_in(new.upper(), PASSWORD)
    with pytest.raises(InvalidCredentials):
        await service.sessions.sign_in(user.email, PASSWORD)


async def test_the_capitals_of_the_own_email_can_be_changed(service: UserService) -> None:
    user = await service.register()
    changed = await service.accounts.change_profile(user.user_id, ProfileChange(email=user.email.lower()))
    assert changed.email == user.email.lower()


# ------------------------------------------------------------------------------------------------ addresses


async def test_addresses_are_listed_defaults_first_and_page_by_page(service: UserService) -> None:
    user_id = (await service.register()).user_id
    added = [
        await service.books.add(user_id, kind, SOMEWHERE, as_default=False)
        for kind in (SHIPPING, SHIPPING, BILLING, SHIPPING)
    ]
    first, second, billing, third = (address.address_id for address in added)
    pages, after = [], None
    while page := await service.books.page(user_id, after, 1):
        pages.append(page[0].address_id)
        after = (page[0].is_default, page[0].address_id)
    assert pages == [billing, first, third, second]


async def test_the_default_moves_with_every_change_and_there_is_always_one(service: UserService) -> None:
    user_id = (await service.register()).user_id

    async def defaults() -> dict[str, object]:
        page = await service.books.page(user_id, None, 100)
        return {a.kind.value: a.address_id for a in page if a.is_default}

    first = await service.books.add(user_id, SHIPPING, SOMEWHERE, as_default=False)
    second = await service.books.add(user_id, SHIPPING, SOMEWHERE, as_default=True)
    assert await defaults() == {"shipping": second.address_id}
    third = await service.books.add(user_id, SHIPPING, SOMEWHERE, as_default=False)
    billing = await service.books.add(user_id, BILLING, SOMEWHERE, as_default=False)
    assert await defaults() == {"shipping": second.address_id, "billing": billing.address_id}
    await service.books.replace(user_id, second.address_id, BILLING, SOMEWHERE, as_default=True)
    assert await defaults() == {"shipping": third.address_id, "billing": second.address_id}
    await service.books.remove(user_id, second.address_id)
    assert await defaults() == {"shipping": third.address_id, "billing": billing.address_id}
    await service.books.remove(user_id, third.address_id)
    assert await defaults() == {"shipping": first.address_id, "billing": billing.address_id}


async def test_addresses_added_at_the_same_moment_leave_one_default(service: UserService) -> None:
    user_id = (await service.register()).user_id
    await asyncio.gather(
        *(service.books.add(user_id, SHIPPING, SOMEWHERE, as_default=True) for _ in range(8))
    )
    page = await service.books.page(user_id, None, 100)
    assert (len(page), sum(a.is_default for a in page)) == (8, 1)


async def test_a_full_book_is_not_overfilled_by_additions_at_the_same_moment(service: UserService) -> None:
    user_id = (await service.register()).user_id
    add = [service.books.add(user_id, BILLING, SOMEWHERE, as_default=False) for _ in range(MAX_ADDRESSES + 3)]
    assert (await outcomes(*add)).count(AddressBookFull) == 3


async def test_an_address_of_another_account_is_not_found(service: UserService) -> None:
    mine, other = (await service.register()).user_id, (await service.register()).user_id
    address_id = (await service.books.add(other, SHIPPING, SOMEWHERE, as_default=True)).address_id
    for call in (
        service.books.get(mine, address_id),
        service.books.replace(mine, address_id, SHIPPING, SOMEWHERE, as_default=True),
        service.books.remove(mine, address_id),
    ):
        with pytest.raises(AddressNotFound):
            await call
    assert (await service.books.get(other, address_id)).postal == SOMEWHERE


# ------------------------------------------------------------------------------------------------- sessions


async def test_signing_in_gives_a_token_of_the_account(service: UserService) -> None:
    user = await service.register()
    signed_in = await service.sessions.sign_in(user.email.upper(), PASSWORD)
    claims = jwt.decode(signed_in.access_token, options={"verify_signature": False})
    assert (claims["sub"], claims["roles"]) == (str(user.user_id), [])
    assert signed_in.refresh_token not in repr(signed_in)


async def test_a_refresh_token_gives_a_new_one_and_its_second_use_ends_the_session(
    service: UserService,
) -> None:
    user = await service.register()
    first = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    elsewhere = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    second = (await service.sessions.refresh(first)).refresh_token
    third = (await service.sessions.refresh(second)).refresh_token
    for token in (first, third, second):
        with pytest.raises(InvalidRefreshToken):
            await service.sessions.refresh(token)
    await service.sessions.refresh(elsewhere)


async def test_two_uses_at_the_same_moment_are_a_second_use(service: UserService) -> None:
    user = await service.register()
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    done = await outcomes(*(service.sessions.refresh(token) for _ in range(6)))
    (winner,) = [each for each in done if each is not InvalidRefreshToken]
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(winner.refresh_token)


async def test_refresh_tokens_are_stored_only_as_their_digest(service: UserService) -> None:
    user = await service.register()
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    stored = await service.database.fetch(
        "SELECT t::text AS row FROM refresh_tokens t JOIN sessions USING (session_id) WHERE user_id = $1",
        user.user_id,
    )
    assert len(stored) == 1
    assert token not in stored[0]["row"]
    assert len(token) >= 43  # 256 bits in base64


async def test_a_session_lasts_while_it_is_used_but_not_for_ever(service: UserService) -> None:
    user = await service.register()
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    for days in (29, 29, 29):
        service.clock.ahead += timedelta(days=days)
        token = (await service.sessions.refresh(token)).refresh_token
    service.clock.ahead += timedelta(days=4)
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(token)


async def test_signing_out_ends_the_session_and_is_forgiving(service: UserService) -> None:
    user = await service.register()
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    for _ in range(2):
        await service.sessions.sign_out(token)
    await service.sessions.sign_out("never given out")
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(token)


async def test_a_wrong_password_and_an_unknown_email_are_answered_alike(service: UserService) -> None:
    user = await service.register()
    answers = []
    for email in (user.email, new_email()):
        with pytest.raises(InvalidCredentials) as refused:
            await service.sessions.sign_in(email, "wrong")
        answers.append((refused.value.message, refused.value.metadata, refused.value.violations))
    assert answers[0] == answers[1]


async def test_an_unknown_email_takes_as_long_as_a_wrong_password(service: UserService) -> None:
    async with Passwords.open(threads=1, waiting=1, memory_kib=19_456, iterations=2, lanes=1) as passwords:
        real = UserService(service.database, service.codec, passwords, service.issuer)
        user = await real.register()

        async def seconds(email: str) -> float:
            began = time.process_time()
            with pytest.raises(InvalidCredentials):
                await real.sessions.sign_in(email, "wrong")
            return time.process_time() - began

        known = median([await seconds(user.email) for _ in range(7)])
        unknown = median([await seconds(new_email()) for _ in range(7)])
    assert unknown == pytest.approx(known, rel=0.5)


@pytest.mark.parametrize("has_account", [True, False], ids=["with an account", "without an account"])
async def test_sign_in_is_locked_after_ten_failures_even_for_the_right_password(
    service: UserService, has_account: bool
) -> None:
    email = (await service.register()).email if has_account else new_email()
    for i in range(10):
        with pytest.raises(InvalidCredentials):
            await service.sessions.sign_in(email.upper() if i % 2 else email, "wrong")
    with pytest.raises(SignInLocked) as locked:
        await service.sessions.sign_in(email, PASSWORD)
    assert locked.value.retry_after
    assert timedelta(seconds=50) < locked.value.retry_after <= timedelta(minutes=1)
    service.clock.ahead += timedelta(minutes=1)
    with pytest.raises(InvalidCredentials):
        await service.sessions.sign_in(email, "wrong")
    with pytest.raises(SignInLocked) as locked:
        await service.sessions.sign_in(email, PASSWORD)
    assert locked.value.retry_after
    assert locked.value.retry_after > timedelta(seconds=100)


async def test_the_lock_opens_by_itself_and_success_forgets_the_failures(service: UserService) -> None:
    user = await service.register()
    for _ in range(2):
        for _ in range(9):
            with pytest.raises(InvalidCredentials):
                await service.sessions.sign_in(user.email, "wrong")
        await service.sessions.sign_in(user.email, PASSWORD)
    for _ in range(10):
        with pytest.raises(InvalidCredentials):
            await service.sessions.sign_in(user.email, "wrong")
    service.clock.ahead += timedelta(minutes=2)
    await service.sessions.sign_in(user.email, PASSWORD)


async def test_guesses_at_the_same_moment_are_all_counted(service: UserService) -> None:
    user = await service.register()
    done = await outcomes(*(service.sessions.sign_in(user.email, "wrong") for _ in range(40)))
    # One more than ten may get through: the one that was being checked when the tenth failed.
    assert done.count(InvalidCredentials) in (10, 11)
    assert set(done) == {InvalidCredentials, SignInLocked}


async def test_a_flood_of_sign_ins_is_shed(service: UserService) -> None:
    user = await service.register()
    async with Passwords.open(threads=1, waiting=2, memory_kib=64, iterations=1, lanes=1) as passwords:
        small = UserService(service.database, service.codec, passwords, service.issuer)
        done = await outcomes(*(small.sessions.sign_in(user.email, PASSWORD) for _ in range(10)))
    assert done.count(SignInBusy) == 7


async def test_signing_in_strengthens_a_hash_of_older_parameters(service: UserService) -> None:
    user = await service.register()
    async with Passwords.open(threads=1, waiting=2, memory_kib=128, iterations=2, lanes=1) as stronger:
        later = UserService(service.database, service.codec, stronger, service.issuer)
        await later.sessions.sign_in(user.email, PASSWORD)
        rehashed = (await later.accounts.get(user.user_id)).password_hash
        assert "m=128,t=2" in rehashed
        await later.sessions.sign_in(user.email, PASSWORD)
        assert (await later.accounts.get(user.user_id)).password_hash == rehashed


async def test_what_has_no_effect_any_more_is_pruned(service: UserService) -> None:
    user = await service.register()
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    with pytest.raises(InvalidCredentials):
        await service.sessions.sign_in(user.email, "wrong")
    await service.sessions.prune()
    token = (await service.sessions.refresh(token)).refresh_token
    service.clock.ahead += timedelta(days=91)
    await service.sessions.prune()
    for table in ("sessions", "refresh_tokens", "sign_in_attempts"):
        assert await service.database.fetchval(f"SELECT count(*) FROM {table}") == 0


# --------------------------------------------------------------------------------------------------- staff


async def test_staff_is_made_once_however_often_and_at_the_same_moment_the_service_starts(
    service: UserService,
) -> None:
    email = new_email()
    made = await asyncio.gather(*(service.accounts.ensure_staff(email, PASSWORD) for _ in range(4)))
    assert len({user.user_id for user in made}) == 1
    assert len(await service.events(made[0].user_id)) == 1
    assert roles((await service.sessions.sign_in(email, PASSWORD)).access_token) == [STAFF]


async def test_a_changed_staff_password_takes_effect_and_ends_the_sessions(service: UserService) -> None:
    email = new_email()
    await service.accounts.ensure_staff(email, PASSWORD)
    before = (await service.sessions.sign_in(email, PASSWORD)).refresh_token
    await service.accounts.ensure_staff(email, "another long one")
    for call in (service.sessions.sign_in(email, PASSWORD), service.sessions.refresh(before)):
        with pytest.raises(DomainError) as refused:
            await call
        assert isinstance(refused.value, InvalidCredentials | InvalidRefreshToken)
    await service.sessions.sign_in(email, "another long one")


async def test_a_customer_account_with_the_staff_email_becomes_staff_with_the_staff_password(
    service: UserService,
) -> None:
    user = await service.register()
    await service.accounts.ensure_staff(user.email, "another long one")
    signed_in = await service.sessions.sign_in(user.email, "another long one")
    assert roles(signed_in.access_token) == [STAFF]
    assert roles((await service.sessions.refresh(signed_in.refresh_token)).access_token) == [STAFF]
