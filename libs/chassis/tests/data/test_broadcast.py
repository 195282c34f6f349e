"""Every process receives every event from when it starts to listen, and may look up what was before."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from stoa_chassis.avro import Event, EventCodec, new_event
from stoa_chassis.clock import SystemClock
from stoa_chassis.kafka import Broadcast, Producer, replay_headers
from stoa_chassis.testing import eventually

pytestmark = pytest.mark.stack
Background = Callable[[Callable[[], Awaitable[None]]], "asyncio.Future[None]"]


class Board:
    """A topic with somebody who publishes to it and listeners that note what they receive."""

    def __init__(self, notes: Any, codec: EventCodec, producer: Producer, background: Background) -> None:
        self.notes, self.codec, self.producer, self._background = notes, codec, producer, background

    async def publish(
        self, *lines: int, book: UUID | None = None, headers: dict[str, str] | None = None
    ) -> None:
        for line in lines:
            event = new_event(self.notes.payload(book or uuid4(), line), SystemClock(), "c")
            await self.producer.send(self.notes.topic, event.payload.key, self.codec.encode(event), headers)

    async def listen(
        self, handler: Callable[[int], Awaitable[None]] | None = None, bootstrap: str = ""
    ) -> list[int]:
        """Begin to listen; return the list that grows with what is received."""
        received: list[int] = []
        listening = asyncio.Event()

        async def receive(event: Event[Any]) -> None:
            if handler is not None:
                await handler(event.payload.line)
            received.append(event.payload.line)

        async def begin() -> None:
            listening.set()

        address = bootstrap or self.notes.bootstrap
        self._background(Broadcast(address, {self.notes.payload: receive}, self.codec, begin).run)
        async with asyncio.timeout(20):
            await listening.wait()
        return received


@pytest.fixture
def board(notes: Any, codec: EventCodec, producer: Producer, background: Background) -> Board:
    return Board(notes, codec, producer, background)


async def test_every_listener_receives_everything_from_when_it_begins(board: Board) -> None:
    await board.publish(1, 2)
    first = await board.listen()
    await board.publish(3)
    await eventually(lambda: first == [3])
    second = await board.listen()
    book = uuid4()
    await board.publish(4, 5, 6, book=book)
    await eventually(lambda: (first, second) == ([3, 4, 5, 6], [4, 5, 6]))


async def test_nothing_is_missed_while_the_broker_cannot_be_reached(board: Board, proxy: Any) -> None:
    network = await proxy(board.notes.bootstrap)
    received = await board.listen(bootstrap=network.address)
    await board.publish(1)
    await eventually(lambda: received == [1])
    await network.cut()
    await board.publish(2, 3)
    await asyncio.sleep(1)
    assert received == [1]
    await network.restore()
    await eventually(lambda: sorted(received) == [1, 2, 3])


async def test_a_listener_that_starts_without_a_broker_begins_when_there_is_one(
    board: Board, proxy: Any
) -> None:
    network = await proxy(board.notes.bootstrap)
    await network.cut()
    starting = asyncio.ensure_future(board.listen(bootstrap=network.address))
    await asyncio.sleep(0.5)
    assert not starting.done()
    await network.restore()
    received = await starting
    await board.publish(1)
    await eventually(lambda: received == [1])


async def test_an_outage_is_waited_out_and_an_error_passed_over(board: Board) -> None:
    outages = 2

    async def handle(line: int) -> None:
        nonlocal outages
        if line == 1:
            raise ValueError("never works")
        if outages:
            outages -= 1
            raise ConnectionError("works later")

    received = await board.listen(handle)
    book = uuid4()
    await board.producer.send(board.notes.topic, str(book), b"no event")
    await board.publish(1, 2, 3, book=book)
    await eventually(lambda: received == [2, 3])
    assert outages == 0


async def test_what_is_replayed_to_a_group_is_not_received_again(board: Board) -> None:
    received = await board.listen()
    book = uuid4()
    await board.publish(1, book=book, headers=replay_headers({}, "some group"))
    await board.publish(2, book=book)
    await eventually(lambda: received == [2])
