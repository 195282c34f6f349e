"""What accounts, address books, sessions and sign-in attempts allow."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_events import UserProfileUpdated, UserRegistered
from stoa_user.model import (
    MAX_ADDRESSES,
    AddressBook,
    AddressBookFull,
    AddressKind,
    AddressNotFound,
    LockoutPolicy,
    PostalAddress,
    ProfileChange,
    Session,
    SessionPolicy,
    SignInAttempts,
    SignInLocked,
    User,
    attempts_key,
    digest,
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
SHIPPING, BILLING = AddressKind.SHIPPING, AddressKind.BILLING
SOMEWHERE = PostalAddress(
    recipient="Ann Lee", line1="1 Elm Street", city="Boston", postal_code="02108", country="US"
)


def a_user() -> User:
    return User.register(
        email="Ann@Example.com", password_hash="hash", first_name="Ann", last_name="Lee", now=NOW
    )


def a_book(*kinds: AddressKind) -> tuple[AddressBook, list[UUID]]:
    """A book with an address of each of these kinds, the newest last."""
    book = AddressBook(uuid4())
    ids = [
        book.add(kind, SOMEWHERE, as_default=False, now=NOW + timedelta(seconds=i)).address_id
        for i, kind in enumerate(kinds)
    ]
    return book, ids


def defaults(book: AddressBook) -> set[UUID]:
    return {a.address_id for a in book.addresses.values() if a.is_default}


def test_blanks_around_names_do_not_count() -> None:
    user = User.register(
        email=" ann@example.com ", password_hash="h", first_name=" Ann ", last_name="\tLee", now=NOW
    )
    assert (user.email, user.first_name, user.last_name) == ("ann@example.com", "Ann", "Lee")


def test_registering_is_announced_once_without_the_password() -> None:
    user = a_user()
    assert user.events == [
        UserRegistered(user_id=user.user_id, email="Ann@Example.com", first_name="Ann", last_name="Lee")
    ]
    assert "hash" not in repr(user)


def test_a_changed_profile_is_announced_with_all_its_values() -> None:
    user = a_user()
    user.change_profile(ProfileChange(last_name="Lee-Smith"), NOW + timedelta(days=1))
    assert user.updated_at == NOW + timedelta(days=1)
    assert user.events[1:] == [
        UserProfileUpdated(
            user_id=user.user_id, email="Ann@Example.com", first_name="Ann", last_name="Lee-Smith"
        )
    ]


def test_what_is_announced_carries_every_field_of_the_account() -> None:
    user = a_user()
    user.change_profile(ProfileChange(last_name="Lee-Smith"), NOW)
    user.change_profile(ProfileChange(last_name="Lee"), NOW)
    announced = {each.name for each in fields(User)}
    announced -= {"password_hash", "roles", "created_at", "updated_at", "events"}
    for event in (user.events[0], user.events[-1]):
        assert {each.name for each in fields(event)} == announced
        assert all(getattr(event, name) == getattr(user, name) != "" for name in announced)


def test_a_change_that_changes_nothing_leaves_no_trace() -> None:
    user = a_user()
    user.change_profile(ProfileChange(first_name="Ann "), NOW + timedelta(days=1))
    assert user.updated_at == NOW
    assert len(user.events) == 1


def test_the_first_address_of_each_kind_becomes_its_default() -> None:
    book, (first, _, billing) = a_book(SHIPPING, SHIPPING, BILLING)
    assert defaults(book) == {first, billing}


def test_a_new_default_takes_the_place_of_the_old_one_of_its_kind() -> None:
    book, (_, billing) = a_book(SHIPPING, BILLING)
    new = book.add(SHIPPING, SOMEWHERE, as_default=True, now=NOW)
    assert defaults(book) == {new.address_id, billing}


def test_removing_the_default_promotes_the_newest_other_of_its_kind() -> None:
    book, (first, _, newest, billing) = a_book(SHIPPING, SHIPPING, SHIPPING, BILLING)
    book.remove(first)
    assert defaults(book) == {newest, billing}


def test_removing_the_last_address_leaves_no_default() -> None:
    book, (only,) = a_book(SHIPPING)
    book.remove(only)
    assert not book.addresses


def test_a_default_stays_one_when_its_text_is_replaced() -> None:
    book, (first, _) = a_book(SHIPPING, SHIPPING)
    book.replace(first, SHIPPING, SOMEWHERE, as_default=False, now=NOW)
    assert defaults(book) == {first}


def test_moving_the_default_to_the_other_kind_leaves_each_kind_with_one() -> None:
    book, (first, second, billing) = a_book(SHIPPING, SHIPPING, BILLING)
    book.replace(first, BILLING, SOMEWHERE, as_default=False, now=NOW)
    assert defaults(book) == {second, billing}


def test_a_full_book_takes_no_more() -> None:
    book, _ = a_book(*[SHIPPING] * MAX_ADDRESSES)
    with pytest.raises(AddressBookFull):
        book.add(BILLING, SOMEWHERE, as_default=False, now=NOW)


def test_an_unknown_address_can_be_neither_replaced_nor_removed() -> None:
    book, _ = a_book(SHIPPING)
    with pytest.raises(AddressNotFound):
        book.replace(uuid4(), SHIPPING, SOMEWHERE, as_default=True, now=NOW)
    with pytest.raises(AddressNotFound):
        book.remove(uuid4())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "replace", "remove"]),
            st.sampled_from(list(AddressKind)),
            st.booleans(),
            st.integers(0, 9),
        ),
        max_size=30,
    )
)
def test_whatever_is_done_to_a_book_each_kind_in_it_has_exactly_one_default(
    steps: list[tuple[str, AddressKind, bool, int]],
) -> None:
    book = AddressBook(uuid4())
    for i, (step, kind, as_default, which) in enumerate(steps):
        now = NOW + timedelta(seconds=i)
        ids = list(book.addresses)
        if step == "add":
            book.add(kind, SOMEWHERE, as_default=as_default, now=now)
        elif ids and step == "replace":
            book.replace(ids[which % len(ids)], kind, SOMEWHERE, as_default=as_default, now=now)
        elif ids:
            book.remove(ids[which % len(ids)])
        for each in {a.kind for a in book.addresses.values()}:
            assert sum(a.is_default for a in book.addresses.values() if a.kind == each) == 1


def test_a_refresh_token_is_good_once_and_a_second_use_ends_the_session() -> None:
    session = Session.start(uuid4(), SessionPolicy(), NOW)
    token = session.issue("secret", SessionPolicy(), NOW)
    assert session.use(token, NOW)
    assert not session.use(token, NOW)
    assert session.revoked_at == NOW
    assert not session.use(session.issue("next", SessionPolicy(), NOW), NOW)


def test_a_token_expires_when_idle_and_never_outlives_its_session() -> None:
    policy = SessionPolicy(idle=timedelta(days=30), longest=timedelta(days=90))
    session = Session.start(uuid4(), policy, NOW)
    assert session.issue("a", policy, NOW).expires_at == NOW + timedelta(days=30)
    assert session.issue("b", policy, NOW + timedelta(days=80)).expires_at == NOW + timedelta(days=90)
    token = session.issue("c", policy, NOW)
    assert not session.use(token, NOW + timedelta(days=30))
    assert session.revoked_at is None


def test_what_is_kept_of_a_token_does_not_show_it() -> None:
    token = Session.start(uuid4(), SessionPolicy(), NOW).issue("secret", SessionPolicy(), NOW)
    assert token.digest == digest("secret")
    assert b"secret" not in token.digest
    assert "secret" not in repr(token)


def test_sign_in_is_locked_after_ten_failures_for_longer_each_time() -> None:
    policy, attempts, now = LockoutPolicy(), SignInAttempts(), NOW
    for _ in range(policy.failures - 1):
        attempts.fail(policy, now)
        attempts.check(now)
    waits = []
    for _ in range(8):
        attempts.fail(policy, now)
        with pytest.raises(SignInLocked) as locked:
            attempts.check(now)
        assert locked.value.retry_after
        waits.append(locked.value.retry_after)
        now += locked.value.retry_after
        attempts.check(now)
    assert waits == [timedelta(minutes=m) for m in (1, 2, 4, 8, 16, 32, 60, 60)]


def test_failures_are_forgotten_after_a_quiet_day() -> None:
    policy, attempts = LockoutPolicy(), SignInAttempts()
    for _ in range(policy.failures - 1):
        attempts.fail(policy, NOW)
    later = NOW + timedelta(days=1, seconds=1)
    attempts.fail(policy, later)
    attempts.check(later)
    assert attempts.failures == 1


def test_no_number_of_failures_breaks_the_lock() -> None:
    attempts = SignInAttempts(failures=100_000)
    attempts.fail(LockoutPolicy(), NOW)
    with pytest.raises(SignInLocked):
        attempts.check(NOW)


def test_failures_are_counted_by_email_without_regard_to_case() -> None:
    assert attempts_key("Ann@Example.com ") == attempts_key("ann@example.com")
