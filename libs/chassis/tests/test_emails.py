"""Which text is an email address, and which two are the same."""

import pytest

from stoa_chassis.emails import email_key, valid_email
from stoa_chassis.errors import InvalidArgument


def test_an_address_is_kept_as_its_owner_wrote_it_without_the_blanks_around_it() -> None:
    assert valid_email("  Ann.Lee@Example.com ") == "Ann.Lee@Example.com"
    assert valid_email("jo\u0308@example.com") == "j\u00f6@example.com"


def test_a_domain_that_is_nobodys_on_the_internet_may_be_somebodys_here() -> None:
    assert valid_email("ann@mail.test") == "ann@mail.test"


@pytest.mark.parametrize(
    "text", ["", "ann", "ann@", "@example.com", "a b@example.com", "ann@nowhere@twice.com"]
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        valid_email(text)
    (violation,) = refused.value.violations
    assert violation.field == "email"
    assert violation.description == "must be an email address, like ann@example.com"


@pytest.mark.parametrize(
    ("email", "key"),
    [
        (" Ann@Example.COM ", "ann@example.com"),
        ("JO\u0308@example.com", "j\u00f6@example.com"),
        ("ann@B\u00fccher.example", "ann@xn--bcher-kva.example"),
        ("Ann@XN--BCHER-KVA.example", "ann@xn--bcher-kva.example"),
        ('"at@home"@B\u00fccher.example', '"at@home"@xn--bcher-kva.example'),
    ],
)
def test_the_same_address_has_one_form_however_it_is_written(email: str, key: str) -> None:
    assert email_key(email) == key


@pytest.mark.parametrize("text", ["Nobody", "ann@\u2603\u200d..", ""])
def test_what_is_no_address_has_a_form_too(text: str) -> None:
    assert email_key(text) == text.lower()
