"""The columns of a table, said once: the statements that write a row follow from the row.

    _PAYMENTS = Table("payments", key="payment_id")

    await _PAYMENTS.insert(connection, _row(payment))      # _row returns a dict of all columns

Reading is `SELECT *` and one function that makes an entity of a record. So a column stands in the migration,
in the row that is written and in the entity that is made of it, and nowhere else.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from stoa_chassis.postgres import Queries


class Table:
    """Writes rows of one table.

    A row is a mapping of all its columns, always the same and in the same order.
    """

    def __init__(self, name: str, key: str) -> None:
        """`key` is the column, or are the columns separated by commas, of the primary key: never updated."""
        self.name = name
        self._key = tuple(column.strip() for column in key.split(","))

    async def insert(self, queries: Queries, row: Mapping[str, Any]) -> None:
        """Add a row. Raises asyncpg.UniqueViolationError."""
        await queries.execute(_insert(self.name, tuple(row)), *row.values())

    async def insert_new(self, queries: Queries, row: Mapping[str, Any], unique: str = "") -> bool:
        """Add a row unless one is there that a unique constraint takes for the same.

        Tell whether it was added. `unique` says which constraint alone may do so, by its columns or
        expressions in parentheses; against another it is an error.
        """
        statement = f"{_insert(self.name, tuple(row))} ON CONFLICT {unique} DO NOTHING"
        return await queries.execute(statement, *row.values()) == "INSERT 0 1"

    async def update(self, queries: Queries, row: Mapping[str, Any]) -> None:
        """Replace the row with the same key."""
        await queries.execute(_update(self.name, tuple(row), self._key), *row.values())

    async def upsert(self, queries: Queries, row: Mapping[str, Any]) -> None:
        """Add a row, or replace the one with the same key."""
        await queries.execute(_upsert(self.name, tuple(row), self._key), *row.values())


@lru_cache
def _insert(table: str, columns: tuple[str, ...]) -> str:
    places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"


@lru_cache
def _update(table: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    places = {column: f"{column} = ${number}" for number, column in enumerate(columns, 1)}
    changed = ", ".join(place for column, place in places.items() if column not in key)
    return f"UPDATE {table} SET {changed} WHERE {' AND '.join(places[column] for column in key)}"


@lru_cache
def _upsert(table: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    changed = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key)
    return f"{_insert(table, columns)} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changed}"
