"""All mail that was taken, in one SQLite file.

A mail commits before it is answered for. One that comes again, by its Message-ID, is not kept again, but
counted: as a mailbox does that knows duplicates.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import default
from pathlib import Path
from typing import Any, NamedTuple, Self

_HEADERS = BytesHeaderParser()
_SCHEMA = """
create table if not exists mails (
  id integer primary key autoincrement,
  message_id text not null unique,
  sender text not null,
  recipients text not null,
  subject text not null,
  content blob not null,
  deliveries integer not null default 1,
  received real not null
);
"""
_COLUMNS = "id, message_id, sender, recipients, subject, deliveries, received"


class Summary(NamedTuple):
    """A mail in a list; `deliveries` is how often it came, `received` when first, in Unix time."""

    id: int
    message_id: str
    sender: str
    recipients: str
    subject: str
    deliveries: int
    received: float


class Mail(NamedTuple):
    """A mail with what it says; a part that it does not have is empty."""

    summary: Summary
    headers: Sequence[tuple[str, str]]
    text: str
    html: str


class Mailbox:
    """The mailbox of everybody."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Open the file, or make it."""
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.executescript("pragma journal_mode = wal; pragma synchronous = normal;" + _SCHEMA)
            yield cls(database)

    def add(self, sender: str, recipients: Sequence[str], content: bytes) -> None:
        """Keep a mail, or count it if it is there. Raises sqlite3.OperationalError if there is no room."""
        headers = _headers(content)
        self._database.execute(
            "insert into mails (message_id, sender, recipients, subject, content, received)"
            " values (?, ?, ?, ?, ?, ?)"
            " on conflict (message_id) do update set deliveries = deliveries + 1",
            (
                headers.get("message-id", "").strip() or f"<{time.time_ns()}@unnamed>",
                sender,
                ", ".join(recipients),
                str(default.header_fetch_parse("subject", headers.get("subject", ""))),
                content,
                time.time(),
            ),
        )

    def list(
        self, *, to: str = "", subject: str = "", after: int = 0, newest: bool = True, limit: int = 50
    ) -> Sequence[Summary]:
        """Return mails whose recipients and subject have the given words in them, without regard to case.

        `after` is the id of a mail; only those that came later are returned.
        """
        order = "desc" if newest else "asc"
        rows = self._database.execute(
            f"select {_COLUMNS} from mails where id > ?"
            " and instr(lower(recipients), lower(?)) and instr(lower(subject), lower(?))"
            f" order by id {order} limit ?",
            (after, to, subject, limit),
        )
        return [Summary(*row) for row in rows]

    def get(self, mail_id: int) -> Mail | None:
        """Return a mail, if there is one of that id."""
        row: tuple[Any, ...] | None = self._database.execute(
            f"select {_COLUMNS}, content from mails where id = ?", (mail_id,)
        ).fetchone()
        if row is None:
            return None
        mail = _parsed(row[-1])
        headers = [(name, str(value)) for name, value in mail.items()]
        return Mail(Summary(*row[:-1]), headers, _part(mail, "plain"), _part(mail, "html"))


def _headers(content: bytes) -> dict[str, str]:
    """Return the headers as they are written: to parse all of them takes longer than to keep the mail."""
    head, _, _ = content.partition(b"\r\n\r\n")
    return {name.lower(): value for name, value in _HEADERS.parsebytes(head).raw_items()}


def _parsed(content: bytes) -> EmailMessage:
    parsed = message_from_bytes(content, policy=default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def _part(mail: EmailMessage, subtype: str) -> str:
    part = mail.get_body((subtype,))
    return str(part.get_content()).replace("\r\n", "\n") if part is not None else ""
