"""The gateway's ledger: charges, refunds and the notices about them, in one SQLite file.

Every change commits before it is answered, together with the notice that it causes. A statement takes
microseconds, so it runs where it is called: handing it to a thread would cost more than it does.
"""

import asyncio
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson

from stoa_fakes import notices
from stoa_fakes.notices import open_database

Resource = dict[str, Any]

_SCHEMA = """
create table if not exists charges (
  id text primary key,
  idempotency_key text not null unique,
  fingerprint text not null,
  amount integer not null check (amount > 0),
  currency text not null,
  metadata text not null,
  status text not null check (status in ('pending', 'succeeded', 'failed')),
  failure_code text,
  brand text not null,
  last4 text not null,
  refunded integer not null default 0 check (refunded between 0 and amount),
  captured integer not null default 1,
  capture_at real,
  created real not null
);
create index if not exists charges_to_capture on charges (capture_at) where status = 'pending';
create table if not exists refunds (
  id text primary key,
  idempotency_key text not null unique,
  fingerprint text not null,
  charge text not null references charges,
  amount integer not null check (amount > 0),
  currency text not null,
  metadata text not null,
  status text not null,
  created real not null
);
create table if not exists notices (
  id text primary key,
  body text not null,
  attempts integer not null default 0,
  due real
);
create index if not exists notices_due on notices (due) where due is not null;
"""


class RequestRefused(Exception):
    """A request that the gateway does not carry out; `code` is for programs, the message for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Card(NamedTuple):
    """What stands behind a token: the card, and what becomes of a charge to it."""

    brand: str
    last4: str
    failure_code: str | None = None
    answers_late: bool = False


CARDS = {
    "tok_visa": Card("visa", "4242"),
    "tok_mastercard": Card("mastercard", "4444"),
    "tok_declined": Card("visa", "0002", failure_code="card_declined"),
    "tok_insufficient_funds": Card("visa", "9995", failure_code="insufficient_funds"),
    "tok_timeout": Card("visa", "3184", answers_late=True),
}
_LAPSED = "authorization_expired"
_NO_CARD = Card("", "", failure_code="invalid_token")


class Notice(NamedTuple):
    """A notice that is due to be sent."""

    id: str
    body: str
    attempts: int


class Ledger(notices.Ledger[Notice]):
    """All that the gateway must not forget."""

    def __init__(self, database: sqlite3.Connection, *, sends_notices: bool) -> None:
        super().__init__(database, "notices", sends_notices=sends_notices)
        self._capture = asyncio.Event()
        # Seconds that new notices wait before they are sent.
        self.notice_delay = 0.0

    @classmethod
    @contextmanager
    def open(cls, file: Path, *, sends_notices: bool) -> Iterator[Self]:
        """Open the ledger in a file, in a folder that exists; a new one if there is none."""
        with open_database(file, _SCHEMA) as database:
            if "captured" not in (row["name"] for row in database.execute("pragma table_info(charges)")):
                database.execute("alter table charges add column captured integer not null default 1")
            yield cls(database, sends_notices=sends_notices)

    # ------------------------------------------------------------------------------------------- charges

    def charge(
        self,
        key: str,
        fingerprint: str,
        *,
        amount: int,
        currency: str,
        token: str,
        metadata: Resource,
        capture_after: float,
        capture: bool,
    ) -> Resource:
        """Charge a card once per key, or only hold the amount. A declined charge is answered too, as failed.

        Raises RequestRefused (409) if the key was used with another body.
        """
        card = CARDS.get(token, _NO_CARD)
        now = time.time()
        status = "pending" if card.answers_late else "failed" if card.failure_code else "succeeded"
        with self._database:
            if found := self._row("select * from charges where idempotency_key = ?", key):
                return _charge(_same(found, fingerprint))
            values = {
                "id": _new_id("ch"),
                "idempotency_key": key,
                "fingerprint": fingerprint,
                "amount": amount,
                "currency": currency,
                "metadata": orjson.dumps(metadata).decode(),
                "status": status,
                "failure_code": card.failure_code,
                "brand": card.brand,
                "last4": card.last4,
                "captured": capture,
                "capture_at": now + capture_after if card.answers_late else None,
                "created": now,
            }
            charge = _charge(self._insert("charges", values))
            if status != "pending":
                self._notify(f"charge.{status}", charge)
        self.changed.set()
        return charge

    def charge_by_id(self, charge_id: str) -> Resource | None:
        """Return a charge, or None if there is none of that id."""
        row = self._row("select * from charges where id = ?", charge_id)
        return None if row is None else _charge(row)

    def charge_by_key(self, key: str) -> Resource | None:
        """Return the charge that was made with an idempotency key, or None."""
        row = self._row("select * from charges where idempotency_key = ?", key)
        return None if row is None else _charge(row)

    def capture_due(self) -> None:
        """Capture the charges whose time has come."""
        with self._database:
            captured = self._database.execute(
                "update charges set status = 'succeeded', capture_at = null"
                " where status = 'pending' and capture_at <= ? returning *",
                (time.time(),),
            ).fetchall()
            for row in captured:
                self._notify("charge.succeeded", _charge(row))
        if captured:
            self._capture.set()
            self._capture = asyncio.Event()

    def capture(self, charge_id: str, *, held_for: float) -> Resource:
        """Take what a charge holds, once. One that was held for longer has lapsed, and is answered as failed.

        Raises RequestRefused for no charge (404), or one that holds nothing (400).
        """
        with self._database:
            charge = self._row("select * from charges where id = ?", charge_id)
            if charge is None:
                raise RequestRefused(404, "resource_missing", "no such charge")
            if charge["failure_code"] == _LAPSED:
                return _charge(charge)
            if charge["status"] != "succeeded" or (not charge["captured"] and charge["refunded"]):
                raise RequestRefused(400, "charge_not_held", "the charge holds nothing")
            if charge["captured"]:
                return _charge(charge)
            if charge["created"] + held_for < time.time():
                change, kind = f"status = 'failed', failure_code = '{_LAPSED}'", "charge.failed"
            else:
                change, kind = "captured = 1", "charge.captured"
            charge = self._row(f"update charges set {change} where id = ? returning *", charge_id)
            assert charge is not None
            self._notify(kind, _charge(charge))
        self.changed.set()
        return _charge(charge)

    async def next_capture(self) -> None:
        """Wait until some charge is captured late."""
        await self._capture.wait()

    # ------------------------------------------------------------------------------------------- refunds

    def refund(
        self, key: str, fingerprint: str, *, charge_id: str, amount: int, metadata: Resource
    ) -> Resource:
        """Give back a part of a charge, once per key; of one that is only held all of it, which releases it.

        Raises RequestRefused if the key was used with another body (409), there is no such charge (404), it
        was not made, or less than this is left of it, or it is a part of what is held (400).
        """
        with self._database:
            if found := self._row("select * from refunds where idempotency_key = ?", key):
                return _refund(_same(found, fingerprint))
            charge = self._row("select * from charges where id = ?", charge_id)
            if charge is None:
                raise RequestRefused(404, "resource_missing", "no such charge")
            if charge["status"] != "succeeded":
                raise RequestRefused(400, "charge_not_captured", "the charge was not captured")
            if amount > charge["amount"] - charge["refunded"]:
                raise RequestRefused(400, "amount_too_large", "less than this is left of the charge")
            if not charge["captured"] and amount != charge["amount"]:
                raise RequestRefused(400, "charge_not_captured", "a part can't be released of what is held")
            self._database.execute(
                "update charges set refunded = refunded + ? where id = ?", (amount, charge_id)
            )
            values = {
                "id": _new_id("re"),
                "idempotency_key": key,
                "fingerprint": fingerprint,
                "charge": charge_id,
                "amount": amount,
                "currency": charge["currency"],
                "metadata": orjson.dumps(metadata).decode(),
                "status": "succeeded",
                "created": time.time(),
            }
            refund = _refund(self._insert("refunds", values))
            self._notify("refund.succeeded", refund)
        self.changed.set()
        return refund

    def entries(self, after: str, limit: int) -> list[Resource]:
        """Return up to `limit` charges and refunds, oldest first, that come after the one of id `after`."""
        columns = "idempotency_key, amount, currency, metadata, status"
        rows = self._database.execute(
            f"select * from (select id, created, 'charge' kind, id charge, {columns} from charges"
            f" union all select id, created, 'refund', charge, {columns} from refunds)"
            " where substr(id, 4) > ? order by substr(id, 4) limit ?",
            (after[3:], limit),
        )
        return [{**dict(row), "metadata": orjson.loads(row["metadata"])} for row in rows]

    # ------------------------------------------------------------------------------------------- notices

    def due_notices(self, limit: int) -> list[Notice]:
        """Return up to `limit` notices whose time to be sent has come."""
        rows = self._database.execute(
            "select id, body, attempts from notices where due <= ? order by due limit ?",
            (time.time(), limit),
        )
        return [Notice(*row) for row in rows]

    def next_due(self) -> float | None:
        """Return when there is a charge to capture or a notice to send, in Unix time; None if neither is."""
        row = self._row(
            "select min(at) from (select min(capture_at) at from charges where status = 'pending'"
            " union all select min(due) from notices where due is not null)"
        )
        due: float | None = row[0] if row else None
        return due

    def _notify(self, kind: str, resource: Resource) -> None:
        if not self._sends_notices:
            return
        notice_id, now = _new_id("evt"), time.time()
        body = {"id": notice_id, "type": kind, "created": int(now), "data": {"object": resource}}
        self._database.execute(
            "insert into notices (id, body, due) values (?, ?, ?)",
            (notice_id, orjson.dumps(body).decode(), now + self.notice_delay),
        )

    # ------------------------------------------------------------------------------------------- SQLite

    def _insert(self, table: str, values: Resource) -> sqlite3.Row:
        names = ", ".join(values)
        marks = ", ".join("?" * len(values))
        row = self._row(f"insert into {table} ({names}) values ({marks}) returning *", *values.values())
        assert row is not None
        return row


def _same(row: sqlite3.Row, fingerprint: str) -> sqlite3.Row:
    if row["fingerprint"] != fingerprint:
        raise RequestRefused(409, "idempotency_key_reused", "the key was used with another request")
    return row


def _new_id(prefix: str) -> str:
    """Ids sort by time after the prefix, which is what the ledger is paged by."""
    stamp = time.time_ns() // 1000
    return f"{prefix}_{stamp:014x}{uuid.uuid4().hex[:12]}"


def _charge(row: sqlite3.Row) -> Resource:
    return {
        "id": row["id"],
        "object": "charge",
        "amount": row["amount"],
        "amount_refunded": row["refunded"],
        "currency": row["currency"],
        "status": row["status"],
        "captured": bool(row["captured"]),
        "failure_code": row["failure_code"],
        "card": {"brand": row["brand"], "last4": row["last4"]},
        "metadata": orjson.loads(row["metadata"]),
        "created": int(row["created"]),
    }


def _refund(row: sqlite3.Row) -> Resource:
    return {
        "id": row["id"],
        "object": "refund",
        "charge": row["charge"],
        "amount": row["amount"],
        "currency": row["currency"],
        "status": row["status"],
        "metadata": orjson.loads(row["metadata"]),
        "created": int(row["created"]),
    }
