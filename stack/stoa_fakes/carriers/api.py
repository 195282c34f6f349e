"""The HTTP APIs of the three, each below its own path, and what none of them has: ledger, faults, haste."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stoa_fakes.carriers.dhl import Dhl
from stoa_fakes.carriers.faults import AllFaults
from stoa_fakes.carriers.fedex import FedEx
from stoa_fakes.carriers.ledger import Journey, Ledger, NotBooked
from stoa_fakes.carriers.network import Carrier, Network
from stoa_fakes.carriers.settings import CarrierSettings
from stoa_fakes.carriers.ups import Ups
from stoa_fakes.carriers.worker import Worker

_PAGE = 100
_LARGEST_PAGE = 1000


class Advance(BaseModel):
    """Body of POST /admin/advance: which parcel, and how many of its next scans."""

    model_config = ConfigDict(extra="forbid")

    tracking_id: str
    scans: Annotated[int, Field(ge=1, le=10)] = 1


class Admin:
    """The ledger and the faults, for whoever has the key."""

    def __init__(self, key: str, ledger: Ledger, networks: dict[str, Network], worker: Worker) -> None:
        self._authorization = f"Bearer {key}".encode()
        self._ledger = ledger
        self._networks = networks
        self._worker = worker

    async def ledger(self, request: Request) -> Response:
        """List all parcels, oldest first; `after` is the id of the last one that was read."""
        if refused := self._refused(request):
            return refused
        try:
            limit = min(int(request.query_params.get("limit", _PAGE)), _LARGEST_PAGE)
            after = int(request.query_params.get("after") or 0)
        except ValueError:
            return JSONResponse({"error": "limit or after is not a number"}, status_code=400)
        entries = self._ledger.entries(after, limit + 1)
        return JSONResponse({"data": entries[:limit], "has_more": len(entries) > limit})

    async def faults(self, request: Request) -> Response:
        """Read or set what goes wrong on purpose."""
        if refused := self._refused(request):
            return refused
        if request.method == "POST":
            try:
                faults = AllFaults.model_validate_json(await request.body())
            except ValidationError as error:
                return JSONResponse({"error": str(error)}, status_code=400)
            self._worker.faults = faults
            for name, network in self._networks.items():
                network.faults = faults.of(name)
        return JSONResponse(self._worker.faults.model_dump())

    async def advance(self, request: Request) -> Response:
        """Let the next scans of a parcel happen now, for whoever does not want to wait for them."""
        if refused := self._refused(request):
            return refused
        try:
            wanted = Advance.model_validate_json(await request.body())
            return JSONResponse({"scans": self._ledger.advance(wanted.tracking_id, wanted.scans)})
        except ValidationError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        except NotBooked:
            return JSONResponse({"error": "there is no such parcel on its way"}, status_code=404)

    async def health(self, _: Request) -> Response:
        """Answer when the ledger can be read."""
        self._ledger.next_due()
        return JSONResponse({"status": "ok"})

    def _refused(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "").encode()
        if hmac.compare_digest(given, self._authorization):
            return None
        return JSONResponse({"error": "the API key is missing or wrong"}, status_code=401)


def create_app(settings: CarrierSettings) -> Starlette:
    """Wire the carriers."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        journey = Journey(settings.first_scan_seconds, settings.delivery_seconds)
        with Ledger.open(settings.state, journey, sends_notices=bool(settings.webhook_url)) as ledger:
            async with aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=10), cookie_jar=aiohttp.DummyCookieJar()
            ) as client:
                carriers: Sequence[Carrier] = [
                    FedEx(settings, ledger),
                    Ups(settings, ledger),
                    Dhl(settings, ledger),
                ]
                networks = {each.name: Network(each, settings.latency_ms) for each in carriers}
                worker = Worker(ledger, client, settings.webhook_url, {each.name: each for each in carriers})
                admin = Admin(settings.api_key, ledger, networks, worker)
                app.router.routes += [
                    *(network.mount() for network in networks.values()),
                    Route("/v1/ledger", admin.ledger, methods=["GET"]),
                    Route("/admin/faults", admin.faults, methods=["GET", "POST"]),
                    Route("/admin/advance", admin.advance, methods=["POST"]),
                    Route("/healthz", admin.health, methods=["GET"]),
                ]
                working = asyncio.create_task(worker.run())
                yield
                working.cancel()

    return Starlette(lifespan=lifespan)
