"""The way to a carrier, which takes its time and fails as one far away does."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from stoa_fakes.carriers.faults import Faults
from stoa_fakes.carriers.ledger import NotBooked, Scan
from stoa_fakes.network import far_away

Endpoint = Callable[[Request], Awaitable[Response]]


class Refused(Exception):
    """A request that a carrier does not carry out; `code` is for programs, the message for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Carrier(Protocol):
    """One of the three: what it is asked, how it says no, and how it tells of scans."""

    name: str

    def routes(self) -> Sequence[Route]:
        """Return its endpoints. They raise Refused, and NotBooked."""
        ...

    def check(self, request: Request) -> None:
        """Refuse whoever does not prove to be a customer. Raises Refused."""
        ...

    def error(self, status: int, code: str, message: str) -> Response:
        """Say that something went wrong, in its own form."""
        ...

    def notice(self, scan: Scan) -> tuple[bytes, dict[str, str]]:
        """Return what is told of a scan, and the headers that sign it."""
        ...


class Network:
    """The way to one carrier."""

    def __init__(self, carrier: Carrier, latency_ms: float) -> None:
        self._carrier = carrier
        self._latency_ms = latency_ms
        self.faults = Faults()

    def mount(self) -> Mount:
        """Return the carrier's endpoints behind the network, below its name."""
        routes = [
            Route(route.path, self._behind(route.endpoint), methods=sorted(route.methods or ()))
            for route in self._carrier.routes()
        ]
        return Mount(f"/{self._carrier.name}", routes=routes)

    def _behind(self, endpoint: Endpoint) -> Endpoint:
        async def networked(request: Request) -> Response:
            return await far_away(
                lambda: self._answer(endpoint, request),
                lambda: self.faults,
                self._latency_ms,
                self._out_of_order,
            )

        return networked

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        try:
            self._carrier.check(request)
            return await endpoint(request)
        except Refused as refused:
            return self._carrier.error(refused.status, refused.code, str(refused))
        except NotBooked:
            return self._carrier.error(404, "NOT.FOUND", "There is no such shipment.")
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            return self._carrier.error(400, "INVALID.INPUT", f"{field}: {first['msg']}")

    def _out_of_order(self) -> Response:
        return self._carrier.error(503, "SERVICE.UNAVAILABLE", "The service is currently unavailable.")
