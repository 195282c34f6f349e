"""What the use cases do, on a store in memory."""

import asyncio
import time
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from statistics import median
from uuid import uuid4

import jwt
import pytest
from argon2 import PasswordHasher

from stoa_chassis.context import bound
from stoa_chassis.errors import DomainError, InvalidArgument
from stoa_chassis.memory import MemoryStore
from stoa_chassis.postgres import Database
from stoa_chassis.testing import SettableClock
from stoa_events import UserEmailVerificationRequested, UserProfileUpdated, UserRegistered
from stoa_user.model import (
    AddressKind,
    AddressNotFound,
    CurrentPasswordNeeded,
    CurrentPasswordWrong,
    EmailTaken,
    Failures,
    InvalidCredentials,
    InvalidRefreshToken,
    ProfileChange,
    SignInBusy,
    SignInLocked,
    UserNotFound,
    digest,
)
from stoa_user.passwords import Argon2Passwords
from stoa_user.service import Accounts, Requester
from stoa_user.testing import Rows

from .conftest import (
    PASSWORD,
    SOMEWHERE,
    Store,
    UserService,
    new_email,
    roles,
    session_of,
    subject_of,
)

HERE, THERE = "192.0.2.1", "198.51.100.1"
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
        await service.accounts.change_profile(uuid4(), ProfileChange(first_name="Ann"), Requester(uuid4()))
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
        await service.accounts.change_profile(
            user.user_id, ProfileChange(first_name="Anne"), Requester(user.user_id)
        )
    registered, asked, changed = await service.store.published(user.user_id)
    assert registered.payload == UserRegistered(
        user_id=user.user_id, email=user.email, first_name="Ann", last_name="Lee", locale="en"
    )
    assert isinstance(asked.payload, UserEmailVerificationRequested)
    assert changed.payload == UserProfileUpdated(
        user_id=user.user_id, email=user.email, first_name="Anne", last_name="Lee", locale="en"
    )
    assert {event.correlation_id for event in (registered, asked, changed)} == {"request-1"}


async def test_a_registration_that_fails_publishes_nothing(service: UserService, memory: Memory) -> None:
    user = await service.register()
    with pytest.raises(EmailTaken):
        await service.register(user.email)
    assert len(memory.published) == 2


async def test_a_registration_that_lost_a_race_is_stored_and_published_once(
    service: UserService, memory: Memory
) -> None:
    clock = OvertakenClock(memory)
    accounts = Accounts(
        service.store.uow,
        service.store.users,
        service.store.profiles,
        service.passwords,
        service.authenticator,
        service.guests,
        service.mailing,
        clock,
    )
    user = await accounts.register(new_email(), PASSWORD, "Ann", "Lee")
    assert clock.readings == 2
    assert await service.accounts.get(user.user_id) == user
    topics = [event.topic for event in await service.store.published(user.user_id)]
    assert topics == ["user.registered", "user.email_verification_requested"]


async def test_one_signs_in_with_a_changed_email_when_it_is_confirmed(service: UserService) -> None:
    user, other = await service.register(), await service.register()
    with pytest.raises(EmailTaken):
        await service.change_email(user.user_id, other.email.upper())
    new = new_email()
    changed = await service.change_email(user.user_id, new)
    assert (changed.email, changed.pending_email) == (user.email, new)
    await service.sessions.sign_in(user.email, PASSWORD)
    with pytest.raises(InvalidCredentials):
        await service.sessions.sign_in(new, PASSWORD)
    await service.confirm_email(user.user_id)
    await service.sessions.sign_in(new.upper(), PASSWORD)
    with pytest.raises(InvalidCredentials):
        await service.sessions.sign_in(user.email, PASSWORD)


async def test_the_capitals_of_the_own_email_can_be_changed_without_the_password(
    service: UserService,
) -> None:
    user = await service.register()
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    changed = await service.change_email(user.user_id, f" {user.email.lower()} ", password="")
    assert changed.email == user.email.lower()
    assert (await service.accounts.get(user.user_id)).email == user.email.lower()
    await service.sessions.refresh(token)


async def test_another_email_needs_the_password_and_nothing_changes_without_it(service: UserService) -> None:
    user = await service.register()
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    with pytest.raises(CurrentPasswordNeeded) as needed:
        await service.change_email(user.user_id, new_email(), password="")
    assert needed.value.message == "current_password: is needed to change the email address or the password"
    with pytest.raises(CurrentPasswordWrong) as wrong:
        await service.change_email(user.user_id, new_email(), password="wrong")
    assert wrong.value.message == "current_password: is wrong"
    assert await service.accounts.get(user.user_id) == user
    await service.sessions.refresh(token)


async def test_another_email_ends_all_sessions_but_the_one_that_asked_for_it(service: UserService) -> None:
    user = await service.register()
    here, elsewhere, others = [
        await service.sessions.sign_in(email, PASSWORD)
        for email in (user.email, user.email, (await service.register()).email)
    ]
    await service.change_email(user.user_id, new_email(), session_id=session_of(here))
    elsewhere = await service.sessions.refresh(elsewhere.refresh_token)
    await service.confirm_email(user.user_id)
    await service.sessions.refresh(here.refresh_token)
    await service.sessions.refresh(others.refresh_token)
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(elsewhere.refresh_token)


async def test_staff_changes_an_email_with_its_own_password_and_ends_all_sessions(
    service: UserService,
) -> None:
    user = await service.register()
    staff = await service.accounts.ensure_staff(new_email(), "the password of staff")
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    by, new = staff.user_id, new_email()
    with pytest.raises(CurrentPasswordWrong):
        await service.change_email(user.user_id, new, by=by, session_id=uuid4())
    await service.move(user.user_id, new, by=by, session_id=uuid4(), password="the password of staff")
    assert (await service.accounts.get(user.user_id)).email == new
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(token)


async def test_who_signed_in_elsewhere_has_no_password_here(service: UserService) -> None:
    user = await service.register()
    with pytest.raises(CurrentPasswordWrong):
        await service.accounts.change_profile(
            user.user_id, ProfileChange(email=new_email()), Requester(None), PASSWORD
        )


async def test_guesses_at_the_password_of_a_change_are_counted_as_those_at_sign_in(
    service: UserService,
) -> None:
    user = await service.register()
    for _ in range(10):
        with pytest.raises(CurrentPasswordWrong):
            await service.change_email(user.user_id, new_email(), password="wrong", address="192.0.2.1")
    with pytest.raises(SignInLocked):
        await service.change_email(user.user_id, new_email(), address="192.0.2.1")
    with pytest.raises(SignInLocked):
        await service.sessions.sign_in(user.email, PASSWORD, "192.0.2.1")


async def test_what_is_no_email_is_refused_before_any_work(service: UserService) -> None:
    user = await service.register()
    for email in (
        "ann",
        "ann@",
        "@example.com",
        "ann@b@example.com",
        "ann@exa mple.com",
        "ann@bücher..example",
    ):
        with pytest.raises(InvalidArgument, match="email: must be an email address"):
            await service.register(email)
        with pytest.raises(InvalidArgument, match="email: must be an email address"):
            await service.change_email(user.user_id, email)


async def test_an_email_in_unicode_is_the_same_in_ascii_and_in_capitals(service: UserService) -> None:
    name = uuid4().hex
    user = await service.register(f" {name}@B\u00fccher.example ")
    assert user.email == f"{name}@B\u00fccher.example"
    for same in (
        f"{name}@bu\u0308cher.example",
        f"{name}@B\u00dcCHER.EXAMPLE",
        f"{name.upper()}@xn--bcher-kva.example",
    ):
        with pytest.raises(EmailTaken):
            await service.register(same)
        await service.sessions.sign_in(f" {same} ", PASSWORD)
    await service.change_email(user.user_id, f"{name}@xn--bcher-kva.example", password="")


# ------------------------------------------------------------------------------------------------ passwords


async def test_a_password_is_the_same_however_its_letters_are_composed(service: UserService) -> None:
    composed, decomposed = "caf\u00e9 au lait", "cafe\u0301\u3000au\u00a0lait"
    for typed, again in ((composed, decomposed), (decomposed, composed)):
        email = new_email()
        await service.accounts.register(email, typed, "Ann", "Lee")
        await service.sessions.sign_in(email, again)
        with pytest.raises(InvalidCredentials):
            await service.sessions.sign_in(email, "cafe au lait")


async def test_a_hash_of_what_was_typed_is_good_and_made_anew(service: UserService, memory: Memory) -> None:
    decomposed = "cafe\u0301 au lait"
    user = await service.register()
    old = replace(user, password_hash=PasswordHasher(1, 64, 1).hash(decomposed))
    memory.rows = replace(memory.rows, users={user.user_id: old})
    await service.sessions.sign_in(user.email, decomposed)
    assert (await service.accounts.get(user.user_id)).password_hash != old.password_hash
    await service.sessions.sign_in(user.email, "caf\u00e9 au lait")


async def test_a_password_of_before_that_nobody_may_choose_any_more_still_opens_its_account(
    service: UserService, memory: Memory
) -> None:
    user = await service.register()
    for password in ("password", "\ttab \x00 and more"):
        old = replace(user, password_hash=PasswordHasher(1, 32, 1).hash(password))
        memory.rows = replace(memory.rows, users={user.user_id: old})
        await service.sessions.sign_in(user.email, password)
        assert "m=64" in (await service.accounts.get(user.user_id)).password_hash
        await service.sessions.sign_in(user.email, password)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("password", "is one of the most common passwords; please choose another"),
        (" PassWord ", "is one of the most common passwords; please choose another"),
        ("12345678", "is one of the most common passwords; please choose another"),
        (
            "\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18",
            "is one of the most common passwords; please choose another",
        ),
        ("        ", "must not be blank"),
        ("\u3000" * 8, "must not be blank"),
        ("aaaaAAAA", "must not be one character again and again"),
        ("e\u0301" * 4, "must have at least 8 characters"),
        ("\u200b" * 8, "must not be one character again and again"),
    ],
)
async def test_a_password_that_nobody_should_choose_is_refused(
    service: UserService, password: str, why: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await service.accounts.register(new_email(), password, "Ann", "Lee")
    assert refused.value.message == f"password: {why}"
    with pytest.raises(InvalidArgument, match="password"):
        await service.accounts.ensure_staff(new_email(), password)


@pytest.mark.parametrize("password", ["aaaaaaab", "pass word", "  x  x  x", "caf\u00e9s\U0001f600 ok"])
async def test_any_other_password_of_eight_characters_is_taken(service: UserService, password: str) -> None:
    email = new_email()
    await service.accounts.register(email, password, "Ann", "Lee")
    await service.sessions.sign_in(email, password)


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


async def test_a_refresh_token_gives_a_new_one_and_a_late_second_use_ends_the_session(
    service: UserService,
) -> None:
    user = await service.register()
    first = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    elsewhere = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    second = (await service.sessions.refresh(first)).refresh_token
    third = (await service.sessions.refresh(second)).refresh_token
    assert len({first, second, third}) == 3
    service.clock.advance(seconds=11)
    for token in (first, third, second):
        with pytest.raises(InvalidRefreshToken):
            await service.sessions.refresh(token)
    await service.sessions.refresh(elsewhere)


async def test_within_seconds_a_second_use_gets_the_same_successor_and_a_token_as_good(
    service: UserService,
) -> None:
    user = await service.register()
    signed_in = await service.sessions.sign_in(user.email, PASSWORD)
    first = await service.sessions.refresh(signed_in.refresh_token)
    service.clock.advance(seconds=10)
    again = await service.sessions.refresh(signed_in.refresh_token)
    assert again.refresh_token == first.refresh_token
    assert session_of(again) == session_of(first) == session_of(signed_in)
    assert subject_of(again) == user.user_id
    service.clock.advance(seconds=1)
    await service.sessions.refresh(first.refresh_token)


async def test_the_grace_of_a_token_is_over_with_its_session_and_with_itself(service: UserService) -> None:
    user = await service.register()
    signed_out = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    await service.sessions.refresh(signed_out)
    await service.sessions.sign_out(signed_out)
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(signed_out)
    expiring = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    service.clock.advance(days=30, seconds=-1)
    after = (await service.sessions.refresh(expiring)).refresh_token
    service.clock.advance(seconds=1)
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(expiring)
    await service.sessions.refresh(after)


async def test_a_token_that_an_older_process_used_has_no_successor_to_give_out(
    service: UserService, memory: Memory
) -> None:
    user = await service.register()
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    await service.sessions.refresh(token)
    (session_id, used) = memory.rows.tokens[digest(token)]
    by_older = {**memory.rows.tokens, digest(token): (session_id, replace(used, successor_salt=None))}
    memory.rows = replace(memory.rows, tokens=by_older)
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(token)


async def test_nothing_that_is_stored_gives_a_token_away_for_longer_than_the_grace(
    service: UserService, memory: Memory
) -> None:
    user = await service.register()
    tokens = [(await service.sessions.sign_in(user.email, PASSWORD)).refresh_token]
    for _ in range(3):
        tokens.append((await service.sessions.refresh(tokens[-1])).refresh_token)
        service.clock.advance(seconds=11)
    kept = [memory.rows.tokens[digest(token)][1].successor_salt for token in tokens]
    assert [salt is not None for salt in kept] == [False, False, True, False]
    assert not any(token in str(asdict(memory.rows)) for token in tokens)


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


async def test_signing_out_ends_no_other_session(service: UserService) -> None:
    user = await service.register()
    here, elsewhere = [(await service.sessions.sign_in(user.email, PASSWORD)).refresh_token for _ in range(2)]
    await service.sessions.sign_out(here)
    await service.sessions.refresh(elsewhere)


async def test_another_name_ends_no_session(service: UserService) -> None:
    user = await service.register()
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    await service.accounts.change_profile(
        user.user_id, ProfileChange(first_name="Anne"), Requester(user.user_id)
    )
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
    await service.fail(email.upper(), 5, HERE)
    await service.fail(email, 5, HERE)
    with pytest.raises(SignInLocked) as locked:
        await service.sessions.sign_in(email, PASSWORD, HERE)
    assert locked.value.retry_after == timedelta(minutes=1)
    service.clock.advance(minutes=1)
    await service.fail(email, 1, HERE)
    with pytest.raises(SignInLocked) as locked:
        await service.sessions.sign_in(email, PASSWORD, HERE)
    assert locked.value.retry_after == timedelta(minutes=2)


async def test_the_lock_opens_by_itself_and_success_forgets_the_failures(service: UserService) -> None:
    user = await service.register()
    for _ in range(3):
        await service.fail(user.email, 9, HERE)
        service.clock.advance(minutes=1)
        await service.sessions.sign_in(user.email, PASSWORD, HERE)
    await service.fail(user.email, 10, HERE)
    service.clock.advance(minutes=1)
    await service.sessions.sign_in(user.email, PASSWORD, HERE)


async def test_nobody_locks_an_owner_out_of_where_she_signs_in(service: UserService) -> None:
    user = await service.register()
    await service.sessions.sign_in(user.email, PASSWORD, HERE)
    for hour in range(72):
        with suppress(InvalidCredentials, SignInLocked):
            await service.sessions.sign_in(user.email, "wrong", f"203.0.113.{hour % 3}")
            await service.fail(user.email, 12, f"198.51.100.{hour}")
        await service.sessions.sign_in(user.email, PASSWORD, HERE)
        service.clock.advance(hours=1)


async def test_for_strangers_an_account_is_slow_but_never_for_longer_than_a_minute(
    service: UserService,
) -> None:
    user = await service.register()
    for stranger in range(9):
        await service.fail(user.email, 1, f"203.0.113.{stranger}")
        await service.sessions.sign_in(user.email, PASSWORD, f"192.0.2.{stranger}")
    waits = []
    for stranger in range(9, 18):
        await service.fail(user.email, 1, f"203.0.113.{stranger}")
        with pytest.raises(SignInLocked) as locked:
            await service.sessions.sign_in(user.email, PASSWORD, "2001:db8::1")
        wait = locked.value.retry_after or timedelta()
        waits.append(wait.total_seconds())
        service.clock.at += wait
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    await service.sessions.sign_in(user.email, PASSWORD, "2001:db8::1")
    await service.fail(user.email, 1, "203.0.113.18")
    await service.sessions.sign_in(user.email, PASSWORD, "2001:db8::2")


async def test_who_shares_an_address_with_a_guesser_is_kept_out_of_no_other_account(
    service: UserService,
) -> None:
    victim, colleague = await service.register(), await service.register()
    await service.fail(victim.email, 10, HERE)
    await service.sessions.sign_in(colleague.email, PASSWORD, HERE)


async def test_an_origin_is_known_to_its_own_account_alone(service: UserService) -> None:
    user, other = await service.register(), await service.register()
    await service.sessions.sign_in(other.email, PASSWORD, HERE)
    await service.fail(user.email, 10, THERE)
    with pytest.raises(SignInLocked):
        await service.sessions.sign_in(user.email, PASSWORD, HERE)


async def test_failures_at_a_known_origin_do_not_slow_down_strangers(service: UserService) -> None:
    user = await service.register()
    await service.sessions.sign_in(user.email, PASSWORD, HERE)
    await service.fail(user.email, 10, HERE)
    await service.sessions.sign_in(user.email, PASSWORD, THERE)
    with pytest.raises(SignInLocked):
        await service.sessions.sign_in(user.email, PASSWORD, HERE)


async def test_a_known_origin_is_noted_once_a_day(service: UserService, memory: Memory) -> None:
    user = await service.register()
    for _ in range(2):
        await service.sessions.sign_in(user.email, PASSWORD, HERE)
        (seen,) = memory.rows.origins.values()
        assert seen == (Failures(), service.clock.at)
        service.clock.advance(days=1)
    service.clock.advance(seconds=-1)
    await service.sessions.sign_in(user.email, PASSWORD, HERE)
    (unchanged,) = memory.rows.origins.values()
    assert unchanged == seen


async def test_a_flood_of_sign_ins_is_shed(service: UserService) -> None:
    user = await service.register()
    async with Argon2Passwords.open(threads=1, waiting=2, memory_kib=64, iterations=1, lanes=1) as passwords:
        small = UserService(service.store, passwords, service.issuer)
        sign_ins = (small.sessions.sign_in(user.email, PASSWORD) for _ in range(10))
        done = await asyncio.gather(*sign_ins, return_exceptions=True)
    shed = [each for each in done if isinstance(each, SignInBusy)]
    assert [each.retry_after for each in shed] == [timedelta(seconds=1)] * 7


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
    guest = await service.guests.welcome(HERE)
    await service.sessions.sign_in(user.email, PASSWORD, guest_token=guest.refresh_token)
    await service.recovery.request(user.email, HERE)
    token = (await service.sessions.sign_in(user.email, PASSWORD)).refresh_token
    await service.fail(user.email, 1, THERE)
    await service.sessions.prune()
    await service.authenticator.prune()
    assert (len(memory.rows.origins), len(memory.rows.strangers)) == (2, 1)
    service.clock.advance(days=1, seconds=1)
    await service.authenticator.prune()
    assert (len(memory.rows.origins), len(memory.rows.strangers)) == (1, 0)
    token = (await service.sessions.refresh(token)).refresh_token
    service.clock.at += timedelta(days=91)
    await service.sessions.prune()
    await service.authenticator.prune()
    await service.guests.prune()
    await service.recovery.prune()
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
    assert roles(signed_in.access_token) == ["admin", "staff"]
    assert roles((await service.sessions.refresh(signed_in.refresh_token)).access_token) == ["admin", "staff"]


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
    assert statements() <= 4
    await real.accounts.change_profile(
        user.user_id, ProfileChange(first_name="Anne"), Requester(user.user_id)
    )
    assert statements() <= 3
    await real.books.add(user.user_id, SHIPPING, SOMEWHERE, as_default=True)
    assert statements() <= 4
    await real.sessions.sign_in(user.email, PASSWORD)
    assert statements() <= 5
    token = (await real.sessions.sign_in(user.email, PASSWORD)).refresh_token
    assert statements() <= 4
    await real.sessions.refresh(token)
    assert statements() <= 3
