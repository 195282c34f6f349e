"""Migrations that the version before survives: what a file may do to tables that are in use.

While a version is rolled out, processes of the one before write and read the same tables, and may be brought
back. So a migration adds (expand); what takes away or narrows waits until no version uses it any more
(contract), and says so in its first line (`stoa_chassis.migrations`):

    -- contract: unused since 0005_gift_notes.sql

Where somebody has found that this one statement harms nobody, the first line says why instead:

    -- compatible: only the new version writes this column

Nor may it keep writers waiting: an index of a table in use is built CONCURRENTLY, in a file of its own.

The rules read SQL as text, statement by statement: enough for what migrations are made of, and no more.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stoa_chassis.migrations import Migration, MigrationError
from stoa_stack.instance import CHECKOUT

# They were judged by people, and shops had little in these tables, before there was this rule.
_BEFORE_THE_RULE = frozenset(
    {
        "stoa_catalog/migrations/0002_lists_from_indexes.sql",
        "stoa_inventory/migrations/0002_withdrawn.sql",
        "stoa_inventory/migrations/0003_availability.sql",
        "stoa_order/migrations/0003_after_sales.sql",
        "stoa_payment/migrations/0002_refund_keys.sql",
        "stoa_payment/migrations/0003_captured_later.sql",
        "stoa_shipping/migrations/0002_erasure.sql",
        "stoa_user/migrations/0006_guests_mails_and_erasure.sql",
    }
)
_JUDGED = re.compile(r"-- compatible: \S+")
# The oldest version that may run somewhere, as a commit.
_OLDEST = "tests/upgrade/older-version"

# What is no statement: comments, and texts, whose words are none of SQL.
_NO_SQL = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$", re.DOTALL)
_IN_PARENTHESES = re.compile(r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)")
_NEW_TABLE = re.compile(r"CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(\w+)")
_TABLE = re.compile(r"(?:ALTER TABLE (?:IF EXISTS )?(?:ONLY )?|INDEX .*?\bON (?:ONLY )?)(\w+)")
_REFUSED = (
    (r"^(DROP|TRUNCATE)\b", "takes away what the version before may use"),
    (r"^ALTER .*\bDROP\b", "takes away what the version before may use"),
    (r"^ALTER .*\bRENAME\b", "renames what the version before knows by its old name"),
    (r"^ALTER .*\bALTER (COLUMN )?\w+ (SET DATA )?TYPE\b", "changes a type that the version before writes"),
    (r"^ALTER .*\bSET NOT NULL\b", "refuses rows that the version before may write"),
    (
        r"^ALTER .*\bADD (COLUMN )?(IF NOT EXISTS )?(?!CONSTRAINT|CHECK)\w+ "
        r"(?![^,]*\b(DEFAULT|GENERATED)\b)[^,]*\b(NOT NULL|PRIMARY KEY)\b",
        "adds a column without a default that the version before does not fill",
    ),
    (
        r"^ALTER .*\bADD (CONSTRAINT \w+ )?(CHECK|UNIQUE|PRIMARY|FOREIGN|EXCLUDE)\b",
        "refuses rows that the version before may write",
    ),
    (r"^CREATE UNIQUE INDEX\b", "refuses rows that the version before may write"),
)
_BLOCKING_INDEX = re.compile(r"^CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a file."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def findings(checkout: Path = CHECKOUT) -> Iterator[Finding]:
    """Look at all migrations of a checkout."""
    for folder in sorted(checkout.glob("*/*/stoa_*/migrations")):
        for path in sorted(folder.glob("*.sql")):
            place = str(path.relative_to(folder.parent.parent))
            for what in _of_file(checkout, path, judged=place in _BEFORE_THE_RULE):
                yield Finding(str(path.relative_to(checkout)), what)


def _of_file(checkout: Path, path: Path, *, judged: bool) -> Iterator[str]:
    try:
        migration = Migration.read(path)
    except MigrationError as error:
        yield str(error)
        return
    if migration.unused_since:
        yield from _too_early(checkout, path, migration.unused_since)
    elif not judged:
        may_break = _JUDGED.match(migration.sql) is not None
        yield from refused(migration.sql, may_break=may_break)


def refused(sql: str, *, may_break: bool = False) -> Iterator[str]:
    """Say what of some SQL the version before would not survive; nothing if it `may_break` it."""
    statements = [
        " ".join(_IN_PARENTHESES.sub("()", each).upper().split()) for each in _NO_SQL.sub(" ", sql).split(";")
    ]
    new = {match[1] for statement in statements if (match := _NEW_TABLE.match(statement))}
    for statement in statements:
        if (table := _TABLE.search(statement)) and table[1] in new:
            continue  # nobody has used it yet
        shown = statement if len(statement) <= 60 else f"{statement[:60]}…"
        if _BLOCKING_INDEX.match(statement):
            yield f"{shown}: keeps writers waiting; build it CONCURRENTLY, in a file of its own"
        if may_break:
            continue
        for pattern, why in _REFUSED:
            if re.search(pattern, statement):
                yield f"{shown}: {why}"
                break


def _too_early(checkout: Path, path: Path, since: str) -> Iterator[str]:
    """Say what is wrong with the migration that a contract names."""
    expand = path.with_name(since)
    if since >= path.name or not expand.exists():
        yield f"names {since}, which is no migration before it"
        return
    oldest = (checkout / _OLDEST).read_text().strip()
    if _git(checkout, "cat-file", "-e", f"{oldest}^{{commit}}"):
        return  # a shallow clone, in which nobody can tell
    if _git(checkout, "cat-file", "-e", f"{oldest}:{expand.relative_to(checkout)}"):
        yield f"{since} is not in the oldest version that may run somewhere ({_OLDEST}: {oldest[:12]})"


def _git(checkout: Path, *words: str) -> int:
    return subprocess.run(["git", *words], cwd=checkout, capture_output=True, check=False).returncode


def main() -> int:
    """Print what is wrong; 1 if something is."""
    found = list(findings())
    for each in found:
        sys.stdout.write(f"{each}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
