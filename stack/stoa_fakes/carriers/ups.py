"""UPS, as far as a shop sees it: an access key, deeply nested bodies, and notices with a signature in
Base64."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_pascal
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

NAME = "ups"
_TYPES = {
    Code.COLLECTED: "P",
    Code.OUT_FOR_DELIVERY: "O",
    Code.DELIVERED: "D",
    Code.EXCEPTION: "X",
    Code.RETURNED: "RS",
}
_DAYS = {"03": 4, "01": 1}
_Text = Annotated[str, Field(min_length=1, max_length=200)]


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal)


class _Address(_Body):
    address_line: Annotated[list[str], Field(min_length=1, max_length=3)]
    city: str
    state_province_code: str = ""
    postal_code: str = ""
    country_code: Annotated[str, Field(pattern="^[A-Z]{2}$")]


class _ShipTo(_Body):
    name: _Text
    address: _Address


class _Service(_Body):
    code: Literal["03", "01"]


class _Unit(_Body):
    code: Literal["KGS"]


class _Weight(_Body):
    unit_of_measurement: _Unit
    weight: Annotated[str, Field(pattern=r"^\d{1,7}(\.\d{1,3})?$")]


class _Package(_Body):
    package_weight: _Weight


class _Reference(_Body):
    value: _Text


class _Shipment(_Body):
    ship_to: _ShipTo
    service: _Service
    package: _Package
    reference_number: _Reference


class _ShipmentRequest(_Body):
    shipment: _Shipment


class _ShipBody(_Body):
    shipment_request: _ShipmentRequest


class _AcceptRequest(_Body):
    reference_number: _Reference


class _AcceptBody(_Body):
    shipment_accept_request: _AcceptRequest


class Ups:
    """The endpoints."""

    name = NAME

    def __init__(self, settings: CarrierSettings, ledger: Ledger) -> None:
        self._key = settings.ups_access_key.encode()
        self._webhook_secret = settings.ups_webhook_secret.encode()
        self._ledger = ledger

    def routes(self) -> Sequence[Route]:
        """What is answered to whoever has the access key."""
        return [
            Route("/api/shipments/v1/ship", self.ship, methods=["POST"]),
            Route("/api/shipments/v1/accept", self.accept, methods=["POST"]),
            Route("/api/shipments/v1/void/{reference}", self.void, methods=["DELETE"]),
            Route("/api/labels/v1/recovery/{tracking_number}", self.label, methods=["GET"]),
            Route("/api/track/v1/details/{tracking_number}", self.track, methods=["GET"]),
        ]

    def check(self, request: Request) -> None:
        """Ask for the access key. Raises Refused."""
        given = request.headers.get("accesslicensenumber", "").encode()
        if not hmac.compare_digest(given, self._key):
            raise Refused(401, "250003", "Invalid Access License number")

    async def ship(self, request: Request) -> Response:
        """Prepare a shipment: it has its label, and is collected once it is accepted."""
        wanted = _ShipBody.model_validate_json(await request.body()).shipment_request.shipment
        address = wanted.ship_to.address
        wish = address.address_line[1] if len(address.address_line) > 1 else ""
        if wish.upper() == NOT_SERVED:
            raise Refused(400, "111210", "The requested service is unavailable between the locations.")
        details = Details(
            wanted.ship_to.name,
            (*address.address_line, f"{address.postal_code} {address.state_province_code}".strip()),
            address.city,
            address.country_code,
            round(float(wanted.package.package_weight.weight) * 1000),
            wish,
        )
        service, reference = wanted.service.code, wanted.reference_number.value
        try:
            parcel = self._ledger.book(NAME, reference, service, details, lambda: numbers.ups(service))
        except WasVoided:
            raise Refused(409, "190102", "No shipment: this reference number was voided") from None
        due: date = datetime.fromtimestamp(parcel.created, UTC).date() + timedelta(_DAYS[parcel.service])
        results = {
            "ShipmentIdentificationNumber": parcel.tracking_id,
            "PackageResults": {"TrackingNumber": parcel.tracking_id},
            "ScheduledDeliveryDate": f"{due:%Y%m%d}",
        }
        return _answer("ShipmentResponse", {"ShipmentResults": results})

    async def accept(self, request: Request) -> Response:
        """Accept a shipment: from now on it may be collected."""
        body = _AcceptBody.model_validate_json(await request.body())
        self._ledger.confirm(NAME, body.shipment_accept_request.reference_number.value)
        return _answer("ShipmentAcceptResponse", {})

    async def void(self, request: Request) -> Response:
        """Void a shipment that was not collected."""
        try:
            self._ledger.void(NAME, request.path_params["reference"])
        except WasCollected:
            raise Refused(400, "190117", "Unable to void: the package was picked up") from None
        status = {"Code": "1", "Description": "Voided"}
        return _answer("VoidShipmentResponse", {"SummaryResult": {"Status": status}})

    async def label(self, request: Request) -> Response:
        """Print a label, in Base64."""
        parcel = self._ledger.tracked(NAME, request.path_params["tracking_number"])
        lines = [parcel.details.recipient, *parcel.details.lines, parcel.details.city, parcel.details.country]
        lines += [f"UPS {parcel.service}", f"{parcel.details.grams / 1000:g} kg"]
        image = base64.b64encode(labels.pdf(NAME, parcel.tracking_id, lines)).decode()
        label = {"LabelImage": {"LabelImageFormat": {"Code": "PDF"}, "GraphicImage": image}}
        return _answer("LabelRecoveryResponse", {"LabelResults": label})

    async def track(self, request: Request) -> Response:
        """Tell what has happened to a shipment."""
        parcel = self._ledger.tracked(NAME, request.path_params["tracking_number"])
        activity = [_activity(scan) for scan in self._ledger.scans(NAME, parcel.reference)]
        package = {"trackingNumber": parcel.tracking_id, "activity": activity[::-1]}
        return JSONResponse({"trackResponse": {"shipment": [{"package": [package]}]}})

    def notice(self, scan: Scan) -> tuple[bytes, dict[str, str]]:
        """Return what is told of a scan, and the signature in its header."""
        told = {"trackingNumber": scan.tracking_id, "referenceNumber": scan.reference, **_activity(scan)}
        body = orjson.dumps(told)
        digest = hmac.new(self._webhook_secret, body, hashlib.sha256).digest()
        return body, {"x-ups-signature": base64.b64encode(digest).decode()}

    def error(self, status: int, code: str, message: str) -> Response:
        """Say that something went wrong."""
        return JSONResponse(
            {"response": {"errors": [{"code": code, "message": message}]}}, status_code=status
        )


def _answer(name: str, content: dict[str, Any]) -> Response:
    status = {"ResponseStatus": {"Code": "1", "Description": "Success"}}
    return JSONResponse({name: {"Response": status, **content}})


def _activity(scan: Scan) -> dict[str, Any]:
    at = datetime.fromtimestamp(scan.at, UTC)
    return {
        "status": {"type": _TYPES[scan.code], "description": scan.description},
        "location": {"address": {"city": scan.location}},
        "gmtDate": f"{at:%Y%m%d}",
        "gmtTime": f"{at:%H:%M:%S}",
    }
