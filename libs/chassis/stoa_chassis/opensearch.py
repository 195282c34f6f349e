"""OpenSearch: the client, set up so that an outage is short, bounded and known as one."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from opensearchpy import AsyncOpenSearch, AsyncTransport
from opensearchpy.exceptions import ConnectionError as EngineConnectionError
from opensearchpy.exceptions import TransportError
from opensearchpy.serializer import JSONSerializer

from stoa_chassis import context
from stoa_chassis.breaker import Breaker
from stoa_chassis.errors import Unavailable
from stoa_chassis.telemetry import get_logger

log = get_logger(__name__)
logging.getLogger("opensearch").setLevel(logging.ERROR)  # it logs what it raises, with the bodies

REQUEST_SECONDS = 3.0
"""How long a request may take unless it says otherwise (`request_timeout`), a second attempt included."""
_FAIR_SECONDS = 1.0  # who gives up sooner learns nothing about the engine
_PAUSE_SECONDS = 0.5
# What a node says while it starts, stops, or waits for the others.
_DOWN = frozenset({502, 503, 504})
OUTAGES = frozenset({429, *_DOWN})
"""The statuses by which the engine says that it can't now, of a request or of one entry of many."""


class EngineUnavailable(Unavailable):
    """The search engine does not answer, or says that it can't now."""


class _Json(JSONSerializer):
    """JSON by a faster library."""

    def dumps(self, data: Any) -> str:
        """Write a body; one that is text already is left as it is."""
        return data if isinstance(data, str) else orjson.dumps(data, default=str).decode()

    def loads(self, s: str) -> Any:
        """Read an answer."""
        return orjson.loads(s)


class _Transport(AsyncTransport):
    """Gives each request one deadline, before the caller's if that is sooner; passes it through a breaker."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._breaker = Breaker("opensearch")

    async def perform_request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the library's name
        ignore: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request and return its answer.

        Raises EngineUnavailable and RemoteError (CIRCUIT_OPEN) in an outage, TransportError if the engine
        refuses it.
        """
        options = dict(params or {})
        seconds = context.time_limit(
            float(options.pop("request_timeout", None) or timeout or REQUEST_SECONDS)
        )
        self._breaker.enter(f"{method} {url}")
        try:
            async with asyncio.timeout(seconds):
                answer = await super().perform_request(
                    method, url, options, body, timeout=seconds, ignore=ignore, headers=headers
                )
        except (EngineConnectionError, TimeoutError) as error:
            late = isinstance(error, TimeoutError) or error.status_code == "TIMEOUT"
            if late and seconds < _FAIR_SECONDS:
                self._breaker.abandoned()
            else:
                self._breaker.failed()
            raise EngineUnavailable("the search engine does not answer") from error
        except TransportError as error:
            if error.status_code in _DOWN:
                self._breaker.failed()
            else:
                self._breaker.succeeded()
            if error.status_code in OUTAGES:
                raise EngineUnavailable("the search engine can't answer now") from error
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return answer


@asynccontextmanager
async def connect(url: str, connect_timeout: float = 60) -> AsyncIterator[AsyncOpenSearch]:
    """Open a client.

    The URL's `?ca=` names the file with the authority of the engine's certificate, if it is none that the
    system knows. A request whose connection breaks is sent once more: it has to bear being done twice. Waits
    up to `connect_timeout` seconds for the engine to come up, not at all if that is 0. Raises
    EngineUnavailable if it doesn't. Once it is up, calls raise EngineUnavailable, or RemoteError of an open
    circuit, while it is down.
    """
    address, _, authority = url.partition("?ca=")
    async with AsyncOpenSearch(
        hosts=[address],
        ca_certs=authority or None,
        transport_class=_Transport,
        serializer=_Json(),
        serializers={"application/json": _Json()},
        max_retries=1,
        retry_on_status=(),
        trust_env=False,
    ) as client:
        give_up = time.monotonic() + connect_timeout
        while connect_timeout:
            try:
                await client.cluster.health()
                break
            except Unavailable as error:
                if time.monotonic() > give_up:
                    raise
                log.info("waiting for the search engine", error=repr(error.__cause__))
            await asyncio.sleep(_PAUSE_SECONDS)
        yield client
