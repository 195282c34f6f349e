"""The mail server, as the process that the stack runs."""

import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from stoa_chassis.testing import free_port


class MailServer:
    """The process under test."""

    def __init__(self, state: Path) -> None:
        self.smtp_port, self.page_port = free_port(), free_port()
        self._environment = {
            "MAIL_SMTP_PORT": str(self.smtp_port),
            "MAIL_PAGE_PORT": str(self.page_port),
            "MAIL_STATE": str(state / "mail" / "mail.sqlite"),
        }
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.page_port}", trust_env=False)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stoa_fakes.mail_server"], env=self._environment
        )
        for _ in range(200):
            try:
                self.http.get("/healthz").raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise AssertionError("it did not start")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)

    def send(self, mail: EmailMessage) -> None:
        with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=5) as smtp:
            smtp.send_message(mail)

    def list(self, **query: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = (
            self.http.get("/api/mails", params=query).raise_for_status().json()["mails"]
        )
        return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MailServer]:
    running = MailServer(tmp_path)
    yield running
    if running.process.poll() is None:
        running.stop(signal.SIGKILL)


def a_mail(number: int = 1, to: str = "ada@mail.test") -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"] = "Shop <shop@stoa.example>", to
    mail["Subject"] = f"Bestellung {number} bestätigt"
    mail["Message-ID"] = f"<{number}@stoa.example>"
    mail.set_content("Grüße")
    mail.add_alternative("<p>Grüße</p><script>alert(1)</script>", subtype="html")
    return mail


def test_a_mail_is_kept_and_shown_with_what_it_says(server: MailServer) -> None:
    server.send(a_mail())
    (summary,) = server.list()
    assert (summary["subject"], summary["recipients"]) == ("Bestellung 1 bestätigt", "ada@mail.test")
    mail = server.http.get(f"/api/mails/{summary['id']}").json()
    assert (mail["text"], mail["message_id"]) == ("Grüße\n", "<1@stoa.example>")
    assert "<p>Grüße</p>" in mail["html"]


def test_the_pages_show_it_and_its_html_can_do_nothing(server: MailServer) -> None:
    server.send(a_mail())
    assert "Bestellung 1 bestätigt" in server.http.get("/").text
    page = server.http.get("/mails/1")
    assert '<iframe src="/mails/1/html" sandbox="allow-popups' in page.text
    assert "script" not in page.text
    policy = server.http.get("/mails/1/html").headers["content-security-policy"]
    assert "sandbox" in policy
    assert "allow-scripts" not in policy
    assert server.http.get("/mails/2").status_code == 404


def test_a_mail_that_comes_again_is_there_once_and_counted(server: MailServer) -> None:
    server.send(a_mail())
    server.send(a_mail())
    (summary,) = server.list()
    assert summary["deliveries"] == 2


def test_what_it_took_is_still_there_after_a_crash(server: MailServer) -> None:
    server.send(a_mail())
    server.stop(signal.SIGKILL)
    server.start()
    assert [mail["message_id"] for mail in server.list()] == ["<1@stoa.example>"]


def test_it_stops_when_it_is_told_to(server: MailServer) -> None:
    server.send(a_mail())
    assert server.stop() in (0, -signal.SIGTERM)


def test_mails_are_found_by_recipient_subject_and_what_came_before(server: MailServer) -> None:
    for number, to in enumerate(("ada@mail.test", "bob@mail.test", "ada@mail.test"), 1):
        server.send(a_mail(number, to))
    assert [mail["id"] for mail in server.list()] == [3, 2, 1]
    assert [mail["id"] for mail in server.list(to="ADA@")] == [3, 1]
    assert [mail["id"] for mail in server.list(subject="bestellung 2")] == [2]
    assert [mail["id"] for mail in server.list(after="1", order="asc")] == [2, 3]
    assert server.http.get("/api/mails", params={"limit": "x"}).status_code == 400


def test_it_misbehaves_as_it_is_told(server: MailServer) -> None:
    server.http.post("/admin/faults", json={"error_rate": 1}).raise_for_status()
    with pytest.raises(smtplib.SMTPDataError) as refused:
        server.send(a_mail())
    assert refused.value.smtp_code == 451
    server.http.post("/admin/faults", json={"lost_answer_rate": 1}).raise_for_status()
    with pytest.raises(smtplib.SMTPServerDisconnected):
        server.send(a_mail())
    assert len(server.list()) == 1
    server.http.post("/admin/faults", json={}).raise_for_status()
    server.send(a_mail(2))
    assert server.http.post("/admin/faults", json={"color": "red"}).status_code == 400
