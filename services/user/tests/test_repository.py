"""What the use cases rely on, of the store in memory and of PostgreSQL alike."""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from stoa_chassis.ids import new_id
from stoa_chassis.memory import ConstraintViolated
from stoa_chassis.postgres import Database
from stoa_events import UserGuestMerged, UserPasswordResetRequested, UserProfileUpdated
from stoa_user import ports
from stoa_user.model import (
    Address,
    AddressBook,
    AddressKind,
    AddressNotFound,
    AttemptsKey,
    Client,
    EmailTaken,
    Failures,
    GuestMerge,
    Limited,
    MailedToken,
    MailPolicy,
    PostalAddress,
    ProfileChange,
    Purpose,
    RefreshToken,
    Requests,
    RoleChange,
    Session,
    SessionPolicy,
    SignInAttempts,
    User,
    UserNotFound,
    digest,
)

from .conftest import NOW, SOMEWHERE, Store, a_user, an_address, new_email

REFUSED = (ConstraintViolated, asyncpg.IntegrityConstraintViolationError)
POLICY = SessionPolicy()
SHIPPING = AddressKind.SHIPPING
SALT = b"salt" * 8
PURPOSES = RESET, CONFIRM = Purpose.RESET_PASSWORD, Purpose.CONFIRM_EMAIL


async def added(store: Store, user: User | None = None) -> User:
    user = user or a_user()
    await store.uow.run(lambda tx: tx.users.add(user))
    return user


async def kept(store: Store, user_id: UUID, address: Address) -> None:
    """Store an address as it is, whatever rules a book would keep."""
    book = AddressBook(user_id, {address.address_id: address}, {address.address_id})
    await store.uow.run(lambda tx: tx.addresses.save(book))


async def changed(store: Store, user_id: UUID, change: Callable[[AddressBook], object]) -> None:
    """Change the address book of an account."""

    async def work(tx: ports.Tx) -> None:
        book = await tx.addresses.book(user_id)
        change(book)
        await tx.addresses.save(book)

    await store.uow.run(work)


async def started(store: Store, user_id: UUID) -> tuple[Session, RefreshToken]:
    """A session with one token, stored."""
    session = Session.start(user_id, POLICY, NOW, Client("192.0.2.1", "curl/8"))
    token = session.issue(str(uuid4()), POLICY, NOW)
    await store.uow.run(lambda tx: tx.sessions.add(session, token))
    return session, token


async def add_session(tx: ports.Tx, session: Session, token: RefreshToken) -> None:
    await tx.sessions.add(session, token)


async def add_merge(tx: ports.Tx, merge: GuestMerge) -> None:
    await tx.guests.add(merge)


async def add_change(tx: ports.Tx, change: RoleChange) -> None:
    await tx.role_changes.add(change)


async def rotated(
    store: Store,
    session: Session,
    used: RefreshToken,
    issued: RefreshToken,
    *,
    graceless_before: datetime = NOW,
) -> None:
    await store.uow.run(
        lambda tx: tx.sessions.rotate(session, used, issued, graceless_before=graceless_before)
    )


async def locked(store: Store, digest: bytes) -> tuple[Session, RefreshToken] | None:
    return await store.uow.run(lambda tx: tx.sessions.lock(digest))


# ------------------------------------------------------------------------------------------------ accounts


async def test_an_account_is_read_as_it_was_stored_in_every_field(store: Store) -> None:
    user = await added(store)
    unset = {"events", "erased_at"}
    assert all(getattr(user, each.name) for each in fields(user) if each.name not in unset)
    assert await store.users.get(user.user_id) == user
    assert await store.profiles.get(user.user_id) == user
    assert await store.uow.run(lambda tx: tx.users.lock(user.user_id)) == user
    assert await store.users.by_email(user.email) == user


async def test_a_changed_account_is_read_as_it_was_saved_in_every_field(store: Store) -> None:
    user = await added(store)
    other = replace(
        user,
        email=new_email(),
        password_hash="another",
        first_name="Bo",
        last_name="Ek",
        roles=frozenset(),
        updated_at=NOW + timedelta(days=2),
    )
    await store.uow.run(lambda tx: tx.users.save(other))
    assert await store.users.get(user.user_id) == other


async def test_an_account_is_found_by_its_email_however_it_is_capitalised(store: Store) -> None:
    user = await added(store)
    assert await store.users.by_email(f" {user.email.swapcase()}") == user


async def test_an_email_in_unicode_is_found_in_any_form_and_read_as_it_was_written(store: Store) -> None:
    name = uuid4().hex
    user = replace(a_user(), email=f"J\u00f6.{name}@B\u00fccher.Example")
    await store.uow.run(lambda tx: tx.users.add(user))
    for same in (user.email, f"j\u00d6.{name}@xn--bcher-kva.example"):
        assert await store.users.by_email(same) == user
        with pytest.raises(EmailTaken):
            await added(store, replace(a_user(), email=same))
    moved = replace(user, email=f"{name}@xn--bcher-kva.example")
    await store.uow.run(lambda tx: tx.users.save(moved))
    assert await store.users.get(user.user_id) == moved
    assert await store.users.by_email(f"{name}@b\u00fccher.example") == moved


@pytest.mark.stack
async def test_accounts_of_an_older_process_are_read_by_the_email_that_it_knows(
    in_postgres: Store, database: Database
) -> None:
    user = await added(in_postgres)
    await database.execute(
        "UPDATE users SET email_typed = NULL, email = $2 WHERE user_id = $1", user.user_id, user.email
    )
    assert await in_postgres.users.by_email(user.email.upper()) == user
    await in_postgres.uow.run(lambda tx: tx.users.save(user))
    other = new_email()
    await database.execute("UPDATE users SET email = $2 WHERE user_id = $1", user.user_id, other)
    assert (await in_postgres.users.get(user.user_id)).email == other


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(UserNotFound):
        await store.users.get(uuid4())
    with pytest.raises(UserNotFound):
        await store.uow.run(lambda tx: tx.users.lock(uuid4()))
    assert await store.users.by_email(new_email()) is None
    with pytest.raises(AddressNotFound):
        await store.addresses.get(uuid4(), uuid4())
    assert await store.addresses.page(uuid4(), None, 10) == []
    assert await locked(store, digest("never given out")) is None


async def test_an_email_belongs_to_one_account_without_regard_to_case(store: Store) -> None:
    first, second = await added(store), await added(store)
    with pytest.raises(EmailTaken):
        await store.uow.run(lambda tx: tx.users.add(replace(a_user(), email=first.email.swapcase())))
    with pytest.raises(EmailTaken):
        await store.uow.run(lambda tx: tx.users.save(replace(second, email=first.email.upper())))
    await store.uow.run(lambda tx: tx.users.save(replace(first, email=first.email.upper())))


async def test_an_account_is_added_once(store: Store) -> None:
    user = await added(store)
    with pytest.raises(REFUSED, match="users_pkey"):
        await store.uow.run(lambda tx: tx.users.add(replace(user, email=new_email())))


async def test_accounts_publish_their_events_once(store: Store) -> None:
    user = User.register(email=new_email(), password_hash="hash", first_name="Ann", last_name="Lee", now=NOW)
    await store.uow.run(lambda tx: tx.users.add(user))
    user.change_profile(ProfileChange(first_name="Anne"), NOW)
    await store.uow.run(lambda tx: tx.users.save(user))
    await store.uow.run(lambda tx: tx.users.save(user))
    published = await store.published(user.user_id)
    assert [event.topic for event in published] == ["user.registered", "user.profile_updated"]
    assert published[1].payload == UserProfileUpdated(
        user_id=user.user_id, email=user.email, first_name="Anne", last_name="Lee", locale="en"
    )


async def test_a_transaction_that_fails_changes_and_publishes_nothing(store: Store) -> None:
    user = await added(store)

    async def fail(tx: ports.Tx) -> None:
        found = await tx.users.lock(user.user_id)
        found.change_profile(ProfileChange(first_name="Anne"), NOW)
        await tx.users.save(found)
        raise LookupError

    with pytest.raises(LookupError):
        await store.uow.run(fail)
    assert await store.users.get(user.user_id) == user
    assert await store.published(user.user_id) == []


async def test_a_hash_is_strengthened_unless_the_password_was_changed_meanwhile(store: Store) -> None:
    user = await added(store)
    await store.uow.run(lambda tx: tx.users.rehash(user, "stronger"))
    assert (await store.users.get(user.user_id)).password_hash == "stronger"
    await store.uow.run(lambda tx: tx.users.rehash(user, "of the old password"))
    assert (await store.users.get(user.user_id)).password_hash == "stronger"


# ----------------------------------------------------------------------------------------------- addresses


async def test_an_address_is_read_as_it_was_stored_in_every_field(store: Store) -> None:
    user, address = await added(store), an_address()
    assert all(getattr(address, each.name) for each in fields(address))
    assert all(getattr(address.postal, each.name) for each in fields(address.postal))
    book = AddressBook(user.user_id, {address.address_id: address}, {address.address_id})
    await store.uow.run(lambda tx: tx.addresses.save(book))
    assert not book.changed
    assert await store.addresses.get(user.user_id, address.address_id) == address
    stored = await store.uow.run(lambda tx: tx.addresses.book(user.user_id))
    assert stored == AddressBook(user.user_id, {address.address_id: address})


async def test_a_replaced_address_is_read_as_it_was_saved_in_every_field(store: Store) -> None:
    user, address = await added(store), an_address()
    other = Address(
        address_id=address.address_id,
        kind=SHIPPING,
        is_default=False,
        postal=PostalAddress(
            recipient="Bo Ek",
            line1="2 Oak Street",
            line2="",
            city="Umea",
            region="AC",
            postal_code="903",
            country="SE",
        ),
        created_at=address.created_at,
        updated_at=NOW + timedelta(days=2),
    )
    await kept(store, user.user_id, address)
    await kept(store, user.user_id, other)
    assert await store.addresses.get(user.user_id, address.address_id) == other


async def test_an_address_is_in_the_book_of_its_account_alone(store: Store) -> None:
    user, other = await added(store), await added(store)
    await changed(store, user.user_id, lambda book: book.add(SHIPPING, SOMEWHERE, as_default=True, now=NOW))
    (address,) = await store.addresses.page(user.user_id, None, 10)
    with pytest.raises(AddressNotFound):
        await store.addresses.get(other.user_id, address.address_id)
    assert await store.addresses.page(other.user_id, None, 10) == []


async def test_addresses_come_defaults_first_then_the_newest_in_pages(store: Store) -> None:
    user = await added(store)
    for second in range(4):
        address = replace(
            an_address(),
            is_default=second == 0,
            created_at=NOW + timedelta(seconds=second),
            address_id=new_id(),
        )
        await kept(store, user.user_id, address)
    everything = await store.addresses.page(user.user_id, None, 10)
    created = [(address.created_at - NOW).seconds for address in everything]
    assert created == [0, 3, 2, 1]
    place = (everything[1].is_default, everything[1].address_id)
    assert await store.addresses.page(user.user_id, None, 2) == everything[:2]
    assert await store.addresses.page(user.user_id, place, 10) == everything[2:]


async def test_a_default_can_move_and_an_address_be_removed_in_one_save(store: Store) -> None:
    user = await added(store)
    for _ in range(3):
        await changed(
            store, user.user_id, lambda book: book.add(SHIPPING, SOMEWHERE, as_default=True, now=NOW)
        )
    default, second, third = await store.addresses.page(user.user_id, None, 10)

    def change(book: AddressBook) -> None:
        book.remove(default.address_id)
        book.replace(third.address_id, SHIPPING, SOMEWHERE, as_default=True, now=NOW)

    await changed(store, user.user_id, change)
    left = await store.addresses.page(user.user_id, None, 10)
    assert [(each.address_id, each.is_default) for each in left] == [
        (third.address_id, True),
        (second.address_id, False),
    ]


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        (lambda address: replace(address, is_default=True), "user_addresses_one_default"),
        (
            lambda address: replace(address, postal=replace(address.postal, country="us")),
            "user_addresses_country_check",
        ),
    ],
)
async def test_an_address_that_breaks_a_rule_is_not_stored(
    store: Store, change: Callable[[Address], Address], constraint: str
) -> None:
    user, first = await added(store), an_address()
    await kept(store, user.user_id, first)
    second = change(replace(first, address_id=uuid4(), is_default=False))
    with pytest.raises(REFUSED, match=constraint):
        await kept(store, user.user_id, second)


async def test_what_belongs_to_no_account_is_not_stored(store: Store) -> None:
    address, nobody = an_address(), uuid4()
    with pytest.raises(REFUSED, match="user_addresses_user_id_fkey"):
        await kept(store, nobody, address)
    with pytest.raises(REFUSED, match="guest_merges_user_id_fkey"):
        await store.uow.run(lambda tx: tx.guests.add(GuestMerge(uuid4(), nobody, NOW)))
    with pytest.raises(REFUSED, match="mailed_tokens_user_id_fkey"):
        await store.uow.run(lambda tx: tx.mailed.add(a_mailed_token(nobody)))
    with pytest.raises(REFUSED, match="role_changes_user_id_fkey"):
        await store.uow.run(lambda tx: tx.role_changes.add(a_role_change(nobody)))


# ------------------------------------------------------------------------------------------------ sessions


async def test_a_session_and_its_token_are_read_as_they_were_stored(store: Store) -> None:
    session, token = await started(store, (await added(store)).user_id)
    assert await locked(store, token.digest) == (session, token)


async def test_a_used_token_stays_and_the_next_belongs_to_the_same_session(store: Store) -> None:
    session, first = await started(store, (await added(store)).user_id)
    session.use(first, SALT, POLICY, NOW)
    second = session.issue(str(uuid4()), POLICY, NOW + timedelta(days=1))
    await rotated(store, session, first, second)
    assert await locked(store, first.digest) == (session, first)
    assert await locked(store, second.digest) == (session, second)


async def test_salts_go_when_the_grace_of_their_tokens_is_over_and_only_in_their_session(
    store: Store,
) -> None:
    user = await added(store)
    (session, token), (other, foreign) = (
        await started(store, user.user_id),
        await started(store, user.user_id),
    )
    other.use(foreign, SALT, POLICY, NOW)
    await rotated(store, other, foreign, other.issue(str(uuid4()), POLICY, NOW))
    used = []
    for seconds in range(3):
        now = NOW + timedelta(seconds=seconds)
        session.use(token, SALT, POLICY, now)
        used.append(token)
        token = session.issue(str(uuid4()), POLICY, now)
        before = NOW + timedelta(seconds=1) if seconds == 2 else NOW
        await rotated(store, session, used[-1], token, graceless_before=before)
    assert await locked(store, used[0].digest) == (session, replace(used[0], successor_salt=None))
    assert await locked(store, used[1].digest) == (session, used[1])
    assert await locked(store, used[2].digest) == (session, used[2])
    assert await locked(store, foreign.digest) == (other, foreign)


async def test_a_revoked_session_is_so_for_all_its_tokens(store: Store) -> None:
    session, token = await started(store, (await added(store)).user_id)
    session.revoke(NOW)
    await store.uow.run(lambda tx: tx.sessions.save(session))
    assert await locked(store, token.digest) == (session, token)


async def test_all_sessions_of_an_account_end_and_no_others(store: Store) -> None:
    user, other = await added(store), await added(store)
    (open_, token), (ended, old), (others, foreign), (left, mine) = [
        await started(store, owner.user_id) for owner in (user, user, other, user)
    ]
    ended.revoke(NOW)
    await store.uow.run(lambda tx: tx.sessions.save(ended))
    later = NOW + timedelta(days=1)
    await store.uow.run(lambda tx: tx.sessions.revoke_all(user.user_id, later, but=left.session_id))
    assert await locked(store, mine.digest) == (left, mine)
    await store.uow.run(lambda tx: tx.sessions.revoke_all(user.user_id, later + timedelta(days=1)))
    open_.revoke(later)
    left.revoke(later + timedelta(days=1))
    assert await locked(store, mine.digest) == (left, mine)
    assert await locked(store, token.digest) == (open_, token)
    assert await locked(store, old.digest) == (ended, old)
    assert await locked(store, foreign.digest) == (others, foreign)


async def test_expired_sessions_are_dropped_with_their_tokens(store: Store) -> None:
    user = await added(store)
    session, token = await started(store, user.user_id)
    await store.uow.run(lambda tx: tx.sessions.prune(session.expires_at, 1000))
    assert await locked(store, token.digest) == (session, token)
    await store.uow.run(lambda tx: tx.sessions.prune(session.expires_at + timedelta(seconds=1), 1000))
    assert await locked(store, token.digest) is None


@pytest.mark.stack
async def test_a_session_that_an_older_process_began_is_one_of_an_account(
    in_postgres: Store, database: Database
) -> None:
    user, session_id, expires_at = await added(in_postgres), uuid4(), NOW + timedelta(days=90)
    await database.execute(
        "INSERT INTO sessions (session_id, user_id, expires_at) VALUES ($1, $2, $3)",
        session_id,
        user.user_id,
        expires_at,
    )
    session = await in_postgres.uow.run(lambda tx: tx.sessions.lock_session(session_id))
    assert session == Session(session_id, user.user_id, expires_at)


async def test_no_more_expired_sessions_are_dropped_at_once_than_is_said(store: Store) -> None:
    user = await added(store)
    old = NOW - timedelta(days=4000)
    for _ in range(3):
        session = Session.start(user.user_id, POLICY, old)
        token = session.issue(str(uuid4()), POLICY, old)
        await store.uow.run(partial(add_session, session=session, token=token))
    before = NOW - timedelta(days=3000)
    dropped = [await store.uow.run(lambda tx: tx.sessions.prune(before, 2)) for _ in range(3)]
    assert dropped == [2, 1, 0]


async def test_one_is_signed_in_where_a_session_has_a_good_token_and_did_not_end(store: Store) -> None:
    user = await added(store)
    started_ = [await started(store, user.user_id) for _ in range(4)]
    await started(store, (await added(store)).user_id)
    (first, _), (second, token), (revoked, _), (idle, _) = started_
    revoked.revoke(NOW)
    await store.uow.run(lambda tx: tx.sessions.save(revoked))
    second.use(token, SALT, POLICY, NOW + timedelta(days=29))
    issued = second.issue(str(uuid4()), POLICY, NOW + timedelta(days=29))
    await rotated(store, second, token, issued)

    async def page(after: UUID | None, limit: int, days: int) -> list[UUID]:
        found = await store.sessions.page(user.user_id, NOW + timedelta(days=days), after, limit)
        return [session.session_id for session in found]

    assert await page(None, 10, 0) == [idle.session_id, second.session_id, first.session_id]
    assert await page(idle.session_id, 1, 0) == [second.session_id]
    assert await page(None, 10, 40) == [second.session_id]
    (shown,) = await store.sessions.page(user.user_id, NOW + timedelta(days=40), None, 10)
    assert shown == second
    assert shown.last_used_at == NOW + timedelta(days=29)


async def test_where_a_session_was_is_forgotten_when_it_is_ended_alone_or_with_others(store: Store) -> None:
    user = await added(store)
    (one, one_token), (other, other_token) = [await started(store, user.user_id) for _ in range(2)]
    assert (one.device, one.network) == ("curl", "192.0.2.x")
    one.revoke(NOW)
    await store.uow.run(lambda tx: tx.sessions.save(one))
    await store.uow.run(lambda tx: tx.sessions.revoke_all(user.user_id, NOW))
    other.revoke(NOW)
    assert await locked(store, one_token.digest) == (one, one_token)
    assert await locked(store, other_token.digest) == (other, other_token)


async def test_all_sessions_of_an_account_are_dropped_and_no_others(store: Store) -> None:
    user, another = await added(store), await added(store)
    (_, token), (kept_, kept_token) = [await started(store, each.user_id) for each in (user, another)]
    await store.uow.run(lambda tx: tx.sessions.drop_all(user.user_id))
    assert await locked(store, token.digest) is None
    assert await locked(store, kept_token.digest) == (kept_, kept_token)


# -------------------------------------------------------------------------------------------------- guests


async def test_the_session_of_a_guest_is_found_and_belongs_to_no_account(store: Store) -> None:
    session = Session.start_guest(POLICY, NOW)
    token = session.issue(str(uuid4()), POLICY, NOW)
    await store.uow.run(lambda tx: tx.sessions.add(session, token))
    assert await locked(store, token.digest) == (session, token)
    assert await store.uow.run(lambda tx: tx.sessions.lock_session(session.session_id)) == session
    assert await store.uow.run(lambda tx: tx.sessions.lock_session(uuid4())) is None


async def test_a_guest_becomes_the_owner_of_one_account_which_is_published(store: Store) -> None:
    user = await added(store)
    guests = sorted(uuid4() for _ in range(2))
    for guest_id in reversed(guests):
        merge = GuestMerge.into(user.user_id, guest_id, NOW)
        await store.uow.run(partial(add_merge, merge=merge))
    assert await store.uow.run(lambda tx: tx.guests.merged_into(guests[0])) == user.user_id
    assert await store.uow.run(lambda tx: tx.guests.merged_into(uuid4())) is None
    assert await store.uow.run(lambda tx: tx.guests.merged_by(user.user_id)) == guests
    published = await store.published(user.user_id)
    assert [event.payload for event in published] == [
        UserGuestMerged(user_id=user.user_id, guest_id=guest_id) for guest_id in reversed(guests)
    ]
    with pytest.raises(REFUSED, match="guest_merges_pkey"):
        await store.uow.run(lambda tx: tx.guests.add(GuestMerge(guests[0], user.user_id, NOW)))


async def test_merges_are_forgotten_with_the_account_and_when_they_are_old(store: Store) -> None:
    user, another = await added(store), await added(store)
    one, other, old = (uuid4() for _ in range(3))
    long_ago = NOW - timedelta(days=4000)
    for merge in (
        GuestMerge(one, user.user_id, NOW),
        GuestMerge(other, another.user_id, NOW),
        GuestMerge(old, user.user_id, long_ago),
    ):
        await store.uow.run(partial(add_merge, merge=merge))
    await store.uow.run(lambda tx: tx.guests.prune(long_ago + timedelta(seconds=1)))
    assert await store.uow.run(lambda tx: tx.guests.merged_by(user.user_id)) == [one]
    await store.uow.run(lambda tx: tx.guests.drop_all(user.user_id))
    assert await store.uow.run(lambda tx: tx.guests.merged_into(one)) is None
    assert await store.uow.run(lambda tx: tx.guests.merged_into(other)) == another.user_id


# --------------------------------------------------------------------------------------------------- mails


def a_mailed_token(user_id: UUID, purpose: Purpose = RESET, **changes: Any) -> MailedToken:
    """A mailed token of which every field has a value of its own."""
    token = MailedToken(
        digest(str(uuid4())), user_id, purpose, "ann@x.example", uuid4(), NOW + timedelta(hours=1)
    )
    return replace(token, **changes)


async def mailed(store: Store, token: MailedToken) -> MailedToken:
    await store.uow.run(lambda tx: tx.mailed.add(token))
    return token


async def test_a_mailed_token_is_read_as_it_was_stored_until_it_expires_and_for_its_purpose(
    store: Store,
) -> None:
    user = await added(store)
    token = await mailed(store, a_mailed_token(user.user_id))
    assert await store.mailed.get(token.digest, RESET, NOW) == token
    assert await store.uow.run(lambda tx: tx.mailed.get(token.digest, RESET, NOW)) == token
    assert await store.mailed.get(token.digest, CONFIRM, NOW) is None
    assert await store.mailed.get(token.digest, RESET, token.expires_at) is None
    assert await store.mailed.get(digest("another"), RESET, NOW) is None
    unasked = await mailed(store, a_mailed_token(user.user_id, session_id=None))
    assert await store.mailed.get(unasked.digest, RESET, NOW) == unasked


async def test_a_mailed_token_is_published_with_its_secret(store: Store) -> None:
    user = await added(store)
    token = MailedToken.issue("the secret", RESET, user, MailPolicy(), NOW)
    await mailed(store, replace(token, digest=digest(str(uuid4()))))
    (event,) = await store.published(user.user_id)
    assert isinstance(event.payload, UserPasswordResetRequested)
    assert event.payload.token == "the secret"


async def test_the_tokens_of_an_account_are_counted_while_they_are_good(store: Store) -> None:
    user = await added(store)
    later = NOW + timedelta(hours=2)
    for token in (
        a_mailed_token(user.user_id, expires_at=later),
        a_mailed_token(user.user_id),
        a_mailed_token(user.user_id, CONFIRM),
        a_mailed_token((await added(store)).user_id),
    ):
        await mailed(store, token)

    async def live(now: datetime) -> list[datetime]:
        return list(await store.uow.run(lambda tx: tx.mailed.live(user.user_id, RESET, now)))

    assert await live(NOW) == [NOW + timedelta(hours=1), later]
    assert await live(NOW + timedelta(hours=1)) == [later]


async def test_the_tokens_of_an_account_are_dropped_for_one_purpose_or_all(store: Store) -> None:
    user = await added(store)
    reset, confirm = [await mailed(store, a_mailed_token(user.user_id, purpose)) for purpose in PURPOSES]
    others = await mailed(store, a_mailed_token((await added(store)).user_id))
    await store.uow.run(lambda tx: tx.mailed.drop_all(user.user_id, RESET))
    assert await store.mailed.get(reset.digest, RESET, NOW) is None
    assert await store.mailed.get(confirm.digest, CONFIRM, NOW) == confirm
    await store.uow.run(lambda tx: tx.mailed.drop_all(user.user_id))
    assert await store.mailed.get(confirm.digest, CONFIRM, NOW) is None
    assert await store.mailed.get(others.digest, RESET, NOW) == others


async def test_expired_tokens_are_pruned(store: Store) -> None:
    user, long_ago = await added(store), NOW - timedelta(days=4000)
    old = await mailed(store, a_mailed_token(user.user_id, expires_at=long_ago))
    await store.uow.run(lambda tx: tx.mailed.prune(long_ago))
    assert await store.mailed.get(old.digest, RESET, long_ago - timedelta(days=1)) == old
    await store.uow.run(lambda tx: tx.mailed.prune(long_ago + timedelta(seconds=1)))
    assert await store.mailed.get(old.digest, RESET, long_ago - timedelta(days=1)) is None


async def test_a_mailed_token_that_breaks_a_rule_is_not_stored(store: Store) -> None:
    user = await added(store)
    token = await mailed(store, a_mailed_token(user.user_id))
    with pytest.raises(REFUSED, match="mailed_tokens_pkey"):
        await mailed(store, token)
    with pytest.raises(REFUSED, match="mailed_tokens_digest_check"):
        await mailed(store, replace(token, digest=b"short"))


# --------------------------------------------------------------------------------------------------- staff


def a_role_change(user_id: UUID, **changes: Any) -> RoleChange:
    """A change of which every field has a value of its own."""
    change = RoleChange(
        user_id=user_id,
        changed_by=uuid4(),
        before=frozenset({"staff", "support"}),
        after=frozenset({"admin", "staff"}),
        reason="promoted",
        at=NOW,
    )
    return replace(change, **changes)


async def test_changes_of_roles_are_read_as_they_were_stored_the_newest_first(store: Store) -> None:
    user = await added(store)
    first, second = a_role_change(user.user_id), a_role_change(user.user_id, changed_by=None)
    for change in (first, second, a_role_change((await added(store)).user_id)):
        await store.uow.run(partial(add_change, change=change))
    newest = await store.uow.run(lambda tx: tx.role_changes.newest(user.user_id, 10))
    assert newest == [second, first]
    assert await store.uow.run(lambda tx: tx.role_changes.newest(user.user_id, 1)) == [second]


async def test_staff_is_listed_the_newest_first_and_admins_are_those_of_it_who_are(store: Store) -> None:
    customer, support, admin = [
        await added(store, replace(a_user(), roles=frozenset(roles), user_id=new_id()))
        for roles in ((), ("staff", "support"), ("staff", "admin"))
    ]
    found = [user.user_id for user in await store.profiles.staff(None, 1000)]
    assert found == sorted(found, reverse=True)
    assert {support.user_id, admin.user_id} <= {*found}
    assert customer.user_id not in found
    (after,) = await store.profiles.staff(admin.user_id, 1)
    assert after == support
    admins = await store.uow.run(lambda tx: tx.users.lock_admins())
    assert admin in admins
    assert support not in admins


async def test_an_account_that_is_erased_is_not_found_and_its_email_is_free(store: Store) -> None:
    user = await added(store, replace(a_user(), roles=frozenset({"staff", "admin"})))
    gone = replace(user)
    gone.erase(NOW)
    await store.uow.run(lambda tx: tx.users.save(gone))
    with pytest.raises(UserNotFound):
        await store.users.get(user.user_id)
    with pytest.raises(UserNotFound):
        await store.uow.run(lambda tx: tx.users.lock(user.user_id))
    for email in (user.email, gone.email):
        assert await store.users.by_email(email) is None
    assert user.user_id not in {each.user_id for each in await store.profiles.staff(None, 1000)}
    await added(store, replace(a_user(), email=user.email))


async def test_a_whole_address_book_is_cleared_and_no_other(store: Store) -> None:
    user, another = await added(store), await added(store)
    for each in (user, another):
        await kept(store, each.user_id, an_address())
    await store.uow.run(lambda tx: tx.addresses.clear(user.user_id))
    assert await store.addresses.page(user.user_id, None, 10) == []
    assert len(await store.addresses.page(another.user_id, None, 10)) == 1


# ----------------------------------------------------------------------------------- requests of an origin


async def test_requests_are_counted_by_what_is_asked_for_and_by_the_origin(store: Store) -> None:
    origin, now = digest(str(uuid4())), NOW

    async def lock(subject: Limited, of: bytes, at: datetime) -> Requests:
        return await store.uow.run(lambda tx: tx.requests.lock(subject, of, at))

    assert await lock(Limited.GUEST, origin, now) == Requests(now)
    counted = Requests(now + timedelta(hours=1), 3)
    await store.uow.run(lambda tx: tx.requests.save(Limited.GUEST, origin, counted))
    assert await lock(Limited.GUEST, origin, now) == counted
    assert await lock(Limited.PASSWORD_RESET, origin, now) == Requests(now)
    assert await lock(Limited.GUEST, digest(str(uuid4())), now) == Requests(now)
    with pytest.raises(REFUSED, match="origin_requests_origin_digest_check"):
        await lock(Limited.GUEST, b"short", now)


async def test_old_requests_are_pruned(store: Store) -> None:
    origin, long_ago = digest(str(uuid4())), NOW - timedelta(days=4000)
    counted = Requests(long_ago, 3)

    async def count(tx: ports.Tx) -> None:
        await tx.requests.lock(Limited.GUEST, origin, long_ago)
        await tx.requests.save(Limited.GUEST, origin, counted)

    await store.uow.run(count)
    await store.uow.run(lambda tx: tx.requests.prune(long_ago))
    assert await store.uow.run(lambda tx: tx.requests.lock(Limited.GUEST, origin, NOW)) == counted
    await store.uow.run(lambda tx: tx.requests.prune(long_ago + timedelta(seconds=1)))
    assert await store.uow.run(lambda tx: tx.requests.lock(Limited.GUEST, origin, NOW)) == Requests(NOW)


async def test_a_token_that_breaks_a_rule_is_not_stored(store: Store) -> None:
    user = await added(store)
    session, token = await started(store, user.user_id)
    another = Session.start(user.user_id, POLICY, NOW)
    with pytest.raises(REFUSED, match="refresh_tokens_pkey"):
        await store.uow.run(lambda tx: tx.sessions.add(another, token))
    short = replace(token, digest=b"short")
    with pytest.raises(REFUSED, match="refresh_tokens_digest_check"):
        await store.uow.run(lambda tx: tx.sessions.add(another, short))
    with pytest.raises(REFUSED, match="sessions_pkey"):
        await store.uow.run(lambda tx: tx.sessions.add(session, another.issue("x", POLICY, NOW)))
    issued = another.issue("y", POLICY, NOW)
    with pytest.raises(REFUSED, match="refresh_tokens_session_id_fkey"):
        await rotated(store, another, token, issued)


# ------------------------------------------------------------------------------------------------ attempts


def a_key() -> AttemptsKey:
    return AttemptsKey.of(new_email(), "192.0.2.1")


async def counted(store: Store, key: AttemptsKey, attempts: SignInAttempts) -> None:
    async def count(tx: ports.Tx) -> None:
        await tx.attempts.lock(key)
        await tx.attempts.save(key, attempts)

    await store.uow.run(count)


async def seen(store: Store, key: AttemptsKey, attempts: SignInAttempts) -> None:
    await store.uow.run(lambda tx: tx.attempts.succeeded(key, attempts))


async def test_failures_are_read_as_they_were_stored_by_account_and_origin(store: Store) -> None:
    key = a_key()
    elsewhere, other = replace(key, origin=a_key().origin), a_key()
    here = Failures(3, NOW, NOW + timedelta(minutes=1))
    strangers = Failures(5, NOW + timedelta(seconds=1), NOW + timedelta(seconds=5))
    assert await store.attempts.get(key) == SignInAttempts()
    assert await store.uow.run(lambda tx: tx.attempts.lock(key)) == SignInAttempts()
    await counted(store, key, SignInAttempts(here, strangers))
    assert await store.attempts.get(key) == SignInAttempts(here, strangers)
    assert await store.uow.run(lambda tx: tx.attempts.lock(key)) == SignInAttempts(here, strangers)
    assert await store.attempts.get(elsewhere) == SignInAttempts(strangers=strangers)
    assert await store.uow.run(lambda tx: tx.attempts.lock(elsewhere)) == SignInAttempts(strangers=strangers)
    assert await store.attempts.get(other) == SignInAttempts()


async def test_where_an_owner_signed_in_is_kept_when_failures_follow(store: Store) -> None:
    key, strangers = a_key(), Failures(5, NOW)
    for failed in (None, Failures(3, NOW, NOW + timedelta(minutes=1))):
        if failed:
            await counted(store, key, SignInAttempts(failed, strangers))
        signed_in = SignInAttempts(Failures(), Failures(), NOW)
        await seen(store, key, signed_in)
        read = await store.attempts.get(key)
        assert read == replace(signed_in, strangers=strangers if failed else Failures())
    again = SignInAttempts(Failures(1, NOW), Failures(6, NOW), None)
    await counted(store, key, again)
    assert await store.attempts.get(key) == replace(again, signed_in_at=NOW)
    assert await store.uow.run(lambda tx: tx.attempts.lock(key)) == replace(again, signed_in_at=NOW)


async def test_old_failures_and_origins_are_dropped(store: Store) -> None:
    old, late = NOW, NOW + timedelta(days=1)
    cases = {(failed, signed_in): a_key() for failed in (None, old, late) for signed_in in (None, old, late)}
    for (failed, signed_in), key in cases.items():
        if failed:
            await counted(store, key, SignInAttempts(Failures(1, failed), Failures(2, failed)))
        if signed_in:
            failures = Failures(1, failed) if failed else Failures()
            await seen(store, key, SignInAttempts(failures, signed_in_at=signed_in))
    edge = old + timedelta(microseconds=1)
    await store.uow.run(lambda tx: tx.attempts.prune(edge, edge))
    for (failed, signed_in), key in cases.items():
        kept = failed == late or signed_in == late
        assert await store.attempts.get(key) == SignInAttempts(
            Failures(1, failed) if kept and failed else Failures(),
            Failures(2, failed) if failed == late else Failures(),
            signed_in if kept else None,
        )


async def test_failures_are_kept_by_digests(store: Store) -> None:
    key = a_key()
    with pytest.raises(REFUSED, match="sign_in_attempts_email_digest_check"):
        await store.uow.run(lambda tx: tx.attempts.lock(replace(key, account=b"ann@example.com")))
    with pytest.raises(REFUSED, match="sign_in_origins_origin_digest_check"):
        await store.uow.run(lambda tx: tx.attempts.lock(replace(key, origin=b"192.0.2.1")))
