"""What accounts, address books, sessions and sign-in attempts allow."""

from base64 import urlsafe_b64decode
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_chassis.emails import email_key, valid_email
from stoa_chassis.errors import Code, DomainError, InvalidArgument
from stoa_events import (
    UserEmailChangeRequested,
    UserEmailVerified,
    UserErased,
    UserGuestMerged,
    UserPasswordChanged,
    UserProfileUpdated,
    UserRegistered,
)
from stoa_user.model import (
    MAX_ADDRESSES,
    Address,
    AddressBook,
    AddressBookFull,
    AddressKind,
    AddressNotFound,
    AttemptsKey,
    Client,
    CurrentPasswordNeeded,
    CurrentPasswordWrong,
    EmailTaken,
    EmailVerified,
    Failures,
    GuestMerge,
    GuestMerged,
    InvalidCredentials,
    InvalidGuestToken,
    InvalidMailedToken,
    InvalidRefreshToken,
    LastAdmin,
    Limited,
    LockoutPolicy,
    MailedToken,
    MailPolicy,
    NotAnAdminAnyMore,
    PasswordOfAnother,
    PostalAddress,
    ProfileChange,
    Purpose,
    Quota,
    Requests,
    RoleChange,
    Session,
    SessionNotFound,
    SessionPolicy,
    SignInAttempts,
    SignInBusy,
    SignInLocked,
    SignInPolicy,
    StaffProtected,
    TooManyRequests,
    User,
    UserNotFound,
    digest,
    origin_of,
    successor,
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
SHIPPING, BILLING = AddressKind.SHIPPING, AddressKind.BILLING
SOMEWHERE = PostalAddress(
    recipient="Ann Lee", line1="1 Elm Street", city="Boston", postal_code="02108", country="US"
)
ELSEWHERE = PostalAddress(
    recipient="Bo Ek",
    line1="2 Oak Street",
    line2="Third flat",
    city="Salem",
    region="MA",
    postal_code="01970",
    country="US",
)
SALT = b"salt" * 8


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


def test_registering_is_announced_once_without_the_password() -> None:
    user = a_user()
    assert user.events == [
        UserRegistered(
            user_id=user.user_id, email="Ann@Example.com", first_name="Ann", last_name="Lee", locale="en"
        )
    ]
    assert "hash" not in repr(user)


def test_an_account_begins_without_roles_at_one_moment() -> None:
    user = a_user()
    assert (user.roles, user.created_at, user.updated_at) == (frozenset(), NOW, NOW)


def test_an_account_begins_without_an_email_that_is_confirmed_or_waits() -> None:
    assert (a_user().verified_email, a_user().pending_email) == ("", "")


def test_an_account_has_the_roles_that_were_said_last_and_staff_is_who_has_any() -> None:
    user = a_user()
    assert (user.is_staff, user.is_admin) == (False, False)
    user.set_roles({"warehouse", "support"}, NOW + timedelta(days=1))
    assert user.roles == {"staff", "warehouse", "support"}
    assert (user.is_staff, user.is_admin) == (True, False)
    user.set_roles({"admin"}, NOW + timedelta(days=2))
    assert (user.roles, user.updated_at) == (frozenset({"staff", "admin"}), NOW + timedelta(days=2))
    assert (user.is_staff, user.is_admin) == (True, True)
    user.set_roles((), NOW + timedelta(days=3))
    assert (user.roles, user.is_staff) == (frozenset(), False)
    assert len(user.events) == 1


def test_a_password_is_replaced_at_its_time_and_the_owner_is_told() -> None:
    user = a_user()
    user.change_password("another", NOW + timedelta(days=3))
    assert (user.password_hash, user.updated_at) == ("another", NOW + timedelta(days=3))
    assert user.events[1:] == [
        UserPasswordChanged(user_id=user.user_id, email="Ann@Example.com", first_name="Ann", locale="en")
    ]


def test_a_password_is_another_if_the_hash_is_and_the_account_was_changed() -> None:
    user = a_user()
    user.set_roles({"support"}, NOW + timedelta(hours=1))
    then = replace(user)
    assert not user.has_changed_password_since(then)
    user.password_hash = "a stronger one of the same"
    assert not user.has_changed_password_since(then)
    user.change_password("another", NOW + timedelta(days=1))
    assert user.has_changed_password_since(then)


# -------------------------------------------------------------------------------------- addresses of mails


def test_another_email_waits_to_be_confirmed_and_the_owner_is_told_at_the_one_of_now() -> None:
    user = a_user()
    user.change_profile(ProfileChange(email="Bo@example.com", first_name="Bo"), NOW + timedelta(days=1))
    assert (user.email, user.pending_email, user.first_name) == ("Ann@Example.com", "Bo@example.com", "Bo")
    assert user.updated_at == NOW + timedelta(days=1)
    told = UserEmailChangeRequested(
        user_id=user.user_id, email="Ann@Example.com", first_name="Ann", locale="en"
    )
    assert user.events[1] == told
    assert [type(event) for event in user.events[2:]] == [UserProfileUpdated]
    user.change_profile(ProfileChange(email="Bo@example.com"), NOW + timedelta(days=2))
    assert (len(user.events), user.updated_at) == (3, NOW + timedelta(days=1))


def test_naming_the_email_of_now_takes_another_back() -> None:
    user = a_user()
    user.change_profile(ProfileChange(email="bo@example.com"), NOW)
    user.change_profile(ProfileChange(email="Ann@Example.com"), NOW + timedelta(days=1))
    assert (user.email, user.pending_email) == ("Ann@Example.com", "")
    with pytest.raises(InvalidMailedToken):
        user.confirm_email("bo@example.com", NOW)


def test_naming_the_email_of_now_while_no_other_waits_leaves_no_trace() -> None:
    user = a_user()
    user.change_profile(ProfileChange(email="Ann@Example.com"), NOW + timedelta(days=1))
    assert (user.email, user.updated_at, len(user.events)) == ("Ann@Example.com", NOW, 1)


def test_the_email_of_now_is_confirmed_once() -> None:
    user = a_user()
    assert not user.email_verified
    assert not user.confirm_email("ann@example.com", NOW + timedelta(days=1))
    assert user.email_verified
    assert user.events[1:] == [UserEmailVerified(user_id=user.user_id, email="Ann@Example.com")]
    user.confirm_email("Ann@Example.com", NOW + timedelta(days=2))
    assert (len(user.events), user.updated_at) == (2, NOW + timedelta(days=1))


def test_an_email_that_waits_becomes_the_one_of_the_account_when_it_is_confirmed() -> None:
    user = a_user()
    user.confirm_email("Ann@Example.com", NOW)
    user.change_profile(ProfileChange(email="Bo@B\u00fccher.example"), NOW)
    assert user.email_verified
    before = len(user.events)
    assert user.confirm_email("bo@xn--bcher-kva.example", NOW + timedelta(days=1))
    assert (user.email, user.pending_email) == ("Bo@B\u00fccher.example", "")
    assert user.email_verified
    assert [type(event) for event in user.events[before:]] == [UserProfileUpdated, UserEmailVerified]
    with pytest.raises(InvalidMailedToken):
        user.confirm_email("Ann@Example.com", NOW)


def test_an_email_that_an_older_process_put_in_place_is_not_confirmed() -> None:
    user = a_user()
    user.confirm_email("Ann@Example.com", NOW)
    user.email = "bo@example.com"
    assert not user.email_verified


def test_who_gets_back_in_by_mail_has_a_confirmed_email_and_none_that_waits() -> None:
    user = a_user()
    user.change_profile(ProfileChange(email="thief@example.com"), NOW)
    user.recover("another", "ann@example.com", NOW)
    assert (user.password_hash, user.email_verified, user.pending_email) == ("another", True, "")
    with pytest.raises(InvalidMailedToken):
        user.recover("yet another", "thief@example.com", NOW)


def test_no_email_that_waits_is_not_confirmed_by_a_mail_to_nobody() -> None:
    user = a_user()
    with pytest.raises(InvalidMailedToken):
        user.confirm_email("", NOW)


def test_an_account_of_an_admin_is_known_by_what_it_became() -> None:
    admin, support = frozenset({"staff", "admin"}), frozenset({"staff", "support"})
    for before, after, is_one in ((support, admin, True), (admin, support, False)):
        change = RoleChange(
            user_id=uuid4(), changed_by=None, before=before, after=after, reason="asked", at=NOW
        )
        assert change.leaves_an_admin is is_one


def test_nothing_is_left_of_a_person_who_is_erased() -> None:
    user = a_user()
    user.set_roles({"support"}, NOW)
    user.confirm_email(user.email, NOW)
    user.change_profile(ProfileChange(email="bo@example.com", locale="de"), NOW)
    user.events.clear()
    user.erase(NOW + timedelta(days=1))
    left = {each.name: getattr(user, each.name) for each in fields(User)}
    assert left == {
        "user_id": user.user_id,
        "email": f"erased:{user.user_id}",
        "password_hash": "",
        "first_name": "",
        "last_name": "",
        "locale": "en",
        "verified_email": "",
        "pending_email": "",
        "roles": frozenset(),
        "created_at": NOW,
        "updated_at": NOW + timedelta(days=1),
        "erased_at": NOW + timedelta(days=1),
        "events": [UserErased(user_id=user.user_id)],
    }
    assert not user.email_verified
    with pytest.raises(InvalidArgument):
        valid_email(user.email)


# ------------------------------------------------------------------------------------------------- clients


def test_of_who_says_nothing_nothing_is_known() -> None:
    assert (Client().address, Client().user_agent, Client().device) == ("", "", "")


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        ("", ""),
        ("-", ""),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/18.6 Mobile/15E148 Safari/604.1",
            "Safari on iPhone",
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 "
            "Mobile Safari/537.36",
            "Chrome on Android",
        ),
        ("curl/8.14.1", "curl"),
        ("python-httpx/0.28.1", "python-httpx"),
        ("okhttp/4.12.0 (Android)", "okhttp on Android"),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/140.0.0.0 Safari/537.36 OPR/124.0.0.0",
            "Opera on macOS",
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 "
            "Chrome/130.0.0.0 Mobile Safari/537.36",
            "Samsung Internet on Android",
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "FxiOS/143.0 Mobile/15E148 Safari/605.1.15",
            "Firefox on iPad",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "CriOS/141.0.0.0 Mobile/15E148 Safari/604.1",
            "Chrome on iPhone",
        ),
        (
            "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/141.0.0.0 Safari/537.36",
            "Chrome on ChromeOS",
        ),
        ("(Windows)", "Windows"),
        ("<b>x</b>", ""),
        ("x" * 300, "x" * 40),
    ],
)
def test_a_device_is_called_as_its_owner_would(user_agent: str, device: str) -> None:
    assert Client("", user_agent).device == device


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("", ""),
        ("nowhere", ""),
        ("203.0.113.77", "203.0.113.x"),
        ("::ffff:203.0.113.77", "203.0.113.x"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
    ],
)
def test_of_an_address_only_the_network_is_kept(address: str, network: str) -> None:
    assert Client(address).network == network


# -------------------------------------------------------------------------------------------------- guests


def test_a_guest_has_a_session_for_a_while_of_whom_nothing_else_is_known() -> None:
    policy = SessionPolicy(guest=timedelta(days=3))
    session = Session.start_guest(policy, NOW)
    assert session.is_guest
    assert (session.expires_at, session.device, session.network) == (NOW + timedelta(days=3), "", "")
    assert session.user_id != Session.start_guest(policy, NOW).user_id
    token = session.issue("secret", policy, NOW)
    assert token.expires_at == session.expires_at


def test_a_guest_is_proven_by_a_token_that_is_good_and_by_a_session_that_goes_on() -> None:
    policy = SessionPolicy(idle=timedelta(days=2), guest=timedelta(days=3), grace=timedelta(seconds=10))
    session = Session.start_guest(policy, NOW)
    token = session.issue("secret", policy, NOW)
    assert session.is_proven_by(token, policy, NOW)
    assert not session.is_proven_by(token, policy, token.expires_at)
    assert session.is_proven_by(None, policy, token.expires_at)
    assert session.is_proven_by(None, policy, session.expires_at) is False
    token.used_at = NOW
    assert session.is_proven_by(token, policy, NOW + timedelta(seconds=10))
    assert not session.is_proven_by(token, policy, NOW + timedelta(seconds=11))
    session.revoke(NOW)
    assert not session.is_proven_by(None, policy, NOW)


def test_what_a_guest_had_is_an_accounts_from_a_moment_on() -> None:
    user_id, guest_id = uuid4(), uuid4()
    merge = GuestMerge.into(user_id, guest_id, NOW)
    assert merge.events == [UserGuestMerged(user_id=user_id, guest_id=guest_id)]
    assert merge == GuestMerge(guest_id=guest_id, user_id=user_id, merged_at=NOW)


def test_where_one_was_signed_in_is_forgotten_when_the_session_ends() -> None:
    session = Session.start(uuid4(), SessionPolicy(), NOW, Client("203.0.113.77", "curl/8"))
    assert (session.device, session.network) == ("curl", "203.0.113.x")
    session.revoke(NOW)
    assert (session.device, session.network) == ("", "")


# --------------------------------------------------------------------------------------------------- mails


@pytest.mark.parametrize(
    ("purpose", "lifetime"),
    [(Purpose.RESET_PASSWORD, timedelta(minutes=30)), (Purpose.CONFIRM_EMAIL, timedelta(days=3))],
)
def test_what_is_mailed_is_the_secret_and_what_is_kept_is_not(purpose: Purpose, lifetime: timedelta) -> None:
    user = a_user()
    token = MailedToken.issue("the secret", purpose, user, MailPolicy(), NOW)
    (event,) = token.events
    assert (event.token, event.email, event.expires_at) == ("the secret", "Ann@Example.com", NOW + lifetime)
    assert (event.user_id, event.first_name, event.locale) == (user.user_id, "Ann", "en")
    assert token == MailedToken(
        digest=digest("the secret"),
        user_id=user.user_id,
        purpose=purpose,
        email="Ann@Example.com",
        session_id=None,
        expires_at=NOW + lifetime,
    )
    assert "the secret" not in repr(token)
    assert repr(token.digest) not in repr(token)


def test_of_links_that_work_an_account_has_a_few() -> None:
    assert [MailPolicy().live(purpose) for purpose in Purpose] == [3, 10]
    assert [*Purpose] == ["reset_password", "confirm_email"]
    assert [*Limited] == ["guest", "password_reset"]
    assert (Quota(2).within, Requests(NOW).count) == (timedelta(hours=1), 0)


def test_what_confirms_an_email_goes_to_the_one_that_waits_and_a_new_password_to_the_one_of_now() -> None:
    user = a_user()
    user.change_profile(ProfileChange(email="bo@example.com"), NOW)
    emails = [MailedToken.issue("x", purpose, user, MailPolicy(), NOW).email for purpose in Purpose]
    assert emails == ["Ann@Example.com", "bo@example.com"]


def test_an_origin_asks_so_often_in_a_time_and_is_told_how_long_to_wait() -> None:
    requests, quota = Requests(NOW), Quota(2, timedelta(minutes=10))
    requests.add(quota, NOW)
    requests.add(quota, NOW + timedelta(minutes=1))
    with pytest.raises(TooManyRequests) as refused:
        requests.add(quota, NOW + timedelta(minutes=4))
    assert refused.value.retry_after == timedelta(minutes=6)
    requests.add(quota, NOW + timedelta(minutes=10))
    assert requests == Requests(NOW + timedelta(minutes=10), 1)


@pytest.mark.parametrize(
    "same",
    [
        "ann@b\u00fccher.example",
        "ann@bu\u0308cher.example",
        "ANN@B\u00dcCHER.Example",
        " ann@xn--bcher-kva.example\t",
        "ann@XN--BCHER-KVA.example",
        "ann@b\u00fccher\u3002example",
        "ann@\uff42\u00fccher.example",
    ],
)
def test_an_email_has_one_form_however_it_is_written(same: str) -> None:
    assert email_key(same) == "ann@xn--bcher-kva.example"


def test_other_emails_have_other_forms() -> None:
    emails = ["ann@example.com", "ann@example.org", "an@example.com", "j\u00f6@example.com", "jo@example.com"]
    assert len({email_key(email) for email in emails}) == 5
    assert email_key("J\u00d6@Example.com") == email_key("jo\u0308@example.com")


@pytest.mark.parametrize(
    "nonsense", ["", "ann", "@", "ann@\u00fc..example", "ann@" + "\u00fc" * 64 + ".example"]
)
def test_what_is_no_email_has_a_form_too(nonsense: str) -> None:
    assert email_key(f" {nonsense.upper()}") == nonsense


def test_an_email_is_kept_as_it_was_written() -> None:
    assert valid_email("  Ann.Lee+shop@Bu\u0308cher.example ") == "Ann.Lee+shop@B\u00fccher.example"
    for fine in ("j\u00f6rg@example.com", "ann@shop.test", "ann@shop.local", "ann@mail.localhost"):
        assert valid_email(fine) == fine


@pytest.mark.parametrize(
    "nonsense",
    ["", "ann", "ann@", "@b.example", "a@b@c.example", "a b@c.example", "a@[192.0.2.1]", "a@b..example"],
)
def test_what_is_no_email_is_refused_without_repeating_it(nonsense: str) -> None:
    for attempt in (
        lambda: valid_email(nonsense),
        lambda: a_user().change_profile(ProfileChange(email=nonsense), NOW),
        lambda: User.register(email=nonsense, password_hash="h", first_name="Ann", last_name="Lee", now=NOW),
    ):
        with pytest.raises(InvalidArgument) as refused:
            attempt()
        assert refused.value.message == "email: must be an email address, like ann@example.com"


def test_only_another_address_is_a_move() -> None:
    user = a_user()
    assert user.moves_to("ann@example.org")
    for same in (None, "Ann@Example.com", " ANN@EXAMPLE.COM"):
        assert not user.moves_to(same)


def test_errors_have_the_reasons_that_clients_know_them_by() -> None:
    assert CurrentPasswordWrong().message == "current_password: is wrong"
    assert StaffProtected().message == "only an admin may change the account of staff"
    errors = (EmailTaken(), InvalidCredentials(), InvalidRefreshToken(), CurrentPasswordNeeded())
    assert [(error.reason, error.code, error.message) for error in errors] == [
        ("EMAIL_TAKEN", Code.ALREADY_EXISTS, "email: belongs to another account"),
        ("INVALID_CREDENTIALS", Code.UNAUTHENTICATED, "email or password is wrong"),
        (
            "INVALID_REFRESH_TOKEN",
            Code.UNAUTHENTICATED,
            "the refresh token is not valid; please sign in again",
        ),
        (
            "INVALID_ARGUMENT",
            Code.INVALID_ARGUMENT,
            "current_password: is needed to change the email address or the password",
        ),
    ]
    assert [violation.field for violation in EmailTaken().violations] == ["email"]
    named = (PasswordOfAnother(), InvalidMailedToken(), InvalidGuestToken(), GuestMerged())
    assert [[violation.field for violation in error.violations] for error in named] == [
        ["password"],
        ["token"],
        ["guest_token"],
        ["guest_token"],
    ]
    reasons: dict[type[DomainError], str] = {
        UserNotFound: "USER_NOT_FOUND",
        SessionNotFound: "SESSION_NOT_FOUND",
        StaffProtected: "STAFF_PROTECTED",
        LastAdmin: "LAST_ADMIN",
        NotAnAdminAnyMore: "NOT_AN_ADMIN_ANY_MORE",
        TooManyRequests: "TOO_MANY_REQUESTS",
        GuestMerged: "GUEST_MERGED",
        EmailVerified: "EMAIL_VERIFIED",
        AddressNotFound: "ADDRESS_NOT_FOUND",
        AddressBookFull: "ADDRESS_BOOK_FULL",
        SignInLocked: "SIGN_IN_LOCKED",
        SignInBusy: "SIGN_IN_BUSY",
    }
    assert {type_: type_.reason for type_ in reasons} == reasons


def test_a_changed_profile_is_announced_with_all_its_values() -> None:
    user = a_user()
    user.change_profile(ProfileChange(last_name="Lee-Smith"), NOW + timedelta(days=1))
    assert user.updated_at == NOW + timedelta(days=1)
    assert user.events[1:] == [
        UserProfileUpdated(
            user_id=user.user_id,
            email="Ann@Example.com",
            first_name="Ann",
            last_name="Lee-Smith",
            locale="en",
        )
    ]


def test_what_is_announced_carries_every_field_of_the_account() -> None:
    user = a_user()
    user.change_profile(ProfileChange(last_name="Lee-Smith"), NOW)
    user.change_profile(ProfileChange(last_name="Lee"), NOW)
    announced = {each.name for each in fields(User)}
    announced -= {"password_hash", "roles", "created_at", "updated_at", "events"}
    announced -= {"verified_email", "pending_email", "erased_at"}
    for event in (user.events[0], user.events[-1]):
        assert {each.name for each in fields(event)} == announced
        assert all(getattr(event, name) == getattr(user, name) != "" for name in announced)


def test_a_change_that_changes_nothing_leaves_no_trace() -> None:
    user = a_user()
    user.change_profile(ProfileChange(first_name="Ann"), NOW + timedelta(days=1))
    assert user.updated_at == NOW
    assert len(user.events) == 1


def test_a_change_of_one_value_beside_others_that_stay_is_one() -> None:
    user = a_user()
    user.change_profile(ProfileChange(first_name="Anne", last_name="Lee"), NOW + timedelta(days=1))
    assert (user.first_name, user.last_name, user.updated_at) == ("Anne", "Lee", NOW + timedelta(days=1))
    assert len(user.events) == 2


def test_an_account_is_the_same_whatever_is_still_to_be_told_of_it() -> None:
    user = a_user()
    assert user.events
    assert replace(user, events=[]) == user


def test_an_address_may_do_without_a_second_line_and_a_region() -> None:
    assert (SOMEWHERE.line2, SOMEWHERE.region) == ("", "")
    assert set(AddressKind) == {"shipping", "billing"}


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
    with pytest.raises(AddressBookFull) as full:
        book.add(BILLING, SOMEWHERE, as_default=False, now=NOW)
    assert full.value.message == "an account has at most 50 addresses"
    assert full.value.metadata == {"limit": "50"}
    assert len(book.addresses) == 50


def test_editing_an_address_that_is_no_default_leaves_the_default_where_it_is() -> None:
    book, (first, second, billing) = a_book(SHIPPING, SHIPPING, BILLING)
    edited = book.replace(second, SHIPPING, ELSEWHERE, as_default=False, now=NOW)
    assert not edited.is_default
    assert defaults(book) == {first, billing}
    assert book.replace(second, SHIPPING, ELSEWHERE, as_default=True, now=NOW).is_default
    assert defaults(book) == {second, billing}


def test_an_address_that_moves_to_a_kind_which_has_a_default_is_none_there() -> None:
    book, (first, second, billing) = a_book(SHIPPING, SHIPPING, BILLING)
    assert not book.replace(first, BILLING, SOMEWHERE, as_default=False, now=NOW).is_default
    assert defaults(book) == {second, billing}


def test_a_replaced_address_keeps_its_id_and_age_and_has_all_new_values() -> None:
    book, (only,) = a_book(SHIPPING)
    later = NOW + timedelta(days=1)
    assert book.replace(only, BILLING, ELSEWHERE, as_default=False, now=later) == Address(
        address_id=only, kind=BILLING, is_default=True, postal=ELSEWHERE, created_at=NOW, updated_at=later
    )


def test_an_added_address_has_all_its_values() -> None:
    book, _ = a_book(SHIPPING)
    added = book.add(SHIPPING, ELSEWHERE, as_default=False, now=NOW)
    assert added == Address(
        address_id=added.address_id,
        kind=SHIPPING,
        is_default=False,
        postal=ELSEWHERE,
        created_at=NOW,
        updated_at=NOW,
    )


def test_of_those_made_at_the_same_moment_the_one_with_the_greatest_id_becomes_the_default() -> None:
    book, (first,) = a_book(SHIPPING)
    same = [book.add(SHIPPING, SOMEWHERE, as_default=False, now=NOW).address_id for _ in range(3)]
    book.remove(first)
    assert defaults(book) == {max(same)}


def test_what_changed_in_a_book_is_known_and_nothing_else() -> None:
    book, (first, second, third) = a_book(SHIPPING, SHIPPING, BILLING)
    book.changed.clear()
    book.replace(second, SHIPPING, SOMEWHERE, as_default=True, now=NOW)
    assert (book.changed, book.removed) == ({first, second}, set())
    book.changed.clear()
    book.remove(second)
    assert (book.changed, book.removed) == ({first}, {second})
    book.remove(first)
    assert (book.changed, book.removed) == (set(), {first, second})
    book.remove(third)
    assert book.removed == {first, second, third}


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


def test_a_refresh_token_is_good_once_and_a_late_second_use_ends_the_session() -> None:
    policy = SessionPolicy()
    session = Session.start(uuid4(), policy, NOW)
    token = session.issue("secret", policy, NOW)
    assert session.use(token, SALT, policy, NOW)
    assert (token.used_at, token.successor_salt) == (NOW, SALT)
    late = NOW + policy.grace + timedelta(microseconds=1)
    assert session.use(token, b"another", policy, late) is False
    assert session.revoked_at == late
    assert not session.use(session.issue("next", policy, NOW), SALT, policy, late)
    session.revoke(late + timedelta(days=1))
    assert session.revoked_at == late


def test_a_second_use_within_the_grace_finds_the_first_salt() -> None:
    policy = SessionPolicy()
    session = Session.start(uuid4(), policy, NOW)
    token = session.issue("secret", policy, NOW)
    assert session.use(token, SALT, policy, NOW)
    assert session.use(token, b"another", policy, NOW + policy.grace)
    assert session.last_used_at == NOW + policy.grace
    assert (token.used_at, token.successor_salt, session.revoked_at) == (NOW, SALT, None)


def test_without_a_salt_or_a_grace_a_second_use_ends_the_session_at_once() -> None:
    for salt, policy in ((None, SessionPolicy()), (SALT, SessionPolicy(grace=timedelta(seconds=-1)))):
        session = Session.start(uuid4(), policy, NOW)
        token = replace(session.issue("secret", policy, NOW), used_at=NOW, successor_salt=salt)
        assert not session.use(token, b"another", policy, NOW)
        assert session.revoked_at == NOW


def test_a_successor_follows_from_secret_and_salt_together() -> None:
    # RFC 4231, test case 2: HMAC-SHA-256 of these two.
    mac = bytes.fromhex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    assert urlsafe_b64decode(successor("Jefe", b"what do ya want for nothing?") + "=") == mac
    assert len({successor(secret, salt) for secret in ("a", "b") for salt in (b"c", b"d")}) == 4


def test_a_token_expires_when_idle_and_never_outlives_its_session() -> None:
    policy = SessionPolicy(idle=timedelta(days=30), longest=timedelta(days=90))
    session = Session.start(uuid4(), policy, NOW)
    assert session.issue("a", policy, NOW).expires_at == NOW + timedelta(days=30)
    assert session.issue("b", policy, NOW + timedelta(days=80)).expires_at == NOW + timedelta(days=90)
    token = session.issue("c", policy, NOW)
    assert session.use(replace(token), SALT, policy, NOW + timedelta(days=30, microseconds=-1))
    assert not session.use(token, SALT, policy, NOW + timedelta(days=30))
    assert (session.revoked_at, token.used_at) == (None, None)


def test_sign_ins_last_for_a_month_unused_and_three_at_most() -> None:
    policy = SessionPolicy()
    assert (policy.idle, policy.longest) == (timedelta(days=30), timedelta(days=90))
    assert (policy.guest, policy.grace) == (timedelta(days=30), timedelta(seconds=10))


def test_a_session_begins_unused_and_with_what_was_signed_in_with() -> None:
    policy, user_id = SessionPolicy(), uuid4()
    session = Session.start(user_id, policy, NOW, Client("203.0.113.77", "curl/8"))
    assert session == Session(
        session_id=session.session_id,
        user_id=user_id,
        expires_at=NOW + policy.longest,
        revoked_at=None,
        is_guest=False,
        created_at=NOW,
        last_used_at=NOW,
        device="curl",
        network="203.0.113.x",
    )
    guest = Session.start_guest(policy, NOW)
    assert (guest.created_at, guest.last_used_at, guest.revoked_at) == (NOW, NOW, None)
    older = Session(uuid4(), user_id, NOW)
    assert (older.is_guest, older.device, older.network) == (False, "", "")


def test_what_is_kept_of_a_token_does_not_show_it() -> None:
    token = Session.start(uuid4(), SessionPolicy(), NOW).issue("secret", SessionPolicy(), NOW)
    assert token.digest == digest("secret")
    assert b"secret" not in token.digest
    token.successor_salt = SALT
    for kept in ("secret", repr(token.digest), repr(SALT)):
        assert kept not in repr(token)


def test_failures_lock_from_the_tenth_on_for_longer_each_time() -> None:
    policy, failures, now = LockoutPolicy(), Failures(), NOW
    for count in range(1, 10):
        failures.add(policy, now)
        assert (failures.count, failures.last_at, failures.wait(now)) == (count, now, timedelta())
    waits = []
    for _ in range(8):
        failures.add(policy, now)
        waits.append(failures.wait(now))
        now += waits[-1]
        assert failures.wait(now) == timedelta()
        assert failures.wait(now + timedelta(days=1)) == timedelta()
    assert waits == [timedelta(minutes=m) for m in (1, 2, 4, 8, 16, 32, 60, 60)]


def test_failures_are_forgotten_after_a_quiet_day() -> None:
    policy = LockoutPolicy()
    for quiet, count in ((timedelta(days=1), 10), (timedelta(days=1, microseconds=1), 1)):
        failures = Failures(9, NOW)
        failures.add(policy, NOW + quiet)
        assert failures.count == count


def test_no_number_of_failures_breaks_the_lock() -> None:
    failures = Failures(100_000)
    failures.add(LockoutPolicy(), NOW)
    assert failures.wait(NOW) == timedelta(hours=1)


def test_the_wait_is_told_in_whole_seconds_and_is_the_longer_of_the_two() -> None:
    def told(attempts: SignInAttempts) -> timedelta | None:
        with pytest.raises(SignInLocked) as locked:
            attempts.check(SignInPolicy(), NOW)
        assert locked.value.message == "too many wrong passwords; please try again later"
        return locked.value.retry_after

    short, long = (Failures(20, NOW, NOW + timedelta(seconds=seconds)) for seconds in (0.2, 1.2))
    assert told(SignInAttempts(short, Failures())) == timedelta(seconds=1)
    assert told(SignInAttempts(short, long)) == told(SignInAttempts(long, short)) == timedelta(seconds=2)
    SignInAttempts(Failures(20, NOW, NOW), Failures(20, NOW, NOW)).check(SignInPolicy(), NOW)


def test_strangers_wait_for_each_other_and_who_is_known_for_nobody() -> None:
    locked = Failures(20, NOW, NOW + timedelta(hours=1))
    SignInAttempts(strangers=locked, signed_in_at=NOW - timedelta(days=90)).check(SignInPolicy(), NOW)
    for before in (None, NOW - timedelta(days=90, microseconds=1)):
        with pytest.raises(SignInLocked):
            SignInAttempts(strangers=locked, signed_in_at=before).check(SignInPolicy(), NOW)


def test_failures_of_strangers_count_twice_and_of_who_is_known_only_where_they_are() -> None:
    policy = SignInPolicy()
    stranger, known = SignInAttempts(), SignInAttempts(signed_in_at=NOW)
    for _ in range(10):
        stranger.fail(policy, NOW)
        known.fail(policy, NOW)
    assert stranger.here == known.here == Failures(10, NOW, NOW + timedelta(minutes=1))
    assert stranger.strangers == Failures(10, NOW, NOW + timedelta(seconds=1))
    assert known.strangers == Failures()
    for _ in range(10):
        stranger.fail(policy, NOW)
    assert stranger.strangers.wait(NOW) == timedelta(minutes=1)


def test_success_forgets_the_failures_here_and_makes_the_origin_known() -> None:
    strangers = Failures(3, NOW)
    attempts = SignInAttempts(Failures(3, NOW), strangers, NOW)
    assert attempts.succeed(NOW)
    assert attempts == SignInAttempts(Failures(), strangers, NOW)
    assert attempts.succeed(NOW + timedelta(days=1, microseconds=-1)) is False
    assert attempts.signed_in_at == NOW
    assert attempts.succeed(NOW + timedelta(days=1))
    assert attempts.signed_in_at == NOW + timedelta(days=1)
    assert SignInAttempts().succeed(NOW)


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::7", "2001:db8:1:3::/64"),
        ("", ""),
        ("not an address", ""),
    ],
)
def test_an_origin_is_an_address_or_a_network_of_one_site(address: str, origin: str) -> None:
    assert origin_of(address) == origin


def test_failures_are_counted_by_email_in_one_form_and_origin() -> None:
    key = AttemptsKey.of("Ann@B\u00fccher.example ", "192.0.2.1")
    assert key == AttemptsKey.of("ann@xn--bcher-kva.example", "::ffff:192.0.2.1")
    assert key.account != key.origin
    elsewhere, other = (
        AttemptsKey.of("ann@xn--bcher-kva.example", "192.0.2.2"),
        AttemptsKey.of("bo@b.example", "192.0.2.1"),
    )
    assert (elsewhere.account == key.account, elsewhere.origin == key.origin) == (True, False)
    assert (other.account == key.account, other.origin == key.origin) == (False, False)
    assert (len(key.account), len(key.origin)) == (32, 32)


def test_what_is_told_of_an_account_that_was_changed_is_all_that_others_need() -> None:
    user = replace(a_user(), email="a@example.com", locale="de", pending_email="b@example.com")
    user.confirm_email("b@example.com", NOW)
    assert (
        UserProfileUpdated(
            user_id=user.user_id,
            email="b@example.com",
            first_name=user.first_name,
            last_name=user.last_name,
            locale="de",
        )
        in user.events
    )
