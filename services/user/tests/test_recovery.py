"""Getting back in by mail, and showing that one reads the mail of an address."""

from datetime import timedelta

import pytest

from stoa_chassis.errors import InvalidArgument
from stoa_chassis.memory import MemoryStore
from stoa_events import UserEmailVerified, UserPasswordChanged, UserPasswordResetRequested
from stoa_user.model import (
    EmailTaken,
    EmailVerified,
    InvalidCredentials,
    InvalidMailedToken,
    InvalidRefreshToken,
    ProfileChange,
    Purpose,
    SignInLocked,
    TooManyRequests,
)
from stoa_user.service import Requester
from stoa_user.testing import Rows

from .conftest import PASSWORD, UserService, new_email, outcomes, session_of

HERE, THERE = "192.0.2.1", "198.51.100.1"
NEW = "another good password"
RESET, CONFIRM = Purpose.RESET_PASSWORD, Purpose.CONFIRM_EMAIL


async def asked(service: UserService, email: str, address: str = "") -> str:
    """Ask for a new password, and return what was mailed."""
    await service.recovery.request(email, address)
    user = await service.store.users.by_email(email)
    assert user is not None
    return (await service.mailed(user.user_id, RESET))[-1]


# ------------------------------------------------------------------------------------------- new passwords


async def test_a_new_password_is_set_with_what_was_mailed_and_all_sessions_end(
    service_on_each: UserService,
) -> None:
    service = service_on_each
    user = await service.register()
    before = await service.sessions.sign_in(user.email, PASSWORD)
    await service.recovery.confirm(await asked(service, user.email.upper()), NEW)
    await service.sessions.sign_in(user.email, NEW)
    with pytest.raises(InvalidCredentials):
        await service.sessions.sign_in(user.email, PASSWORD)
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(before.refresh_token)


async def test_the_mail_goes_to_the_owner_alone_in_her_language(service: UserService) -> None:
    user = await service.accounts.register(new_email(), PASSWORD, "Ann", "Lee", locale="de")
    token = await asked(service, user.email)
    (mail,) = [
        event.payload
        for event in await service.store.published(user.user_id)
        if isinstance(event.payload, UserPasswordResetRequested)
    ]
    assert mail == UserPasswordResetRequested(
        user_id=user.user_id,
        email=user.email,
        first_name="Ann",
        locale="de",
        token=token,
        expires_at=service.clock.now() + timedelta(minutes=30),
    )


async def test_a_new_password_is_told_to_the_owner_and_confirms_the_address(service: UserService) -> None:
    user = await service.register()
    await service.recovery.confirm(await asked(service, user.email), NEW)
    assert (await service.accounts.get(user.user_id)).email_verified
    told = [type(event.payload) for event in await service.store.published(user.user_id)][-2:]
    assert told == [UserEmailVerified, UserPasswordChanged]


async def test_what_was_mailed_is_good_once_and_for_half_an_hour(service_on_each: UserService) -> None:
    service = service_on_each
    user = await service.register()
    used, unused = await asked(service, user.email), await asked(service, user.email)
    await service.recovery.confirm(used, NEW)
    for token in (used, unused, "never mailed"):
        with pytest.raises(InvalidMailedToken, match="token: is not good any more"):
            await service.recovery.confirm(token, "a third good password")
    late = await asked(service, user.email)
    service.clock.advance(minutes=30)
    with pytest.raises(InvalidMailedToken):
        await service.recovery.confirm(late, "a third good password")
    await service.sessions.sign_in(user.email, NEW)


async def test_used_twice_at_the_same_moment_it_is_good_once(service_on_each: UserService) -> None:
    service = service_on_each
    user = await service.register()
    token = await asked(service, user.email)
    done = await outcomes(*(service.recovery.confirm(token, f"{NEW} {i}") for i in range(4)))
    assert (done.count(None), done.count(InvalidMailedToken)) == (1, 3)


async def test_a_password_that_nobody_should_choose_is_refused_and_the_token_stays_good(
    service: UserService,
) -> None:
    user = await service.register()
    token = await asked(service, user.email)
    with pytest.raises(InvalidArgument, match="password: is one of the most common"):
        await service.recovery.confirm(token, "password")
    await service.recovery.confirm(token, NEW)


async def test_what_confirms_an_address_sets_no_password_and_the_other_way_round(
    service: UserService,
) -> None:
    user = await service.register()
    (confirm,) = await service.mailed(user.user_id, CONFIRM)
    with pytest.raises(InvalidMailedToken):
        await service.recovery.confirm(confirm, NEW)
    reset = await asked(service, user.email)
    with pytest.raises(InvalidMailedToken):
        await service.accounts.confirm_email(reset)


async def test_nothing_tells_whether_an_email_has_an_account(
    service: UserService, memory: MemoryStore[Rows]
) -> None:
    before = len(memory.published)
    await service.recovery.request(new_email(), HERE)
    assert len(memory.published) == before
    assert not memory.rows.mailed
    with pytest.raises(InvalidArgument, match="email: must be an email address"):
        await service.recovery.request("ann", HERE)


async def test_an_account_has_so_many_links_and_a_stranger_who_asks_keeps_nobody_from_one(
    service_on_each: UserService,
) -> None:
    """The attack: somebody asks again and again in the owner's name. Her mailbox gets few mails, and each of
    them lets her in."""
    service = service_on_each
    user = await service.register()
    for i in range(20):
        await service.recovery.request(user.email, f"203.0.113.{i}")
    first, _, third = await service.mailed(user.user_id, RESET)
    await service.recovery.request(user.email, HERE)
    assert len(await service.mailed(user.user_id, RESET)) == 3
    await service.recovery.confirm(first, NEW)
    with pytest.raises(InvalidMailedToken):
        await service.recovery.confirm(third, PASSWORD)
    await asked(service, user.email)


async def test_one_place_asks_so_often_in_an_hour_whether_or_not_there_are_accounts(
    service: UserService,
) -> None:
    user = await service.register()
    for email in [user.email, *(new_email() for _ in range(4))]:
        await service.recovery.request(email, HERE)
    for email in (user.email, new_email()):
        with pytest.raises(TooManyRequests):
            await service.recovery.request(email, HERE)
    await service.recovery.request(user.email, THERE)


async def test_an_owner_whom_strangers_locked_out_gets_in_by_mail(service_on_each: UserService) -> None:
    service = service_on_each
    user = await service.register()
    for i in range(30):
        service.clock.advance(minutes=2)
        with pytest.raises(InvalidCredentials):
            await service.sessions.sign_in(user.email, "wrong", f"203.0.113.{i}")
    for _ in range(10):
        service.clock.advance(minutes=2)
        with pytest.raises(InvalidCredentials):
            await service.sessions.sign_in(user.email, "wrong", HERE)
    with pytest.raises(SignInLocked):
        await service.sessions.sign_in(user.email, PASSWORD, HERE)
    await service.recovery.confirm(await asked(service, user.email), NEW, HERE)
    await service.sessions.sign_in(user.email, NEW, HERE)
    await service.sessions.sign_in(user.email, NEW, THERE)


async def test_guesses_after_that_lock_strangers_out_and_not_the_place_where_she_came_back(
    service: UserService,
) -> None:
    user = await service.register()
    await service.recovery.confirm(await asked(service, user.email), NEW, HERE)
    await service.fail(user.email, 10, THERE)
    with pytest.raises(SignInLocked):
        await service.sessions.sign_in(user.email, NEW, "203.0.113.9")
    await service.sessions.sign_in(user.email, NEW, HERE)


async def test_a_thief_who_named_another_address_is_out_when_the_owner_is_back(service: UserService) -> None:
    user, thiefs = await service.register(), new_email()
    await service.change_email(user.user_id, thiefs)
    link_of_thief = (await service.mailed(user.user_id, CONFIRM))[-1]
    await service.recovery.confirm(await asked(service, user.email), NEW)
    with pytest.raises(InvalidMailedToken):
        await service.accounts.confirm_email(link_of_thief)
    found = await service.accounts.get(user.user_id)
    assert (found.email, found.pending_email) == (user.email, "")


async def test_who_opened_an_account_with_anothers_address_loses_it_to_her(service: UserService) -> None:
    """Whoever reads the mail of an address is let in, and whoever was in before is out."""
    hers = new_email()
    thief = await service.register(hers)
    session = await service.sessions.sign_in(hers, PASSWORD)
    await service.recovery.confirm(await asked(service, hers), NEW)
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(session.refresh_token)
    assert (await service.accounts.get(thief.user_id)).email_verified


async def test_signing_in_while_the_password_is_replaced_begins_no_session_of_the_old_one(
    service: UserService,
) -> None:
    user = await service.register()
    proof = await service.authenticator.check(user.email, PASSWORD, HERE)
    assert proof is not None
    service.clock.advance(seconds=1)
    await service.recovery.confirm(await asked(service, user.email), NEW)
    service.authenticator.check = lambda *_: done(proof)  # type: ignore[assignment,method-assign]
    with pytest.raises(InvalidCredentials):
        await service.sessions.sign_in(user.email, PASSWORD, HERE)
    assert await service.sessions.page(user.user_id, None, 10) == []


async def done(value: object) -> object:
    return value


# ----------------------------------------------------------------------------------------------- addresses


async def test_a_new_account_confirms_its_address_by_the_mail_that_it_gets(service: UserService) -> None:
    user = await service.register()
    assert not (await service.accounts.get(user.user_id)).email_verified
    session = await service.sessions.sign_in(user.email, PASSWORD)
    await service.confirm_email(user.user_id)
    assert (await service.accounts.get(user.user_id)).email_verified
    await service.sessions.refresh(session.refresh_token)
    assert (await service.store.published(user.user_id))[-1].payload == UserEmailVerified(
        user_id=user.user_id, email=user.email
    )
    with pytest.raises(InvalidMailedToken):
        await service.confirm_email(user.user_id)
    with pytest.raises(EmailVerified):
        await service.accounts.request_verification(user.user_id, Requester(user.user_id))


async def test_the_mail_is_sent_again_for_whom_it_did_not_reach_but_not_without_end(
    service: UserService,
) -> None:
    user = await service.register()
    requester = Requester(user.user_id)
    for _ in range(9):
        await service.accounts.request_verification(user.user_id, requester)
    with pytest.raises(TooManyRequests) as refused:
        await service.accounts.request_verification(user.user_id, requester)
    assert refused.value.retry_after == timedelta(days=3)
    with pytest.raises(TooManyRequests):
        await service.change_email(user.user_id, new_email())
    assert not (await service.accounts.get(user.user_id)).pending_email
    tokens = await service.mailed(user.user_id, CONFIRM)
    assert len(tokens) == 10
    await service.accounts.confirm_email(tokens[0])


async def test_an_address_that_another_account_got_meanwhile_is_not_taken_over(
    service: UserService,
) -> None:
    user, wanted = await service.register(), new_email()
    await service.change_email(user.user_id, wanted)
    await service.register(wanted.upper())
    with pytest.raises(EmailTaken):
        await service.confirm_email(user.user_id)
    assert (await service.accounts.get(user.user_id)).email == user.email


async def test_of_addresses_that_were_named_one_after_the_other_the_last_can_be_confirmed(
    service: UserService,
) -> None:
    user, second = await service.register(), new_email()
    for email in (new_email(), second):
        await service.change_email(user.user_id, email)
    registered, superseded, last = await service.mailed(user.user_id, CONFIRM)
    with pytest.raises(InvalidMailedToken):
        await service.accounts.confirm_email(superseded)
    await service.accounts.confirm_email(last)
    assert (await service.accounts.get(user.user_id)).email == second
    with pytest.raises(InvalidMailedToken):
        await service.accounts.confirm_email(registered)


async def test_a_link_to_the_address_of_before_sets_no_password(service: UserService) -> None:
    user = await service.register()
    old = await asked(service, user.email)
    await service.move(user.user_id, new_email())
    with pytest.raises(InvalidMailedToken):
        await service.recovery.confirm(old, NEW)


async def test_the_owner_stays_signed_in_where_she_asked_for_another_address(service: UserService) -> None:
    user = await service.register()
    here, elsewhere = [await service.sessions.sign_in(user.email, PASSWORD) for _ in range(2)]
    await service.move(user.user_id, new_email(), session_id=session_of(here))
    await service.sessions.refresh(here.refresh_token)
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(elsewhere.refresh_token)


# ------------------------------------------------------------------------------------- the password of now


async def test_an_owner_sets_another_password_with_the_old_one_and_the_other_sessions_end(
    service_on_each: UserService,
) -> None:
    service = service_on_each
    user = await service.register()
    here, elsewhere = [await service.sessions.sign_in(user.email, PASSWORD) for _ in range(2)]
    link = await asked(service, user.email)
    me = Requester(user.user_id, session_of(here))
    for password, why in (("", "is needed"), ("wrong", "is wrong")):
        with pytest.raises(InvalidArgument, match=f"current_password: {why}"):
            await service.accounts.change_profile(user.user_id, ProfileChange(), me, password, NEW)
    with pytest.raises(InvalidArgument, match="password: is one of the most common"):
        await service.accounts.change_profile(user.user_id, ProfileChange(), me, PASSWORD, "password")
    await service.accounts.change_profile(user.user_id, ProfileChange(), me, PASSWORD, NEW)
    await service.sessions.sign_in(user.email, NEW)
    await service.sessions.refresh(here.refresh_token)
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(elsewhere.refresh_token)
    with pytest.raises(InvalidMailedToken):
        await service.recovery.confirm(link, PASSWORD)
    assert isinstance((await service.store.published(user.user_id))[-1].payload, UserPasswordChanged)


async def test_nobody_sets_the_password_of_another(service: UserService) -> None:
    user, admin = await service.register(), await service.staff("admin")
    for requester in (Requester(admin.user_id, is_admin=True), Requester(None, is_admin=True)):
        with pytest.raises(InvalidArgument, match="password: can be set by the owner of the account alone"):
            await service.accounts.change_profile(user.user_id, ProfileChange(), requester, PASSWORD, NEW)
    await service.sessions.sign_in(user.email, PASSWORD)
