"""Rows that are written by their columns."""

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from stoa_chassis.postgres import Database
from stoa_chassis.postgres_table import Table

pytestmark = pytest.mark.stack
BOOKS = Table("books", key="book_id")
LINES = Table("lines", key="book_id, line")


@pytest.fixture
async def tables(database: Database) -> Database:
    """A database with a table of one key column, and one of two."""
    await database.execute(
        "CREATE TABLE books (book_id uuid PRIMARY KEY, title text UNIQUE, pages int, topics text[])"
    )
    await database.execute(
        "CREATE TABLE lines (book_id uuid, line int, text text, PRIMARY KEY (book_id, line))"
    )
    return database


def a_book(book_id: UUID | None = None, **changes: object) -> dict[str, Any]:
    book_id = book_id or uuid4()
    return {"book_id": book_id, "title": f"title of {book_id}", "pages": 100, "topics": ["a", "b"]} | changes


async def rows(database: Database, table: str) -> list[dict[str, Any]]:
    return [dict(row) for row in await database.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")]


async def test_an_inserted_row_has_all_its_values(tables: Database) -> None:
    book = a_book()
    await BOOKS.insert(tables, book)
    assert await rows(tables, "books") == [book]


async def test_a_row_is_inserted_once(tables: Database) -> None:
    book = a_book()
    await BOOKS.insert(tables, book)
    with pytest.raises(asyncpg.UniqueViolationError):
        await BOOKS.insert(tables, book)


async def test_a_new_row_is_told_from_one_that_a_unique_constraint_takes_for_the_same(
    tables: Database,
) -> None:
    book = a_book()
    assert await BOOKS.insert_new(tables, book)
    assert not await BOOKS.insert_new(tables, a_book(book["book_id"], title="other"))
    assert not await BOOKS.insert_new(tables, a_book(title=book["title"]))
    assert await rows(tables, "books") == [book]


async def test_an_update_replaces_the_row_of_the_same_key_alone(tables: Database) -> None:
    book, other = a_book(), a_book()
    for each in (book, other):
        await BOOKS.insert(tables, each)
    changed = a_book(book["book_id"], title="changed", pages=None, topics=[])
    await BOOKS.update(tables, changed)
    assert {row["book_id"]: row for row in await rows(tables, "books")} == {
        book["book_id"]: changed,
        other["book_id"]: other,
    }


async def test_an_upsert_adds_a_row_or_replaces_the_one_with_the_same_key(tables: Database) -> None:
    book = a_book()
    for each in (book, a_book(book["book_id"], pages=200)):
        await BOOKS.upsert(tables, each)
        assert await rows(tables, "books") == [each]


async def test_a_key_may_have_several_columns(tables: Database) -> None:
    book = uuid4()
    for line, text in ((1, "first"), (2, "second"), (1, "changed")):
        await LINES.upsert(tables, {"book_id": book, "line": line, "text": text})
    await LINES.update(tables, {"book_id": book, "line": 2, "text": "changed as well"})
    assert [row["text"] for row in await rows(tables, "lines")] == ["changed", "changed as well"]


async def test_each_writes_with_one_statement_and_in_the_transaction_it_is_given(tables: Database) -> None:
    before, book = tables.statements, a_book()
    await BOOKS.insert(tables, book)
    await BOOKS.insert_new(tables, book)
    await BOOKS.update(tables, book)
    await BOOKS.upsert(tables, book)
    assert tables.statements - before == 4
    async with tables.transaction() as connection:
        await BOOKS.update(connection, a_book(book["book_id"], pages=1))
        assert await rows(tables, "books") == [book]
    assert (await rows(tables, "books"))[0]["pages"] == 1
