"""What the use cases do, on a store in memory."""

import time
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from statistics import median
from uuid import uuid4

import jwt
import pytest

from stoa_chassis.context import bound
from stoa_chassis.errors import DomainError
from stoa_chassis.memory import MemoryStore
from stoa_chassis.postgres import Database
from stoa_chassis.testing import SettableClock
from stoa_events import UserProfileUpdated, UserRegistered
from stoa_user.model import (
    STAFF,
    AddressKind,
    AddressNotFound,
    EmailTaken,
    InvalidCredentials,
    InvalidRefreshToken,
    ProfileChange,
    SignInBusy,
    SignInLocked,
    UserNotFound,
    digest,
)
from stoa_user.passwords import Argon2Passwords
from stoa_user.service import Accounts
from stoa_user.testing import Rows

from .conftest import PASSWORD, SOMEWHERE, Store, UserService, new_email, outcomes, roles

SHIPPING, BILLING = AddressKind.SHIPPING, AddressKind.BILLING
Memory = MemoryStore[Rows]


class OvertakenClock(SettableClock):
    """A clock at whose first reading in a transaction another one commits."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self._memory = memory
        self.readings = 0

    def now(self) -> datetime:
        self.readings += 1
        if self.readings == 1:
            self._memory.rows = replace(self._memory.rows)
        return super().now()


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


async def test_the_password_is_stored_only_as_its_argon2id_hash(service: UserService, memory: Memory) -> None:
    await service.register()
    stored = str(asdict(memory.rows))
    assert "$argon2id$v=19$" in stored
    assert PASSWORD not in stored


async def test_an_email_is_unique_without_regard_to_case(service: UserService) -> None:
    user = await service.register()
    with pytest.raises(EmailTaken) as taken:
        await service.register(user.email.swapcase())
    assert [violation.field for violation in taken.value.violations] == ["email"]


async def test_registering_and_changing_are_published_with_the_request_they_go_back_to(
    service: UserService,
) -> None:
    with bound("request-1"):
        user = await service.register()
        await service.accounts.change_profile(user.user_id, ProfileChange(first_name="Anne"))
    registered, changed = await service.store.published(user.user_id)
    assert registered.payload == UserRegistered(
        user_id=user.user_id, email=user.email, first_name="Ann", last_name="Lee"
    )
    assert changed.payload == UserProfileUpdated(
        user_id=user.user_id, email=user.email, first_name="Anne", last_name="Lee"
    )
    assert {registered.correlation_id, changed.correlation_id} == {"request-1"}


async def test_a_registration_that_fails_publishes_nothing(service: UserService, memory: Memory) -> None:
    user = await service.register()
    with pytest.raises(EmailTaken):
        await service.register(user.email)
    assert len(memory.published) == 1


async def test_a_registration_that_lost_a_race_is_stored_and_published_once(
    service: UserService, memory: Memory
) -> None:
    clock = OvertakenClock(memory)
    accounts = Accounts(service.store.uow, service.store.users, service.passwords, clock)
    user = await accounts.register(new_email(), PASSWORD, "Ann", "Lee")
    assert clock.readings == 2
    assert await service.accounts.get(user.user_id) == user
    assert [event.topic for event in await service.store.published(user.user_id)] == ["user.registered"]


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


async def test_refresh_tokens_are_stored_only_as_their_digest(service: UserService, memory: Memory) -> None:
    user = await service.register()
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    (stored,) = memory.rows.tokens
    assert stored == digest(token)
    assert token not in str(asdict(memory.rows))
    assert len(token) >= 43  # 256 bits in base64


async def test_a_session_lasts_while_it_is_used_but_not_for_ever(service: UserService) -> None:
    user = await service.register()
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    for days in (29, 29, 29):
        service.clock.at += timedelta(days=days)
        token = (await service.sessions.refresh(token)).refresh_token
    service.clock.at += timedelta(days=4)
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
    async with Argon2Passwords.open(
        threads=1, waiting=1, memory_kib=19_456, iterations=2, lanes=1
    ) as passwords:
        real = UserService(service.store, passwords, service.issuer)
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
    service.clock.at += timedelta(minutes=1)
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
    service.clock.at += timedelta(minutes=2)
    await service.sessions.sign_in(user.email, PASSWORD)


async def test_a_flood_of_sign_ins_is_shed(service: UserService) -> None:
    user = await service.register()
    async with Argon2Passwords.open(threads=1, waiting=2, memory_kib=64, iterations=1, lanes=1) as passwords:
        small = UserService(service.store, passwords, service.issuer)
        done = await outcomes(*(small.sessions.sign_in(user.email, PASSWORD) for _ in range(10)))
    assert done.count(SignInBusy) == 7


async def test_signing_in_strengthens_a_hash_of_older_parameters(service: UserService) -> None:
    user = await service.register()
    async with Argon2Passwords.open(threads=1, waiting=2, memory_kib=128, iterations=2, lanes=1) as stronger:
        later = UserService(service.store, stronger, service.issuer)
        await later.sessions.sign_in(user.email, PASSWORD)
        rehashed = (await later.accounts.get(user.user_id)).password_hash
        assert "m=128,t=2" in rehashed
        await later.sessions.sign_in(user.email, PASSWORD)
        assert (await later.accounts.get(user.user_id)).password_hash == rehashed


async def test_what_has_no_effect_any_more_is_pruned(service: UserService, memory: Memory) -> None:
    user = await service.register()
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    with pytest.raises(InvalidCredentials):
        await service.sessions.sign_in(user.email, "wrong")
    await service.sessions.prune()
    token = (await service.sessions.refresh(token)).refresh_token
    service.clock.at += timedelta(days=91)
    await service.sessions.prune()
    assert memory.rows == Rows(users=memory.rows.users)


# --------------------------------------------------------------------------------------------------- staff


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


# ------------------------------------------------------------------------------------------------- budgets


@pytest.mark.stack
async def test_use_cases_take_few_statements(
    in_postgres: Store, database: Database, passwords: Argon2Passwords, service: UserService
) -> None:
    real = UserService(in_postgres, passwords, service.issuer)
    counted = [database.statements]

    def statements() -> int:
        counted.append(database.statements)
        return counted[-1] - counted[-2]

    user = await real.register()
    assert statements() <= 2
    await real.accounts.change_profile(user.user_id, ProfileChange(first_name="Anne"))
    assert statements() <= 3
    await real.books.add(user.user_id, SHIPPING, SOMEWHERE, as_default=True)
    assert statements() <= 4
    token = (await real.sessions.sign_in(user.email, PASSWORD)).refresh_token
    assert statements() <= 3
    await real.sessions.refresh(token)
    assert statements() <= 3
