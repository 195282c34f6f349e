"""The carriers' ledger: parcels, their scans and the notices about them, in one SQLite file.

Every change commits before it is answered. A statement takes microseconds, so it runs where it is called:
handing it to a thread would cost more than it does. What a parcel will go through is written down when it is
confirmed; a scan has happened when its time has come.
"""

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

import orjson

from stoa_fakes import notices
from stoa_fakes.notices import open_database

Resource: TypeAlias = dict[str, Any]

_SCHEMA = """
create table if not exists parcels (
    carrier text not null,
    reference text not null,
    -- null: it was voided before anybody booked it
    tracking_id text,
    service text,
    details text,
    status text not null check (status in ('booked', 'confirmed', 'voided')),
    created real not null,
    primary key (carrier, reference),
    unique (carrier, tracking_id)
);
create table if not exists scans (
    id text primary key,
    carrier text not null,
    reference text not null,
    code text not null,
    description text not null,
    location text not null,
    at integer not null,
    -- when its notice is to be sent; null: it was
    due real,
    attempts integer not null default 0
);
create index if not exists scans_of_parcel on scans (carrier, reference, at);
create index if not exists scans_due on scans (due) where due is not null;
"""


class Code(StrEnum):
    """What a scan says, before a carrier puts it in its own words."""

    COLLECTED = "collected"
    OUT_FOR_DELIVERY = "out_for_delivery"
    DELIVERED = "delivered"
    EXCEPTION = "exception"
    RETURNED = "returned"


class Step(NamedTuple):
    """A scan to come: how far between the first and the last it is (0 to 1)."""

    code: Code
    description: str
    after: float


_JOURNEY = (
    Step(Code.COLLECTED, "Picked up", 0),
    Step(Code.OUT_FOR_DELIVERY, "On the vehicle for delivery", 0.7),
    Step(Code.DELIVERED, "Delivered", 1),
)
_JOURNEYS = {
    "SIMULATE DELAY": (
        *_JOURNEY[:1],
        Step(Code.EXCEPTION, "The address could not be found", 0.4),
        *_JOURNEY[1:],
    ),
    "SIMULATE RETURN": (*_JOURNEY[:2], Step(Code.RETURNED, "Refused by the recipient", 1)),
}
"""What the second line of an address can ask of a carrier, as test cards do of a payment gateway."""
NOT_SERVED = "SIMULATE NOT SERVED"


class NotBooked(Exception):
    """There is no such parcel, or it was voided."""


class WasVoided(Exception):
    """The reference was voided: it is not booked again."""


class WasCollected(Exception):
    """The parcel was scanned: it can't be voided."""


class Details(NamedTuple):
    """What a label says."""

    recipient: str
    lines: tuple[str, ...]
    city: str
    country: str
    grams: int
    wish: str = ""
    """The second line of the address."""


class Parcel(NamedTuple):
    """A parcel in a carrier's books."""

    carrier: str
    reference: str
    tracking_id: str
    service: str
    details: Details
    status: str
    created: float


class Scan(NamedTuple):
    """A scan that has happened; `at` is in Unix time, whole seconds."""

    id: str
    carrier: str
    reference: str
    tracking_id: str
    code: Code
    description: str
    location: str
    at: int


class Notice(NamedTuple):
    """A scan of which the shop is to be told, and how often that was tried."""

    scan: Scan
    attempts: int

    @property
    def id(self) -> str:
        """The scan's."""
        return self.scan.id


class Journey(NamedTuple):
    """When a parcel is scanned first, and when last, in seconds after it was confirmed."""

    first_scan: float
    delivery: float


class Ledger(notices.Ledger[Notice]):
    """All that the carriers must not forget."""

    def __init__(self, database: sqlite3.Connection, journey: Journey, *, sends_notices: bool) -> None:
        super().__init__(database, "scans", sends_notices=sends_notices)
        self._journey = journey

    @classmethod
    @contextmanager
    def open(cls, file: Path, journey: Journey, *, sends_notices: bool) -> Iterator[Self]:
        """Open the ledger in a file, in a folder that exists; a new one if there is none."""
        with open_database(file, _SCHEMA) as database:
            yield cls(database, journey, sends_notices=sends_notices)

    # ------------------------------------------------------------------------------------------- parcels

    def book(
        self, carrier: str, reference: str, service: str, details: Details, number: Callable[[], str]
    ) -> Parcel:
        """Book a parcel, once for a reference. Raises WasVoided."""
        with self._database:
            if known := self._parcel_row(carrier, reference):
                if known["status"] == "voided":
                    raise WasVoided(reference)
                return _parcel(known)
            values = (
                carrier,
                reference,
                self._unused(carrier, number),
                service,
                orjson.dumps(list(details)).decode(),
                "booked",
                time.time(),
            )
            self._database.execute("insert into parcels values (?, ?, ?, ?, ?, ?, ?)", values)
        return self.parcel(carrier, reference)

    def confirm(self, carrier: str, reference: str) -> None:
        """Let a parcel be collected; again is fine. Raises NotBooked."""
        with self._database:
            parcel = self.parcel(carrier, reference)
            if parcel.status == "confirmed":
                return
            self._database.execute(
                "update parcels set status = 'confirmed' where carrier = ? and reference = ?",
                (carrier, reference),
            )
            now = time.time()
            for step in _JOURNEYS.get(parcel.details.wish.upper(), _JOURNEY):
                at = now + self._journey.first_scan
                at += step.after * max(0.0, self._journey.delivery - self._journey.first_scan)
                self._schedule(parcel, step, at)
        self.changed.set()

    def void(self, carrier: str, reference: str) -> None:
        """Void a parcel, or what will be asked for under its reference; again is fine. Raises
        WasCollected."""
        with self._database:
            known = self._parcel_row(carrier, reference)
            if known is None:
                self._database.execute(
                    "insert into parcels (carrier, reference, status, created) values (?, ?, 'voided', ?)",
                    (carrier, reference, time.time()),
                )
                return
            if self.scans(carrier, reference):
                raise WasCollected(reference)
            self._database.execute(
                "update parcels set status = 'voided' where carrier = ? and reference = ?",
                (carrier, reference),
            )
            self._database.execute(
                "delete from scans where carrier = ? and reference = ?", (carrier, reference)
            )

    def advance(self, tracking_id: str, scans: int) -> int:
        """Let so many of a parcel's next scans happen now; return how many there were left."""
        now = time.time()
        with self._database:
            parcel = self._row("select * from parcels where tracking_id = ?", tracking_id)
            if parcel is None or parcel["status"] != "confirmed":
                raise NotBooked(tracking_id)
            coming = self._database.execute(
                "select id from scans where carrier = ? and reference = ? and at > ? order by at limit ?",
                (parcel["carrier"], parcel["reference"], now, scans),
            ).fetchall()
            last = self._row(
                "select max(at) from scans where carrier = ? and reference = ? and at <= ?",
                parcel["carrier"],
                parcel["reference"],
                now,
            )
            earliest = (last and last[0]) or 0
            for place, row in enumerate(coming):
                # A second lies between two of them if it can, so that their order can be told.
                at = max(earliest, int(now) - len(coming) + 1 + place)
                self._database.execute(
                    "update scans set at = ?, due = case when due is null then null else ? end where id = ?",
                    (at, now, row["id"]),
                )
        self.changed.set()
        return len(coming)

    def parcel(self, carrier: str, reference: str) -> Parcel:
        """Read a parcel by its reference. Raises NotBooked."""
        row = self._parcel_row(carrier, reference)
        if row is None or row["status"] == "voided":
            raise NotBooked(reference)
        return _parcel(row)

    def tracked(self, carrier: str, tracking_id: str) -> Parcel:
        """Read a parcel by its tracking number. Raises NotBooked."""
        row = self._row("select * from parcels where carrier = ? and tracking_id = ?", carrier, tracking_id)
        if row is None or row["status"] == "voided":
            raise NotBooked(tracking_id)
        return _parcel(row)

    def scans(self, carrier: str, reference: str) -> Sequence[Scan]:
        """Return what has happened to a parcel, oldest first."""
        rows = self._database.execute(
            f"{_SCANS} where carrier = ? and reference = ? and at <= ? order by at",
            (carrier, reference, time.time()),
        )
        return [_scan(row) for row in rows]

    def entries(self, after: int, limit: int) -> list[Resource]:
        """Return up to `limit` parcels of all carriers, oldest first, that come after the one of id
        `after`."""
        rows = self._database.execute(
            "select parcels.rowid as id, carrier, reference, tracking_id, service, status,"
            " (select count(*) from scans where scans.carrier = parcels.carrier"
            "  and scans.reference = parcels.reference and scans.at <= ?) as scans"
            " from parcels where parcels.rowid > ? order by parcels.rowid limit ?",
            (time.time(), after, limit),
        )
        return [dict(row) for row in rows]

    # ------------------------------------------------------------------------------------------- notices

    def due_notices(self, limit: int) -> list[Notice]:
        """Return up to `limit` scans whose notices are to be sent."""
        rows = self._database.execute(f"{_SCANS} where due <= ? order by due limit ?", (time.time(), limit))
        return [Notice(_scan(row), row["attempts"]) for row in rows]

    def next_due(self) -> float | None:
        """Return when there is a notice to send, in Unix time; None if there is none."""
        row = self._row("select min(due) from scans where due is not null")
        due: float | None = row[0] if row else None
        return due

    # ------------------------------------------------------------------------------------------- SQLite

    def _schedule(self, parcel: Parcel, step: Step, at: float) -> None:
        values = (
            uuid.uuid4().hex,
            parcel.carrier,
            parcel.reference,
            step.code,
            step.description,
            "Depot" if step.code is Code.COLLECTED else parcel.details.city,
            int(at),
            at if self._sends_notices else None,
        )
        self._database.execute(
            "insert into scans (id, carrier, reference, code, description, location, at, due)"
            " values (?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )

    def _unused(self, carrier: str, number: Callable[[], str]) -> str:
        while True:
            tracking_id = number()
            known = "select 1 from parcels where carrier = ? and tracking_id = ?"
            if self._row(known, carrier, tracking_id) is None:
                return tracking_id

    def _parcel_row(self, carrier: str, reference: str) -> sqlite3.Row | None:
        return self._row("select * from parcels where carrier = ? and reference = ?", carrier, reference)


_SCANS = (
    "select scans.*, (select tracking_id from parcels where parcels.carrier = scans.carrier"
    " and parcels.reference = scans.reference) as tracking_id from scans"
)


def _parcel(row: sqlite3.Row) -> Parcel:
    recipient, lines, city, country, grams, wish = orjson.loads(row["details"])
    details = Details(recipient, tuple(lines), city, country, grams, wish)
    return Parcel(
        row["carrier"],
        row["reference"],
        row["tracking_id"],
        row["service"],
        details,
        row["status"],
        row["created"],
    )


def _scan(row: sqlite3.Row) -> Scan:
    return Scan(
        row["id"],
        row["carrier"],
        row["reference"],
        row["tracking_id"],
        Code(row["code"]),
        row["description"],
        row["location"],
        row["at"],
    )
