"""FedEx, as far as a shop sees it: OAuth tokens, open shipments, and notices with a hexadecimal signature."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

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

NAME = "fedex"
_CODES = {
    Code.COLLECTED: "PU",
    Code.OUT_FOR_DELIVERY: "OD",
    Code.DELIVERED: "DL",
    Code.EXCEPTION: "DE",
    Code.RETURNED: "RS",
}
_DAYS = {"FEDEX_GROUND": 4, "PRIORITY_OVERNIGHT": 1}
_Text = Annotated[str, Field(min_length=1, max_length=200)]


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class _Address(_Body):
    street_lines: Annotated[list[str], Field(min_length=1, max_length=3)]
    city: str
    state_or_province_code: str = ""
    postal_code: str = ""
    country_code: Annotated[str, Field(pattern="^[A-Z]{2}$")]


class _Contact(_Body):
    person_name: _Text


class _Recipient(_Body):
    contact: _Contact
    address: _Address


class _Weight(_Body):
    units: Literal["KG"]
    value: Annotated[float, Field(gt=0)]


class _Package(_Body):
    weight: _Weight


class _RequestedShipment(_Body):
    service_type: Literal["FEDEX_GROUND", "PRIORITY_OVERNIGHT"]
    recipients: Annotated[list[_Recipient], Field(min_length=1, max_length=1)]
    requested_package_line_items: Annotated[list[_Package], Field(min_length=1, max_length=1)]


class _CreateBody(_Body):
    index: _Text
    requested_shipment: _RequestedShipment


class _IndexBody(_Body):
    index: _Text


class _Number(_Body):
    tracking_number: str


class _NumberInfo(_Body):
    tracking_number_info: _Number


class _TrackBody(_Body):
    tracking_info: Annotated[list[_NumberInfo], Field(min_length=1, max_length=1)]


class FedEx:
    """The endpoints."""

    name = NAME

    def __init__(self, settings: CarrierSettings, ledger: Ledger) -> None:
        self._secret = settings.fedex_client_secret.encode()
        self._webhook_secret = settings.fedex_webhook_secret.encode()
        self._token_seconds = settings.token_seconds
        self._ledger = ledger
        # Not durable: who comes with a token of another life of this process asks for a new one.
        self._tokens: dict[str, float] = {}

    def routes(self) -> Sequence[Route]:
        """What is answered to whoever has a token, and how to get one."""
        return [
            Route("/oauth/token", self.token, methods=["POST"]),
            Route("/ship/v1/openshipments/create", self.create, methods=["POST"]),
            Route("/ship/v1/openshipments/confirm", self.confirm, methods=["POST"]),
            Route("/ship/v1/shipments/cancel", self.cancel, methods=["PUT"]),
            Route("/ship/v1/labels/{tracking_number}", self.label, methods=["GET"]),
            Route("/track/v1/trackingnumbers", self.track, methods=["POST"]),
        ]

    def check(self, request: Request) -> None:
        """Ask for a token, where one is needed. Raises Refused."""
        if request.url.path.endswith("/oauth/token"):
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or self._tokens.get(token, 0) < time.time():
            raise Refused(401, "NOT.AUTHORIZED.ERROR", "Access token expired. Please modify your request.")

    async def token(self, request: Request) -> Response:
        """Give a token for the account's secret."""
        form = dict(parse_qsl((await request.body()).decode()))
        given = form.get("client_secret", "").encode()
        if form.get("grant_type") != "client_credentials" or not hmac.compare_digest(given, self._secret):
            raise Refused(401, "NOT.AUTHORIZED.ERROR", "The given client credentials were not valid.")
        now = time.time()
        token = secrets.token_urlsafe(24)
        self._tokens = {key: until for key, until in self._tokens.items() if until > now}
        self._tokens[token] = now + self._token_seconds
        return JSONResponse(
            {
                "access_token": token,
                "token_type": "bearer",
                "expires_in": int(self._token_seconds),
                "scope": "CXS",
            }
        )

    async def create(self, request: Request) -> Response:
        """Open a shipment: it has its label, and is collected once it is confirmed."""
        body = _CreateBody.model_validate_json(await request.body())
        wanted = body.requested_shipment
        (recipient,), (package,) = wanted.recipients, wanted.requested_package_line_items
        streets = recipient.address.street_lines
        wish = streets[1] if len(streets) > 1 else ""
        if wish.upper() == NOT_SERVED:
            raise Refused(
                422, "SERVICE.UNAVAILABLE.FOR.DESTINATION", "The destination is not served by this service."
            )
        details = Details(
            recipient.contact.person_name,
            (*streets, f"{recipient.address.postal_code} {recipient.address.state_or_province_code}".strip()),
            recipient.address.city,
            recipient.address.country_code,
            round(package.weight.value * 1000),
            wish,
        )
        try:
            parcel = self._ledger.book(NAME, body.index, wanted.service_type, details, numbers.fedex)
        except WasVoided:
            raise Refused(409, "SHIPMENT.ALREADY.CANCELLED", "This index was cancelled.") from None
        due: date = datetime.fromtimestamp(parcel.created, UTC).date() + timedelta(_DAYS[parcel.service])
        piece = {"trackingNumber": parcel.tracking_id, "deliveryDatestamp": due.isoformat()}
        shipment = {
            "index": body.index,
            "masterTrackingNumber": parcel.tracking_id,
            "pieceResponses": [piece],
        }
        return _answer({"transactionShipments": [shipment]})

    async def confirm(self, request: Request) -> Response:
        """Close a shipment: from now on it may be collected."""
        body = _IndexBody.model_validate_json(await request.body())
        self._ledger.confirm(NAME, body.index)
        return _answer({"transactionShipments": [{"index": body.index, "alerts": []}]})

    async def cancel(self, request: Request) -> Response:
        """Cancel a shipment that was not collected."""
        body = _IndexBody.model_validate_json(await request.body())
        try:
            self._ledger.void(NAME, body.index)
        except WasCollected:
            raise Refused(
                400, "SHIPMENT.ALREADY.TENDERED", "The shipment was tendered to FedEx already."
            ) from None
        return _answer({"cancelledShipment": True})

    async def label(self, request: Request) -> Response:
        """Print a label."""
        parcel = self._ledger.tracked(NAME, request.path_params["tracking_number"])
        lines = [parcel.details.recipient, *parcel.details.lines, parcel.details.city, parcel.details.country]
        lines += [parcel.service, f"{parcel.details.grams / 1000:g} kg"]
        return Response(labels.pdf(NAME, parcel.tracking_id, lines), media_type="application/pdf")

    async def track(self, request: Request) -> Response:
        """Tell what has happened to a shipment."""
        body = _TrackBody.model_validate_json(await request.body())
        number = body.tracking_info[0].tracking_number_info.tracking_number
        parcel = self._ledger.tracked(NAME, number)
        events = [_event(scan) for scan in self._ledger.scans(NAME, parcel.reference)]
        result = {"trackingNumber": number, "trackResults": [{"scanEvents": events[::-1]}]}
        return _answer({"completeTrackResults": [result]})

    def notice(self, scan: Scan) -> tuple[bytes, dict[str, str]]:
        """Return what is told of a scan, and the signature in its header."""
        body = orjson.dumps(
            {
                "eventId": scan.id,
                "trackingNumber": scan.tracking_id,
                "index": scan.reference,
                "scanEvent": _event(scan),
            }
        )
        digest = hmac.new(self._webhook_secret, body, hashlib.sha256).hexdigest()
        return body, {"fdx-signature": digest}

    def error(self, status: int, code: str, message: str) -> Response:
        """Say that something went wrong."""
        return JSONResponse(
            {"transactionId": secrets.token_hex(8), "errors": [{"code": code, "message": message}]},
            status_code=status,
        )


def _answer(output: dict[str, Any]) -> Response:
    return JSONResponse({"transactionId": secrets.token_hex(8), "output": output})


def _event(scan: Scan) -> dict[str, Any]:
    return {
        "date": datetime.fromtimestamp(scan.at, UTC).isoformat(),
        "eventType": _CODES[scan.code],
        "eventDescription": scan.description,
        "scanLocation": {"city": scan.location},
    }
