"""`stoa mail`: what the mail server of an instance has got."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx
from rich.console import Console
from rich.table import Table

from stoa_stack.companies import MAIL_SERVER
from stoa_stack.instance import Instance

Mail: TypeAlias = Mapping[str, Any]
"""A mail as the mail server's API has it."""

_PAUSE = 0.2  # seconds


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which mails: those with some words in their recipients and subject that came after another one."""

    to: str = ""
    subject: str = ""
    after: int = 0


class Mailbox:
    """The mail that an instance has sent. What it is asked raises an error of httpx if it does not run."""

    def __init__(self, at: Instance) -> None:
        self.url = MAIL_SERVER.page_url(at)
        """Where people look at it."""
        self._client = httpx.Client(base_url=self.url, timeout=10, trust_env=False)

    def list(self, wanted: Wanted = Wanted(), limit: int = 20) -> Sequence[Mail]:
        """Return mails, the newest first."""
        found: Sequence[Mail] = self._get(
            "/api/mails", to=wanted.to, subject=wanted.subject, after=wanted.after, limit=limit
        )["mails"]
        return found

    def get(self, number: int) -> Mail:
        """Return a mail with what it says."""
        return self._get(f"/api/mails/{number}")

    def wait(self, wanted: Wanted, seconds: float) -> Mail | None:
        """Return the newest mail that is wanted as soon as there is one; None if there is none in time."""
        deadline = time.monotonic() + seconds
        while not (found := self.list(wanted, 1)):
            if time.monotonic() > deadline:
                return None
            time.sleep(_PAUSE)
        return self.get(found[0]["id"])

    def _get(self, path: str, **query: str | int) -> Mail:
        answer: Mail = self._client.get(path, params=query).raise_for_status().json()
        return answer


def show_list(at: Instance, console: Console, wanted: Wanted, lines: int, *, as_json: bool) -> int:
    """List the newest mails; 1 if the mail server does not run."""
    try:
        mails = Mailbox(at).list(wanted, lines)
    except httpx.HTTPError as error:
        return _not_running(console, error)
    if as_json:
        sys.stdout.write(json.dumps(mails, indent=2) + "\n")
        return 0
    table = Table("N", "received (UTC)", "to", "subject", box=None, pad_edge=False)
    for mail in reversed(mails):
        again = f" (came {mail['deliveries']} times)" if mail["deliveries"] > 1 else ""
        table.add_row(str(mail["id"]), mail["received"][:19], mail["recipients"], mail["subject"] + again)
    console.print(table if mails else "No mail.")
    return 0


def show(at: Instance, console: Console, number: int, *, as_json: bool) -> int:
    """Show what a mail says; 1 if there is none of that number, or the mail server does not run."""
    try:
        mail = Mailbox(at).get(number)
    except httpx.HTTPStatusError:
        console.print(f"There is no mail {number}.")
        return 1
    except httpx.HTTPError as error:
        return _not_running(console, error)
    return _print(console, mail, as_json=as_json)


def wait(at: Instance, console: Console, wanted: Wanted, seconds: float, *, as_json: bool) -> int:
    """Wait for a mail and show it; 1 if none came in time, or the mail server does not run."""
    try:
        mail = Mailbox(at).wait(wanted, seconds)
    except httpx.HTTPError as error:
        return _not_running(console, error)
    if mail is None:
        console.print(f"No such mail came within {seconds:g} s.")
        return 1
    return _print(console, mail, as_json=as_json)


def _print(console: Console, mail: Mail, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(mail, indent=2) + "\n")
        return 0
    shown = ("from", "to", "date", "subject", "message-id")
    for name, value in mail["headers"]:
        if name.lower() in shown:
            console.print(f"{name}: {value}", markup=False, highlight=False, soft_wrap=True)
    console.print()
    console.print(mail["text"], markup=False, highlight=False, soft_wrap=True)
    return 0


def _not_running(console: Console, error: httpx.HTTPError) -> int:
    console.print(f"The mail server can't be asked: {error!r}. Does the shop run (`stoa status`)?")
    return 1
