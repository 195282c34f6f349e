"""The load generator: HTTP/1.1 over kept connections, light enough to run beside what it measures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import orjson

from stoa_rest import Operation, Operations
from stoa_stack.percentile import percentile
from stoa_stack.shopping import NotSettled

_ANSWER_TIMEOUT = 60.0  # seconds
_SHED = (429, 503)  # refused because of load, or for now


class BadAnswer(Exception):
    """An answer other than 2xx."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status} {body[:300].decode(errors='replace')}")
        self.status = status

    @property
    def shed(self) -> bool:
        """Whether the shop refused it because of load."""
        return self.status in _SHED


class Http(Operations):
    """A client of the REST API with one connection, used by one task at a time."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._connection: _Connection | None = None
        self.headers = f"host: {parts.netloc}\r\n"
        if token:
            self.sign_in(token)

    def sign_in(self, token: str) -> None:
        """Send this access token from now on."""
        host, _, _ = self.headers.partition("\r\n")
        self.headers = f"{host}\r\nauthorization: Bearer {token}\r\n"

    async def call(self, operation: Operation, target: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request and return the JSON of its answer; raises what `send` raises."""
        return orjson.loads(await self.send(self.encode(operation.method, target, body)))

    def encode(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> bytes:
        """A request as it is sent, to be sent as often as one likes."""
        content = b"" if body is None else orjson.dumps(body)
        length = f"content-type: application/json\r\ncontent-length: {len(content)}\r\n" if content else ""
        return f"{method} {target} HTTP/1.1\r\n{self.headers}{length}\r\n".encode() + content

    async def send(self, request: bytes) -> bytes:
        """Send a request that is encoded already, and return the body of its answer.

        Raises BadAnswer if it is not a success, OSError if the connection is lost, TimeoutError.
        """
        if self._connection is None or self._connection.lost:
            loop = asyncio.get_running_loop()
            _, self._connection = await loop.create_connection(_Connection, self._host, self._port)
        async with asyncio.timeout(_ANSWER_TIMEOUT):
            status, body = await self._connection.exchange(request)
        if not 200 <= status < 300:
            raise BadAnswer(status, body)
        return body

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = False
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        self._answer = asyncio.get_running_loop().create_future()
        self._body = b""
        self._transport.write(request)
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.close()  # what may still come would be taken for the next answer
            raise

    def close(self) -> None:
        self.lost = True
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionAbortedError(f"an answer is not HTTP: {error}"))
            self.close()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), self._body))

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._fail(error or ConnectionResetError("the edge closed the connection"))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


@dataclass
class Outcome:
    """What became of the requests of one run. Times are in milliseconds.

    `shed` were refused because of load, `unmet` never began because everybody who could was busy.
    """

    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    shed: int = 0
    unmet: int = 0
    errors: int = 0
    first_error: str = ""

    def count(self, began: float, error: Exception | None) -> None:
        """Count one that began at a time of `time.perf_counter()`."""
        if error is None:
            self.times.append((time.perf_counter() - began) * 1000)
        elif isinstance(error, BadAnswer) and error.shed:
            self.shed += 1
        else:
            self.errors += 1
            self.first_error = self.first_error or repr(error)

    def percentile(self, percent: float) -> float:
        """The time within which so many percent were answered; 0 if none was."""
        return percentile(self.times, percent)


Act = Callable[[], Awaitable[object]]


async def attempt(act: Act, outcome: Outcome) -> None:
    """Do one request, and count it."""
    began = time.perf_counter()
    try:
        await act()
    except (BadAnswer, NotSettled, OSError, TimeoutError) as error:
        outcome.count(began, error)
    else:
        outcome.count(began, None)


async def closed_loop(acts: list[Act], seconds: float) -> Outcome:
    """Let each of the acts begin again as soon as it is done, for so long."""
    outcome = Outcome()
    began = time.perf_counter()
    end = began + seconds

    async def repeat(act: Act) -> None:
        while time.perf_counter() < end:
            failed = outcome.errors + outcome.shed
            await attempt(act, outcome)
            if outcome.errors + outcome.shed > failed:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(repeat(act) for act in acts))
    outcome.seconds = time.perf_counter() - began
    return outcome


async def open_loop(acts: list[Act], rate: float, seconds: float) -> Outcome:
    """Begin so many acts a second, whether or not the earlier ones are done.

    Each act runs once at a time; if all are busy when one should begin, it is counted as unmet: there were
    too few for the rate.
    """
    outcome = Outcome()
    idle = list(acts)
    running: set[asyncio.Task[None]] = set()
    began = time.perf_counter()

    async def once(act: Act) -> None:
        await attempt(act, outcome)
        idle.append(act)

    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        if idle:
            task = asyncio.create_task(once(idle.pop(0)))
            running.add(task)
            task.add_done_callback(running.discard)
        else:
            outcome.unmet += 1
    await asyncio.gather(*running)
    outcome.seconds = time.perf_counter() - began
    return outcome
