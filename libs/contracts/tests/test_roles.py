"""Who is staff, and of which kind."""

import pytest

from stoa_contracts.roles import ADMIN, STAFF, STAFF_ROLES, is_admitted


def test_roles_are_called_as_tokens_and_stored_accounts_have_them() -> None:
    assert (STAFF, ADMIN) == ("staff", "admin")
    assert {"catalogue", "warehouse", "support", "admin"} == STAFF_ROLES


@pytest.mark.parametrize(
    ("roles", "wanted", "admitted"),
    [
        ("", "", False),
        ("warehouse", "warehouse", False),
        ("admin", "", False),
        ("staff", "", True),
        ("staff support", "", True),
        ("staff", "warehouse", False),
        ("staff support", "warehouse", False),
        ("staff warehouse", "warehouse", True),
        ("staff support", "warehouse support", True),
        ("staff admin", "warehouse", True),
    ],
)
def test_only_staff_of_a_wanted_kind_is_admitted_and_who_administers_always(
    roles: str, wanted: str, admitted: bool
) -> None:
    assert is_admitted(frozenset(roles.split()), frozenset(wanted.split())) == admitted
