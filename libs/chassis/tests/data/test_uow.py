"""Transactional use cases, on a store in memory."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias
from uuid import UUID, uuid4

import pytest

from stoa_chassis import uow
from stoa_chassis.avro import Event, new_event
from stoa_chassis.clock import SystemClock
from stoa_chassis.context import bound
from stoa_chassis.errors import Aborted
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.memory import ConstraintViolated, MemoryStore, memory_unit_of_work
from stoa_chassis.outbox import Outbox
from stoa_chassis.testing import SettableClock
from stoa_chassis.uow import Busy, LostRace, UnitOfWork, transactional
from stoa_contracts.events import Payload

from .conftest import Noted

Store: TypeAlias = MemoryStore[Mapping[UUID, int]]


class Written(Noted):
    """Published when a line was added to a book."""

    TOPIC: ClassVar[str] = "test.written"
    SCHEMA: ClassVar[str] = ""


@dataclass
class Book:
    """An entity: its number of lines."""

    book_id: UUID
    lines: int = 0
    events: list[Written] = field(default_factory=list)

    def write(self, text: str) -> None:
        self.lines += 1
        self.events.append(Written(self.book_id, self.lines, text))


class Repository:
    """Books on the view of a transaction."""

    def __init__(self, view: Store, outbox: Outbox) -> None:
        self._view = view
        self._outbox = outbox

    async def get(self, book_id: UUID) -> Book:
        return Book(book_id, self._view.rows.get(book_id, 0))

    async def save(self, book: Book) -> None:
        self._view.check(book.lines <= 50, "books_lines_check")
        self._view.rows = {**self._view.rows, book.book_id: book.lines}
        self._outbox.collect(book)


class Books:
    """Use cases."""

    def __init__(self, uow: UnitOfWork[Repository], store: Store) -> None:
        self._uow = uow
        self._store = store
        self.tries = 0
        self.overtaken = 0
        """How many tries lose against another transaction."""

    @transactional
    async def write(self, tx: Repository, book_id: UUID, text: str = "", *, fail: bool = False) -> int:
        """Add a line, and return how many there are."""
        self.tries += 1
        book = await tx.get(book_id)
        book.write(text)
        if self.tries <= self.overtaken:
            self._store.rows = {**self._store.rows, book_id: self._store.rows.get(book_id, 0) + 1}
        await tx.save(book)
        if fail:
            raise LookupError
        return book.lines

    @transactional
    async def on_written(self, tx: Repository, event: Event[Written], *, fail: bool = False) -> None:
        """Copy a line into another book."""
        copy = await tx.get(UUID(int=0))
        copy.write(event.payload.text)
        await tx.save(copy)
        if fail:
            raise LookupError


@pytest.fixture
def store() -> Store:
    return MemoryStore({})


@pytest.fixture
def books(store: Store, monkeypatch: pytest.MonkeyPatch) -> Books:
    monkeypatch.setattr(uow, "_PAUSES", (0,) * 11)
    return Books(memory_unit_of_work(lambda: store, Repository, SettableClock()), store)


def an_event(text: str = "text") -> Event[Written]:
    return new_event(Written(uuid4(), 1, text), SystemClock(), "request")


async def test_what_a_use_case_saved_commits_with_its_events(books: Books, store: Store) -> None:
    book = uuid4()
    assert await books.write(book, "first") == 1
    assert await books.write(book, text="second") == 2
    assert store.rows == {book: 2}
    assert store.payloads(Written) == [Written(book, 1, "first"), Written(book, 2, "second")]


async def test_a_use_case_that_raises_changes_and_publishes_nothing(books: Books, store: Store) -> None:
    with pytest.raises(LookupError):
        await books.write(uuid4(), fail=True)
    assert (store.rows, store.published, books.tries) == ({}, [], 1)


async def test_a_use_case_keeps_its_name_and_what_it_says() -> None:
    assert Books.write.__name__ == "write"
    assert Books.write.__doc__ == "Add a line, and return how many there are."


async def test_who_lost_a_race_begins_again_with_what_the_other_stored(books: Books, store: Store) -> None:
    book, books.overtaken = uuid4(), 2
    assert await books.write(book, "mine") == 3
    assert books.tries == 3
    assert store.rows == {book: 3}
    assert store.payloads(Written) == [Written(book, 3, "mine")]


async def test_who_loses_again_and_again_is_told_that_others_are_busy(books: Books, store: Store) -> None:
    books.overtaken = 1000
    with pytest.raises(Busy) as busy:
        await books.write(uuid4())
    assert isinstance(busy.value.__cause__, LostRace)
    assert books.tries == 12
    assert store.published == []


async def test_a_service_may_have_a_word_of_its_own_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class CartContended(Aborted):
        """Many change the same cart."""

    @asynccontextmanager
    async def lose(consuming: Event[Payload] | None) -> AsyncIterator[None]:
        yield
        raise LostRace

    async def work(tx: None) -> None: ...

    monkeypatch.setattr(uow, "_PAUSES", (0,) * 11)
    with pytest.raises(CartContended):
        await UnitOfWork(lose, CartContended).run(work)


async def test_an_event_has_its_effects_once(books: Books, store: Store) -> None:
    event = an_event()
    await books.on_written(event)
    with pytest.raises(AlreadyProcessed):
        await books.on_written(event)
    await books.on_written(an_event())
    assert store.rows == {UUID(int=0): 2}
    assert len(store.published) == 2


async def test_an_event_whose_handling_failed_can_be_handled_again(books: Books, store: Store) -> None:
    event = an_event()
    with pytest.raises(LookupError):
        await books.on_written(event, fail=True)
    assert (store.rows, store.inbox) == ({}, frozenset())
    await books.on_written(event)
    assert store.rows == {UUID(int=0): 1}


async def test_events_carry_the_correlation_id_of_what_caused_them(books: Books, store: Store) -> None:
    for request in ("request-1", "request-2"):
        with bound(request):
            await books.write(uuid4())
    assert [event.correlation_id for event in store.published] == ["request-1", "request-2"]


async def test_events_carry_the_time_of_their_transaction(store: Store) -> None:
    clock = SettableClock()
    books = Books(memory_unit_of_work(lambda: store, Repository, clock), store)
    before = clock.now()
    await books.write(uuid4())
    assert before <= store.published[0].timestamp <= clock.now()


async def test_the_store_in_memory_refuses_what_its_constraints_forbid_and_notes_it(
    books: Books, store: Store
) -> None:
    book = uuid4()
    store.rows = {book: 50}
    with pytest.raises(ConstraintViolated, match="books_lines_check"):
        await books.write(book)
    assert store.rows == {book: 50}
    assert store.violated == "books_lines_check"


async def test_events_of_an_entity_are_taken_over_once() -> None:
    outbox, book = Outbox(), Book(uuid4())
    book.write("text")
    outbox.collect(book)
    outbox.collect(book)
    assert book.events == []
    assert outbox.take() == [Written(book.book_id, 1, "text")]
    assert outbox.take() == []
