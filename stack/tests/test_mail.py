"""`stoa mail`, on a mail server of its own."""

import json
import os
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from stoa_stack.throwaway import port_base

_SMTP, _PAGE = 25, 26  # offsets from the port base


class Stoa:
    """Runs `stoa` for an instance of which only the mail server runs."""

    def __init__(self, state: Path, base: int) -> None:
        self.base = base
        self._env = os.environ | {"STOA_STATE": str(state), "STOA_PORT_BASE": str(base), "COLUMNS": "200"}

    def mail(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "stoa_stack.cli", "mail", *arguments],
            env=self._env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def send(self, number: int, to: str) -> None:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "shop@stoa.example", to, f"Order {number} is confirmed"
        mail["Message-ID"] = f"<{number}@stoa.example>"
        mail.set_content(f"Thank you for order {number}.")
        with smtplib.SMTP("127.0.0.1", self.base + _SMTP, timeout=5) as smtp:
            smtp.send_message(mail)


@pytest.fixture(scope="module")
def stoa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stoa]:
    state = tmp_path_factory.mktemp("state")
    with port_base() as base:
        settings = {"MAIL_SMTP_PORT": base + _SMTP, "MAIL_PAGE_PORT": base + _PAGE, "MAIL_STATE": state / "m"}
        process = subprocess.Popen(
            [sys.executable, "-m", "stoa_fakes.mail_server"],
            env={name: str(value) for name, value in settings.items()},
        )
        try:
            for _ in range(200):
                try:
                    httpx.get(f"http://127.0.0.1:{base + _PAGE}/healthz", trust_env=False)
                    break
                except httpx.HTTPError:
                    time.sleep(0.05)
            running = Stoa(state, base)
            running.send(1, "ada@mail.test")
            running.send(2, "bob@mail.test")
            running.send(2, "bob@mail.test")
            yield running
        finally:
            process.kill()
            process.wait()


def test_mails_are_listed_the_newest_last_and_found_by_words(stoa: Stoa) -> None:
    shown = stoa.mail("list").stdout
    assert shown.index("Order 1 is confirmed") < shown.index("Order 2 is confirmed (came 2 times)")
    (found,) = json.loads(stoa.mail("list", "--to", "ADA", "--subject", "confirmed", "--json").stdout)
    assert (found["id"], found["recipients"]) == (1, "ada@mail.test")
    assert stoa.mail("list", "--to", "nobody").stdout.strip() == "No mail."


def test_a_mail_is_shown_with_what_it_says(stoa: Stoa) -> None:
    shown = stoa.mail("show", "1").stdout
    assert "Subject: Order 1 is confirmed" in shown
    assert "Thank you for order 1." in shown
    assert json.loads(stoa.mail("show", "1", "--json").stdout)["text"] == "Thank you for order 1.\n"
    missing = stoa.mail("show", "99")
    assert (missing.returncode, missing.stdout.strip()) == (1, "There is no mail 99.")


def test_a_mail_is_waited_for(stoa: Stoa) -> None:
    assert "Thank you for order 2." in stoa.mail("wait", "--to", "bob").stdout
    late = stoa.mail("wait", "--to", "bob", "--after", "2", "--seconds", "0.3")
    assert (late.returncode, late.stdout.strip()) == (1, "No such mail came within 0.3 s.")


def test_a_mail_server_that_does_not_run_is_said_so(stoa: Stoa, tmp_path: Path) -> None:
    elsewhere = Stoa(tmp_path, 64000).mail("list")
    assert elsewhere.returncode == 1
    assert "stoa status" in elsewhere.stdout
