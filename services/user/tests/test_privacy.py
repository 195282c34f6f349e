"""What a person may ask of an account: where it is signed in, what is kept of her, and to be forgotten."""

from collections.abc import Sequence
from uuid import uuid4

import pytest

from stoa_chassis.memory import MemoryStore
from stoa_events import UserErased
from stoa_user.model import (
    AddressKind,
    AttemptsKey,
    CurrentPasswordWrong,
    InvalidCredentials,
    InvalidMailedToken,
    InvalidRefreshToken,
    LastAdmin,
    Purpose,
    SessionNotFound,
    SignInAttempts,
    User,
    UserNotFound,
)
from stoa_user.service import Requester
from stoa_user.testing import Rows
from stoa_user.testing import Users as MemoryUsers

from .conftest import PASSWORD, SOMEWHERE, UserService, new_email, session_of, subject_of

HERE, THERE = "192.0.2.1", "198.51.100.1"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


# ------------------------------------------------------------------------------------------------ sessions


async def test_an_owner_sees_where_she_is_signed_in_and_with_what(service_on_each: UserService) -> None:
    service = service_on_each
    user = await service.register()
    began = service.clock.now()
    first = await service.sessions.sign_in(user.email, PASSWORD, HERE, user_agent=FIREFOX)
    service.clock.advance(days=1)
    await service.sessions.refresh(first.refresh_token)
    second = await service.sessions.sign_in(user.email, PASSWORD, THERE, user_agent="curl/8.1")
    shown = await service.sessions.page(user.user_id, None, 10)
    assert [
        (each.session_id, each.device, each.network, each.created_at, each.last_used_at) for each in shown
    ] == [
        (session_of(second), "curl", "198.51.100.x", service.clock.now(), service.clock.now()),
        (session_of(first), "Firefox on Linux", "192.0.2.x", began, service.clock.now()),
    ]
    (last,) = await service.sessions.page(user.user_id, session_of(second), 10)
    assert last.session_id == session_of(first)


async def test_an_owner_ends_a_session_and_it_is_shown_no_more(service_on_each: UserService) -> None:
    service = service_on_each
    user, another = await service.register(), await service.register()
    one, other = [await service.sessions.sign_in(user.email, PASSWORD) for _ in range(2)]
    for _ in range(2):
        await service.sessions.revoke(user.user_id, session_of(one))
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(one.refresh_token)
    (left,) = await service.sessions.page(user.user_id, None, 10)
    assert left.session_id == session_of(other)
    for owner, session_id in ((another, session_of(other)), (user, uuid4())):
        with pytest.raises(SessionNotFound):
            await service.sessions.revoke(owner.user_id, session_id)
    await service.sessions.refresh(other.refresh_token)


# -------------------------------------------------------------------------------------------------- export


async def test_an_export_has_all_that_is_kept_of_a_person(service_on_each: UserService) -> None:
    service = service_on_each
    user, guest = await service.register(), await service.guests.welcome()
    signed_in = await service.sessions.sign_in(user.email, PASSWORD, guest_token=guest.refresh_token)
    addresses = [
        await service.books.add(user.user_id, AddressKind.SHIPPING, SOMEWHERE, as_default=True)
        for _ in range(2)
    ]
    export = await service.privacy.export(user.user_id)
    assert export.user == await service.accounts.get(user.user_id)
    assert [each.address_id for each in export.addresses] == [each.address_id for each in addresses]
    assert [each.session_id for each in export.sessions] == [session_of(signed_in)]
    assert export.guest_ids == [subject_of(guest)]
    with pytest.raises(UserNotFound):
        await service.privacy.export(uuid4())


# ------------------------------------------------------------------------------------------------- erasure


async def test_nothing_is_left_of_an_erased_person_and_others_are_told(
    service: UserService, memory: MemoryStore[Rows]
) -> None:
    user, guest = await service.register(), await service.guests.welcome()
    await service.sessions.sign_in(user.email, PASSWORD, HERE, guest_token=guest.refresh_token)
    await service.fail(user.email, 3, THERE)
    await service.recovery.request(user.email, HERE)
    await service.books.add(user.user_id, AddressKind.SHIPPING, SOMEWHERE, as_default=True)
    await service.privacy.erase(user.user_id, Requester(user.user_id, address=HERE), PASSWORD)
    left = str((memory.rows.users, memory.rows.addresses, memory.rows.mailed, memory.rows.role_changes))
    for what in (user.email, "Ann", "Lee", "Elm Street", user.password_hash):
        assert what not in left
    assert not memory.rows.addresses
    assert not memory.rows.mailed
    assert not memory.rows.merges
    assert not memory.rows.strangers
    assert not memory.rows.origins
    assert [session for session in memory.rows.sessions.values() if not session.is_guest] == []
    assert (await service.store.published(user.user_id))[-1].payload == UserErased(user_id=user.user_id)


async def test_who_is_erased_is_not_found_nor_let_in_any_more(service_on_each: UserService) -> None:
    service = service_on_each
    user = await service.register()
    signed_in = await service.sessions.sign_in(user.email, PASSWORD)
    await service.recovery.request(user.email)
    tokens = [*await service.mailed(user.user_id, Purpose.RESET_PASSWORD)]
    await service.privacy.erase(user.user_id, Requester(user.user_id), PASSWORD)
    with pytest.raises(UserNotFound):
        await service.accounts.get(user.user_id)
    with pytest.raises(UserNotFound):
        await service.books.add(user.user_id, AddressKind.SHIPPING, SOMEWHERE, as_default=True)
    for email in (user.email, f"erased:{user.user_id}"):
        for password in (PASSWORD, ""):
            with pytest.raises(InvalidCredentials):
                await service.sessions.sign_in(email, password)
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(signed_in.refresh_token)
    with pytest.raises(InvalidMailedToken):
        await service.recovery.confirm(tokens[0], "another good password")
    with pytest.raises(UserNotFound):
        await service.privacy.erase(user.user_id, Requester(user.user_id), PASSWORD)


async def test_the_email_of_an_erased_account_may_be_registered_by_somebody_new(
    service_on_each: UserService,
) -> None:
    service = service_on_each
    user = await service.register()
    await service.privacy.erase(user.user_id, Requester(user.user_id), PASSWORD)
    again = await service.register(user.email)
    assert again.user_id != user.user_id
    assert not again.email_verified
    await service.sessions.sign_in(user.email, PASSWORD)


async def test_a_session_that_began_while_its_account_was_erased_is_good_for_nothing(
    service: UserService, memory: MemoryStore[Rows]
) -> None:
    user = await service.register()
    signed_in = await service.sessions.sign_in(user.email, PASSWORD)
    sessions, tokens = memory.rows.sessions, memory.rows.tokens
    await service.privacy.erase(user.user_id, Requester(user.user_id), PASSWORD)
    memory.rows = Rows(users=memory.rows.users, sessions=sessions, tokens=tokens)
    with pytest.raises(InvalidRefreshToken):
        await service.sessions.refresh(signed_in.refresh_token)


async def test_an_account_is_erased_by_who_knows_the_own_password(service: UserService) -> None:
    user, support = await service.register(), await service.staff("support")
    with pytest.raises(CurrentPasswordWrong):
        await service.privacy.erase(user.user_id, Requester(user.user_id), "wrong")
    with pytest.raises(CurrentPasswordWrong):
        await service.privacy.erase(user.user_id, Requester(None), PASSWORD)
    await service.accounts.get(user.user_id)
    await service.privacy.erase(user.user_id, Requester(support.user_id, address=HERE), PASSWORD)
    with pytest.raises(UserNotFound):
        await service.accounts.get(user.user_id)
    key = AttemptsKey.of(support.email, HERE)
    assert (await service.store.attempts.get(key)) != SignInAttempts(), "support was let in from there"


async def test_only_the_erasure_of_an_admin_waits_for_other_changes_of_admins(
    service: UserService, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, admin = await service.register(), await service.staff("admin")
    await service.staff("admin")
    locked: list[MemoryUsers] = []
    lock_admins = MemoryUsers.lock_admins

    async def lock(users: MemoryUsers) -> Sequence[User]:
        locked.append(users)
        return await lock_admins(users)

    monkeypatch.setattr(MemoryUsers, "lock_admins", lock)
    await service.privacy.erase(user.user_id, Requester(user.user_id), PASSWORD)
    assert not locked
    await service.privacy.erase(admin.user_id, Requester(admin.user_id), PASSWORD)
    assert locked


async def test_the_last_admin_can_not_be_erased_and_what_staff_was_is_kept(
    service: UserService, memory: MemoryStore[Rows]
) -> None:
    one, other = await service.staff("admin"), await service.staff("admin")
    await service.privacy.erase(one.user_id, Requester(one.user_id), PASSWORD)
    with pytest.raises(LastAdmin):
        await service.privacy.erase(other.user_id, Requester(other.user_id), PASSWORD)
    last = memory.rows.role_changes[-1]
    assert (last.user_id, last.after) == (one.user_id, frozenset())
    assert last.before == {"staff", "admin"}
    await service.accounts.ensure_staff(new_email(), PASSWORD)
    await service.privacy.erase(other.user_id, Requester(other.user_id), PASSWORD)
