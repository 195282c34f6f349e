"""What is generated can be handed to any program, whatever the dice say."""

import secrets
from pathlib import Path

import pytest

from stoa_stack.credentials import Secrets, password
from stoa_stack.instance import Instance
from stoa_stack.parts import parts
from stoa_stack.servers.kafka import cluster_id

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_HEXADECIMAL = frozenset("0123456789abcdef")


@pytest.fixture(params=range(256), ids="{:02x}".format)
def dice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Random bytes that are all the same; of 62 and 63 base64url makes `-` and `_`."""
    value: int = request.param
    monkeypatch.setattr(secrets, "token_bytes", lambda count=None: bytes([value]) * (count or 32))
    return value


def test_a_cluster_id_begins_with_a_letter_so_that_it_is_never_taken_for_an_option(dice: int) -> None:
    generated = cluster_id()
    assert len(generated) == 22
    assert generated[0] in _LETTERS


def test_a_password_needs_no_quoting_anywhere(dice: int) -> None:
    assert set(password()) <= _HEXADECIMAL


def test_two_clusters_have_two_ids() -> None:
    assert len({cluster_id() for _ in range(100)}) == 100


def test_no_secret_is_in_the_command_of_a_part(tmp_path: Path) -> None:
    at = Instance(tmp_path)
    commands = [" ".join(map(str, part.command)) for part in parts(at)]
    generated = [path for path in (tmp_path / "secrets").rglob("*") if path.is_file()]
    values = {path: path.read_text() for path in generated if path.name != "stoa_staff_email"}
    assert Secrets(tmp_path / "secrets" / "stack").get("staff_password") in values.values()
    assert not [path for path, value in values.items() if any(value in command for command in commands)]
