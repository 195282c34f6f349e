"""What the use cases rely on, of the store in memory and of PostgreSQL alike."""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from stoa_chassis.ids import new_id
from stoa_chassis.memory import ConstraintViolated
from stoa_events import UserProfileUpdated
from stoa_user import ports
from stoa_user.model import (
    Address,
    AddressBook,
    AddressKind,
    AddressNotFound,
    EmailTaken,
    PostalAddress,
    ProfileChange,
    RefreshToken,
    Session,
    SessionPolicy,
    SignInAttempts,
    User,
    UserNotFound,
    attempts_key,
)

from .conftest import NOW, SOMEWHERE, Store, a_user, an_address, new_email

REFUSED = (ConstraintViolated, asyncpg.IntegrityConstraintViolationError)
POLICY = SessionPolicy()
SHIPPING = AddressKind.SHIPPING


async def added(store: Store) -> User:
    user = a_user()
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
    session = Session.start(user_id, POLICY, NOW)
    token = session.issue(str(uuid4()), POLICY, NOW)
    await store.uow.run(lambda tx: tx.sessions.add(session, token))
    return session, token


async def locked(store: Store, digest: bytes) -> tuple[Session, RefreshToken] | None:
    return await store.uow.run(lambda tx: tx.sessions.lock(digest))


# ------------------------------------------------------------------------------------------------ accounts


async def test_an_account_is_read_as_it_was_stored_in_every_field(store: Store) -> None:
    user = await added(store)
    assert all(getattr(user, each.name) for each in fields(user) if each.name != "events")
    assert await store.users.get(user.user_id) == user
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


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(UserNotFound):
        await store.users.get(uuid4())
    with pytest.raises(UserNotFound):
        await store.uow.run(lambda tx: tx.users.lock(uuid4()))
    assert await store.users.by_email(new_email()) is None
    with pytest.raises(AddressNotFound):
        await store.addresses.get(uuid4(), uuid4())
    assert await store.addresses.page(uuid4(), None, 10) == []
    assert await locked(store, attempts_key("nobody")) is None


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
        user_id=user.user_id, email=user.email, first_name="Anne", last_name="Lee"
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
    with pytest.raises(REFUSED, match="sessions_user_id_fkey"):
        await started(store, nobody)


# ------------------------------------------------------------------------------------------------ sessions


async def test_a_session_and_its_token_are_read_as_they_were_stored(store: Store) -> None:
    session, token = await started(store, (await added(store)).user_id)
    assert await locked(store, token.digest) == (session, token)


async def test_a_used_token_stays_and_the_next_belongs_to_the_same_session(store: Store) -> None:
    session, first = await started(store, (await added(store)).user_id)
    session.use(first, NOW)
    second = session.issue(str(uuid4()), POLICY, NOW + timedelta(days=1))
    await store.uow.run(lambda tx: tx.sessions.rotate(session, first, second))
    assert await locked(store, first.digest) == (session, first)
    assert await locked(store, second.digest) == (session, second)


async def test_a_revoked_session_is_so_for_all_its_tokens(store: Store) -> None:
    session, token = await started(store, (await added(store)).user_id)
    session.revoke(NOW)
    await store.uow.run(lambda tx: tx.sessions.save(session))
    assert await locked(store, token.digest) == (session, token)


async def test_all_sessions_of_an_account_end_and_no_others(store: Store) -> None:
    user, other = await added(store), await added(store)
    (open_, token), (ended, old), (others, foreign) = [
        await started(store, owner.user_id) for owner in (user, user, other)
    ]
    ended.revoke(NOW)
    await store.uow.run(lambda tx: tx.sessions.save(ended))
    later = NOW + timedelta(days=1)
    await store.uow.run(lambda tx: tx.sessions.revoke_all(user.user_id, later))
    assert await locked(store, token.digest) == (replace(open_, revoked_at=later), token)
    assert await locked(store, old.digest) == (ended, old)
    assert await locked(store, foreign.digest) == (others, foreign)


async def test_expired_sessions_are_dropped_with_their_tokens(store: Store) -> None:
    user = await added(store)
    session, token = await started(store, user.user_id)
    await store.uow.run(lambda tx: tx.sessions.prune(session.expires_at))
    assert await locked(store, token.digest) == (session, token)
    await store.uow.run(lambda tx: tx.sessions.prune(session.expires_at + timedelta(seconds=1)))
    assert await locked(store, token.digest) is None


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
    with pytest.raises(REFUSED, match="refresh_tokens_session_id_fkey"):
        await store.uow.run(lambda tx: tx.sessions.rotate(another, token, another.issue("y", POLICY, NOW)))


# ------------------------------------------------------------------------------------------------ attempts


async def test_failures_are_counted_by_their_key_until_they_are_cleared(store: Store) -> None:
    key, other = attempts_key(new_email()), attempts_key(new_email())
    counted = SignInAttempts(3, NOW, NOW + timedelta(minutes=1))

    async def count(tx: ports.Tx) -> SignInAttempts:
        attempts = await tx.attempts.lock(key)
        await tx.attempts.save(key, counted)
        return attempts

    assert await store.attempts.get(key) == SignInAttempts()
    assert await store.uow.run(count) == SignInAttempts()
    assert await store.attempts.get(key) == counted
    assert await store.uow.run(lambda tx: tx.attempts.lock(key)) == counted
    assert await store.attempts.get(other) == SignInAttempts()
    await store.uow.run(lambda tx: tx.attempts.clear(key))
    assert await store.attempts.get(key) == SignInAttempts()


async def test_old_failures_are_dropped(store: Store) -> None:
    keys = [attempts_key(new_email()) for _ in range(2)]
    counts = [SignInAttempts(1, NOW), SignInAttempts(2, NOW + timedelta(days=1))]

    async def count(tx: ports.Tx) -> None:
        for key, attempts in zip(keys, counts, strict=True):
            await tx.attempts.lock(key)
            await tx.attempts.save(key, attempts)

    await store.uow.run(count)
    await store.uow.run(lambda tx: tx.attempts.prune(NOW + timedelta(seconds=1)))
    assert [await store.attempts.get(key) for key in keys] == [SignInAttempts(), counts[1]]


async def test_failures_are_kept_by_a_digest(store: Store) -> None:
    with pytest.raises(REFUSED, match="sign_in_attempts_email_digest_check"):
        await store.uow.run(lambda tx: tx.attempts.lock(b"ann@example.com"))
