"""DHL, as far as a shop sees it: an API key, orders and manifests, and notices with a timed signature."""

import hmac
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stoa_fakes.carriers import labels, numbers
from stoa_fakes.carriers.ledger import (
    NOT_SERVED,
    Code,
    Details,
    Ledger,
    Scan,
    WasCollected,
    WasVoided,
)
from stoa_fakes.carriers.network import Refused
from stoa_fakes.carriers.settings import CarrierSettings
from stoa_fakes.notices import signed_now

NAME = "dhl"
_CODES = {
    Code.COLLECTED: "transit",
    Code.OUT_FOR_DELIVERY: "out-for-delivery",
    Code.DELIVERED: "delivered",
    Code.EXCEPTION: "failure",
    Code.RETURNED: "returned",
}
_DAYS = {"PARCEL": 6, "EXPRESS": 2}
_Text = Annotated[str, Field(min_length=1, max_length=200)]


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class _Consignee(_Body):
    name1: _Text
    address_street: _Text
    additional_address_information1: str = ""
    city: str
    state: str = ""
    postal_code: str = ""
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")]


class _Weight(_Body):
    uom: Literal["g"]
    value: Annotated[int, Field(gt=0)]


class _Details(_Body):
    weight: _Weight


class _Shipment(_Body):
    product: Literal["PARCEL", "EXPRESS"]
    ref_no: _Text
    consignee: _Consignee
    details: _Details


class _OrderBody(_Body):
    shipments: Annotated[list[_Shipment], Field(min_length=1, max_length=1)]


class _ManifestBody(_Body):
    ref_nos: Annotated[list[_Text], Field(min_length=1, max_length=100)]


class Dhl:
    """The endpoints."""

    name = NAME

    def __init__(self, settings: CarrierSettings, ledger: Ledger) -> None:
        self._key = settings.dhl_api_key.encode()
        self._webhook_secret = settings.dhl_webhook_secret.encode()
        self._ledger = ledger

    def routes(self) -> Sequence[Route]:
        """What is answered to whoever has the API key."""
        return [
            Route("/parcel/v2/orders", self.order, methods=["POST"]),
            Route("/parcel/v2/orders", self.delete, methods=["DELETE"]),
            Route("/parcel/v2/manifests", self.manifest, methods=["POST"]),
            Route("/parcel/v2/labels", self.label, methods=["GET"]),
            Route("/track/shipments", self.track, methods=["GET"]),
        ]

    def check(self, request: Request) -> None:
        """Ask for the API key. Raises Refused."""
        given = request.headers.get("dhl-api-key", "").encode()
        if not hmac.compare_digest(given, self._key):
            raise Refused(401, "Unauthorized", "Unauthorized for given resource.")

    async def order(self, request: Request) -> Response:
        """Take an order: it has its label, and is collected once it is on a manifest."""
        (wanted,) = _OrderBody.model_validate_json(await request.body()).shipments
        to = wanted.consignee
        if to.additional_address_information1.upper() == NOT_SERVED:
            raise Refused(400, "Bad Request", "The consignee's address can't be served with this product.")
        lines = (
            to.address_street,
            to.additional_address_information1,
            f"{to.postal_code} {to.state}".strip(),
        )
        details = Details(
            to.name1,
            lines,
            to.city,
            to.country,
            wanted.details.weight.value,
            to.additional_address_information1,
        )
        try:
            parcel = self._ledger.book(NAME, wanted.ref_no, wanted.product, details, numbers.dhl)
        except WasVoided:
            raise Refused(409, "Conflict", "An order with this refNo was deleted.") from None
        due: date = datetime.fromtimestamp(parcel.created, UTC).date() + timedelta(_DAYS[parcel.service])
        item = {
            "shipmentNo": parcel.tracking_id,
            "refNo": parcel.reference,
            "estimatedDeliveryDate": due.isoformat(),
        }
        return JSONResponse({"status": {"title": "ok", "statusCode": 200}, "items": [item]})

    async def manifest(self, request: Request) -> Response:
        """Put orders on a manifest: from now on they may be collected."""
        body = _ManifestBody.model_validate_json(await request.body())
        for reference in body.ref_nos:
            self._ledger.confirm(NAME, reference)
        items = [{"refNo": reference, "sstatus": {"statusCode": 200}} for reference in body.ref_nos]
        return JSONResponse({"status": {"title": "ok", "statusCode": 200}, "items": items})

    async def delete(self, request: Request) -> Response:
        """Delete an order that was not collected."""
        try:
            self._ledger.void(NAME, request.query_params.get("refNo", ""))
        except WasCollected:
            raise Refused(409, "Conflict", "The shipment was collected and can't be deleted.") from None
        return JSONResponse({"status": {"title": "ok", "statusCode": 200}})

    async def label(self, request: Request) -> Response:
        """Print a label."""
        parcel = self._ledger.tracked(NAME, request.query_params.get("shipment", ""))
        lines = [parcel.details.recipient, *filter(None, parcel.details.lines), parcel.details.city]
        lines += [parcel.details.country, f"DHL {parcel.service}", f"{parcel.details.grams} g"]
        return Response(labels.pdf(NAME, parcel.tracking_id, lines), media_type="application/pdf")

    async def track(self, request: Request) -> Response:
        """Tell what has happened to a shipment."""
        parcel = self._ledger.tracked(NAME, request.query_params.get("trackingNumber", ""))
        events = [_event(scan) for scan in self._ledger.scans(NAME, parcel.reference)]
        return JSONResponse({"shipments": [{"id": parcel.tracking_id, "events": events[::-1]}]})

    def notice(self, scan: Scan) -> tuple[bytes, dict[str, str]]:
        """Return what is told of a scan, and the signature in its header, over the time and the body."""
        told = {"shipmentNo": scan.tracking_id, "refNo": scan.reference, "events": [_event(scan)]}
        body = orjson.dumps(told)
        return body, {"dhl-signature": signed_now(self._webhook_secret, body)}

    def error(self, status: int, code: str, message: str) -> Response:
        """Say that something went wrong."""
        problem = {"title": code, "status": status, "detail": message}
        return JSONResponse(problem, status_code=status, media_type="application/problem+json")


def _event(scan: Scan) -> dict[str, Any]:
    return {
        "timestamp": f"{datetime.fromtimestamp(scan.at, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "statusCode": _CODES[scan.code],
        "status": scan.description,
        "location": {"address": {"addressLocality": scan.location}},
    }
