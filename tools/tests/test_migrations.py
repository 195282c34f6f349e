"""What a migration may do while the version before still runs."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stoa_tools.migrations import findings, refused

Checkout = Callable[[dict[str, str]], Path]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE gifts (gift_id uuid PRIMARY KEY, note text NOT NULL CHECK (note <> ''));"
        " CREATE UNIQUE INDEX gifts_note ON gifts (note); ALTER TABLE gifts ADD CONSTRAINT c CHECK (true);",
        "ALTER TABLE orders ADD COLUMN note text;",
        "ALTER TABLE orders ADD COLUMN price numeric(12, 2) NOT NULL DEFAULT 0, ADD COLUMN note text;",
        "alter table orders add column note text not null default 'drop, rename';",
        "ALTER TABLE orders ADD COLUMN type text, ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY;",
        "ALTER TABLE orders ALTER COLUMN note SET DEFAULT '';",
        "ALTER TABLE orders SET (fillfactor = 80);",
        "CREATE INDEX CONCURRENTLY orders_by_note ON orders (note);",
        "UPDATE orders SET note = '' WHERE note IS NULL;",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DROP TABLE x; END $$;",
        "-- DROP TABLE orders;\n/* TRUNCATE orders; */ SELECT 1;",
    ],
)
def test_what_only_adds_is_fine(sql: str) -> None:
    assert not list(refused(sql))


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("DROP TABLE orders;", "takes away"),
        ("DROP INDEX orders_by_status;", "takes away"),
        ("TRUNCATE orders;", "takes away"),
        ("ALTER TABLE orders DROP COLUMN note;", "takes away"),
        ("ALTER TABLE orders ADD COLUMN note text, DROP CONSTRAINT orders_key;", "takes away"),
        ("ALTER TABLE orders ALTER COLUMN note DROP NOT NULL;", "takes away"),
        ("ALTER TABLE orders RENAME COLUMN note TO remark;", "renames"),
        ("ALTER TABLE orders RENAME TO purchases;", "renames"),
        ("ALTER TABLE orders ALTER note TYPE varchar(10);", "changes a type"),
        ("ALTER TABLE orders\n  ALTER COLUMN number SET DATA TYPE bigint;", "changes a type"),
        ("ALTER TABLE orders ALTER COLUMN note SET NOT NULL;", "refuses rows"),
        ("ALTER TABLE orders ADD CONSTRAINT short CHECK (length(note) < 9) NOT VALID;", "refuses rows"),
        ("ALTER TABLE orders ADD UNIQUE (note);", "refuses rows"),
        ("CREATE UNIQUE INDEX CONCURRENTLY one ON orders (note);", "refuses rows"),
        ("ALTER TABLE orders ADD COLUMN note text NOT NULL;", "without a default"),
        (
            "ALTER TABLE orders ADD price numeric(12, 2) NOT NULL, ADD a int DEFAULT 0;",
            "without a def",
        ),
        (
            "ALTER TABLE orders ADD a int NOT NULL DEFAULT 0, ADD COLUMN b int NOT NULL;",
            "without a def",
        ),
        ("CREATE INDEX orders_by_note ON orders (note);", "keeps writers waiting"),
    ],
)
def test_what_the_version_before_would_not_survive_is_refused(sql: str, why: str) -> None:
    (said,) = refused(sql)
    assert why in said


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Makes a checkout whose oldest version in use has migration 0001 of the order service alone."""

    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@mail.test")
        command = ["git", *identity, *words]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    folder = tmp_path / "services/order/stoa_order/migrations"
    folder.mkdir(parents=True)
    (folder / "0001_orders.sql").write_text("CREATE TABLE orders (note text);")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "oldest")
    (tmp_path / "tests/upgrade").mkdir(parents=True)
    (tmp_path / "tests/upgrade/older-version").write_text(git("rev-parse", "HEAD"))

    def make(files: dict[str, str]) -> Path:
        for name, sql in files.items():
            (folder / name).write_text(sql)
        return tmp_path

    return make


DROP = "ALTER TABLE orders DROP COLUMN note;"


def test_a_contract_may_take_away_what_the_oldest_version_in_use_does_without(checkout: Checkout) -> None:
    made = checkout({"0002_no_note.sql": f"-- contract: unused since 0001_orders.sql\n{DROP}"})
    assert not list(findings(made))


def test_a_contract_waits_until_no_version_runs_that_uses_it(checkout: Checkout) -> None:
    files = {
        "0002_unused.sql": "-- Nothing uses orders.note.",
        "0003_no_note.sql": f"-- contract: unused since 0002_unused.sql\n{DROP}",
    }
    (found,) = findings(checkout(files))
    assert found.file.endswith("0003_no_note.sql")
    assert "0002_unused.sql is not in the oldest version" in found.what


def test_a_contract_names_a_migration_before_it(checkout: Checkout) -> None:
    (found,) = findings(checkout({"0002_no_note.sql": f"-- contract: unused since 0009_x.sql\n{DROP}"}))
    assert "0009_x.sql, which is no migration before it" in found.what


def test_what_was_found_harmless_says_why(checkout: Checkout) -> None:
    unique = "CREATE UNIQUE INDEX CONCURRENTLY one ON orders (note);"
    assert list(findings(checkout({"0002_one.sql": unique})))
    assert not list(findings(checkout({"0002_one.sql": f"-- compatible: only we write it\n{unique}"})))
    blocking = "-- compatible: only we write it\nCREATE INDEX one ON orders (note);"
    assert list(findings(checkout({"0002_one.sql": blocking})))


def test_a_file_that_the_services_would_not_start_with_is_found(checkout: Checkout) -> None:
    (found,) = findings(checkout({"two.sql": "SELECT 1;"}))
    assert "is not named like" in found.what


def test_the_migrations_here_keep_the_rules() -> None:
    assert not list(findings())
