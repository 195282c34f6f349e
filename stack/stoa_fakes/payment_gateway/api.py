"""The gateway's HTTP API, in the manner of Stripe's."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import aiohttp
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stoa_fakes import network
from stoa_fakes.network import far_away
from stoa_fakes.payment_gateway.ledger import Ledger, RequestRefused, Resource
from stoa_fakes.payment_gateway.settings import GatewaySettings
from stoa_fakes.payment_gateway.worker import Worker

_PAGE = 100
_LARGEST_PAGE = 1000
_Amount = Annotated[int, Field(gt=0, le=10**12, strict=True)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def fingerprint(self) -> str:
        """Tell whether two bodies ask for the same."""
        return hashlib.sha256(
            orjson.dumps(self.model_dump(exclude_none=True), option=orjson.OPT_SORT_KEYS)
        ).hexdigest()


class ChargeBody(_Body):
    """Body of POST /v1/charges; the amount is in the currency's smallest unit."""

    amount: _Amount
    currency: Annotated[str, Field(pattern="^[a-zA-Z]{3}$")]
    token: Annotated[str, Field(min_length=1, max_length=200)]
    capture: bool | None = None
    """False: the amount is held until the charge is captured, or given back."""
    metadata: dict[str, str] = {}


class RefundBody(_Body):
    """Body of POST /v1/refunds."""

    charge: str
    amount: _Amount
    metadata: dict[str, str] = {}


class Faults(network.Faults):
    """What goes wrong on purpose. POST /admin/faults sets all of them: those not named are switched off."""

    delay_webhooks_ms: Annotated[float | None, Field(ge=0)] = None
    """Takes the place of the usual time that new notices wait before they are sent."""


class Api:
    """The endpoints."""

    def __init__(self, settings: GatewaySettings, ledger: Ledger, worker: Worker) -> None:
        self._settings = settings
        self._ledger = ledger
        self._worker = worker
        self._suffer(Faults())
        self._authorization = f"Bearer {settings.api_key}".encode()

    async def create_charge(self, request: Request) -> Response:
        """Charge a card; hangs as long as the charge is pending."""
        body = ChargeBody.model_validate_json(await request.body())
        charge = self._ledger.charge(
            _idempotency_key(request),
            body.fingerprint(),
            amount=body.amount,
            currency=body.currency.upper(),
            token=body.token,
            metadata=body.metadata,
            capture_after=self._settings.timeout_answer_seconds,
            capture=body.capture is not False,
        )
        while charge["status"] == "pending":
            await self._ledger.next_capture()
            charge = self._ledger.charge_by_id(charge["id"]) or charge
        return _outcome(charge)

    async def capture_charge(self, request: Request) -> Response:
        """Take what a charge holds."""
        charge_id, held_for = request.path_params["charge"], self._settings.hold_seconds
        return _outcome(self._ledger.capture(charge_id, held_for=held_for))

    async def get_charge(self, request: Request) -> Response:
        """Read a charge."""
        charge = self._ledger.charge_by_id(request.path_params["charge"])
        if charge is None:
            raise RequestRefused(404, "resource_missing", "no such charge")
        return JSONResponse(charge)

    async def find_charges(self, request: Request) -> Response:
        """Find the charge of an idempotency key; the list has one or none."""
        key = request.query_params.get("idempotency_key")
        if not key:
            raise RequestRefused(400, "parameter_missing", "idempotency_key is needed")
        charge = self._ledger.charge_by_key(key)
        return JSONResponse({"data": [charge] if charge else []})

    async def create_refund(self, request: Request) -> Response:
        """Give money back."""
        body = RefundBody.model_validate_json(await request.body())
        refund = self._ledger.refund(
            _idempotency_key(request),
            body.fingerprint(),
            charge_id=body.charge,
            amount=body.amount,
            metadata=body.metadata,
        )
        return JSONResponse(refund)

    async def ledger(self, request: Request) -> Response:
        """List all charges and refunds, oldest first; `after` is the id of the last one that was read."""
        try:
            limit = min(int(request.query_params.get("limit", _PAGE)), _LARGEST_PAGE)
        except ValueError:
            raise RequestRefused(400, "parameter_invalid", "limit is not a number") from None
        entries = self._ledger.entries(request.query_params.get("after", ""), limit + 1)
        return JSONResponse({"data": entries[:limit], "has_more": len(entries) > limit})

    async def faults(self, request: Request) -> Response:
        """Read or set what goes wrong on purpose."""
        if request.method == "POST":
            self._suffer(Faults.model_validate_json(await request.body()))
        return JSONResponse(self._faults.model_dump())

    def _suffer(self, faults: Faults) -> None:
        delay = faults.delay_webhooks_ms
        self._faults = faults
        self._worker.faults = faults
        self._ledger.notice_delay = (self._settings.webhook_delay_ms if delay is None else delay) / 1000

    async def health(self, _: Request) -> Response:
        """Answer when the ledger can be read."""
        self._ledger.next_due()
        return JSONResponse({"status": "ok"})

    def guarded(
        self, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Ask for the API key."""

        async def guard(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if not hmac.compare_digest(given, self._authorization):
                raise RequestRefused(401, "unauthorized", "the API key is missing or wrong")
            return await endpoint(request)

        return guard

    def networked(
        self, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Ask for the API key, and take the time and fail as a gateway far away does."""

        async def networked(request: Request) -> Response:
            return await far_away(
                lambda: endpoint(request), lambda: self._faults, self._settings.latency_ms, _out_of_order
            )

        return self.guarded(networked)


def create_app(settings: GatewaySettings) -> Starlette:
    """Wire the gateway."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with Ledger.open(settings.state, sends_notices=bool(settings.webhook_url)) as ledger:
            async with aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=10), cookie_jar=aiohttp.DummyCookieJar()
            ) as client:
                worker = Worker(ledger, client, url=settings.webhook_url, secret=settings.webhook_secret)
                api = Api(settings, ledger, worker)
                app.router.routes += [
                    Route("/v1/charges", api.networked(api.create_charge), methods=["POST"]),
                    Route("/v1/charges", api.networked(api.find_charges), methods=["GET"]),
                    Route("/v1/charges/{charge}", api.networked(api.get_charge), methods=["GET"]),
                    Route(
                        "/v1/charges/{charge}/capture", api.networked(api.capture_charge), methods=["POST"]
                    ),
                    Route("/v1/refunds", api.networked(api.create_refund), methods=["POST"]),
                    Route("/v1/ledger", api.guarded(api.ledger), methods=["GET"]),
                    Route("/admin/faults", api.guarded(api.faults), methods=["GET", "POST"]),
                    Route("/healthz", api.health, methods=["GET"]),
                ]
                working = asyncio.create_task(worker.run())
                yield
                working.cancel()

    return Starlette(
        lifespan=lifespan, exception_handlers={RequestRefused: _on_refused, ValidationError: _on_invalid}
    )


def _outcome(charge: Resource) -> Response:
    if charge["status"] == "failed":
        return _error(402, charge["failure_code"], "the card was not charged", charge=charge)
    return JSONResponse(charge)


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if not 0 < len(key) <= 255:
        raise RequestRefused(
            400, "idempotency_key_missing", "an Idempotency-Key of up to 255 characters is needed"
        )
    return key


def _out_of_order() -> Response:
    return _error(500, "internal_error", "something went wrong")


def _error(status: int, code: str, message: str, **more: Resource) -> Response:
    return JSONResponse({"error": {"code": code, "message": message, **more}}, status_code=status)


async def _on_refused(_: Request, error: Any) -> Response:
    return _error(error.status, error.code, str(error))


async def _on_invalid(_: Request, error: Any) -> Response:
    first = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    return _error(400, "parameter_invalid", f"{field}: {first['msg']}")
