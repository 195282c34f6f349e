"""What accounts may do as staff, and who says so."""

import asyncio
from uuid import uuid4

import pytest

from stoa_chassis.memory import MemoryStore
from stoa_user.model import (
    LastAdmin,
    NotAnAdminAnyMore,
    ProfileChange,
    RoleChange,
    StaffProtected,
    UserNotFound,
)
from stoa_user.service import Requester
from stoa_user.testing import Rows

from .conftest import PASSWORD, UserService, new_email, roles

Memory = MemoryStore[Rows]


async def test_roles_are_in_the_next_token_and_taken_away_in_the_one_after(
    service_on_each: UserService,
) -> None:
    service = service_on_each
    user, admin = await service.register(), uuid4()
    token = await service.sessions.sign_in(user.email, PASSWORD)
    assert roles(token.access_token) == []
    await service.roles.set(user.user_id, frozenset({"warehouse", "support"}), "hired", admin)
    token = await service.sessions.refresh(token.refresh_token)
    assert roles(token.access_token) == ["staff", "support", "warehouse"]
    await service.roles.set(user.user_id, frozenset(), "left", admin)
    token = await service.sessions.refresh(token.refresh_token)
    assert roles(token.access_token) == []


async def test_who_changed_roles_from_what_to_what_and_why_is_kept(service_on_each: UserService) -> None:
    service = service_on_each
    user, admin = await service.register(), uuid4()
    await service.roles.set(user.user_id, frozenset({"support"}), "hired", admin)
    await service.roles.set(user.user_id, frozenset({"support"}), "the same again", admin)
    service.clock.advance(days=1)
    changed, changes = await service.roles.set(user.user_id, frozenset(), "left", admin)
    staff = frozenset({"staff", "support"})
    assert changed.roles == frozenset()
    assert list(changes) == [
        RoleChange(
            user_id=user.user_id,
            changed_by=admin,
            before=before,
            after=after,
            reason=reason,
            at=at,
        )
        for before, after, reason, at in [
            (staff, frozenset(), "left", service.clock.now()),
            (frozenset(), staff, "hired", changes[1].at),
        ]
    ]
    assert await service.roles.get(user.user_id) == (changed, changes)


async def test_the_settings_make_an_admin_which_is_kept_too(service: UserService) -> None:
    made = await service.accounts.ensure_staff(new_email(), PASSWORD)
    customer = await service.register()
    await service.accounts.ensure_staff(customer.email, PASSWORD)
    for user_id in (made.user_id, customer.user_id):
        user, (change,) = await service.roles.get(user_id)
        assert user.roles == change.after == {"staff", "admin"}
        assert change.changed_by is None


async def test_who_had_opened_the_account_that_the_settings_make_admin_is_out(service: UserService) -> None:
    user = await service.register()
    await service.change_email(user.user_id, new_email())
    session = await service.sessions.sign_in(user.email, PASSWORD)
    await service.accounts.ensure_staff(user.email, "the password of staff")
    with pytest.raises(Exception, match="token: is not good any more"):
        await service.confirm_email(user.user_id)
    with pytest.raises(Exception, match="refresh token"):
        await service.sessions.refresh(session.refresh_token)


async def test_the_last_admin_stays_one(service: UserService) -> None:
    one, other = await service.staff("admin"), await service.staff("admin", "support")
    await service.roles.set(one.user_id, frozenset({"support"}), "moved", other.user_id)
    for roles_ in ({"support"}, set[str]()):
        with pytest.raises(LastAdmin):
            await service.roles.set(other.user_id, frozenset(roles_), "left", other.user_id)
    await service.roles.set(other.user_id, frozenset({"admin"}), "fewer", other.user_id)


async def test_admins_who_depose_each_other_at_the_same_moment_leave_one(
    service: UserService, memory: Memory
) -> None:
    admins = [await service.staff("admin") for _ in range(4)]
    await asyncio.gather(
        *(service.roles.set(user.user_id, frozenset(), "left", uuid4()) for user in admins),
        return_exceptions=True,
    )
    assert sum(user.is_admin for user in memory.rows.users.values()) == 1


async def test_who_was_an_admin_a_moment_ago_makes_nobody_one_nor_takes_over_an_admin(
    service_on_each: UserService,
) -> None:
    """The attack: a deposed admin, whose token is good for minutes, comes back by it."""
    service = service_on_each
    deposed, erased, accomplice, left = [await service.staff("admin") for _ in range(4)]
    await service.roles.set(deposed.user_id, frozenset({"support"}), "moved", left.user_id)
    await service.privacy.erase(erased.user_id, Requester(erased.user_id), PASSWORD)
    await service.roles.set(accomplice.user_id, frozenset(), "left", left.user_id)
    for caller in (deposed, erased):
        with pytest.raises(NotAnAdminAnyMore):
            await service.roles.set(accomplice.user_id, frozenset({"admin"}), "back", caller.user_id)
    requester = Requester(deposed.user_id, is_admin=True)
    with pytest.raises(StaffProtected):
        await service.accounts.change_profile(
            left.user_id, ProfileChange(email=new_email()), requester, PASSWORD
        )
    with pytest.raises(StaffProtected):
        await service.privacy.erase(left.user_id, requester, PASSWORD)
    await service.roles.set(deposed.user_id, frozenset({"admin"}), "needed again", left.user_id)
    await service.roles.set(accomplice.user_id, frozenset({"admin"}), "back", deposed.user_id)


async def test_roles_of_an_account_that_there_is_not_are_not_set(service: UserService) -> None:
    with pytest.raises(UserNotFound):
        await service.roles.set(uuid4(), frozenset({"support"}), "hired", uuid4())
    with pytest.raises(UserNotFound):
        await service.roles.get(uuid4())


async def test_only_an_admin_and_the_owner_change_the_account_of_staff(service: UserService) -> None:
    """The attack: support names an address of its own for an admin's account, and gets in by mail."""
    admin, support = await service.staff("admin"), await service.staff("support")
    change = ProfileChange(email=new_email(), first_name="Eve")
    with pytest.raises(StaffProtected):
        await service.accounts.change_profile(admin.user_id, change, Requester(support.user_id), PASSWORD)
    with pytest.raises(StaffProtected):
        await service.privacy.erase(admin.user_id, Requester(support.user_id), PASSWORD)
    assert await service.accounts.get(admin.user_id) == admin
    other = await service.staff("admin")
    for requester in (Requester(admin.user_id), Requester(other.user_id, is_admin=True)):
        await service.accounts.change_profile(admin.user_id, change, requester, PASSWORD)
    customer = await service.register()
    await service.accounts.change_profile(customer.user_id, change, Requester(support.user_id), PASSWORD)


async def test_staff_is_listed_the_newest_first(service: UserService) -> None:
    await service.register()
    first, second = await service.staff("support"), await service.staff("admin")
    assert [user.user_id for user in await service.roles.staff(None, 10)] == [
        second.user_id,
        first.user_id,
    ]
    assert await service.roles.staff(first.user_id, 10) == []
