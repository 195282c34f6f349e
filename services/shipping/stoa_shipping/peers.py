"""The carriers behind their port. Nothing else knows how one is spoken to; another carrier is another class.

They differ in all but what the port says: how a caller proves who it is, the form of bodies and errors, the
check digit of tracking numbers, their words for a scan, and how they sign a notice.
"""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel, to_pascal

from stoa_chassis.company import Answer, Company, check_signature, http_session
from stoa_chassis.errors import InvalidArgument
from stoa_chassis.telemetry import get_logger
from stoa_shipping.model import (
    BadSignature,
    Label,
    Method,
    Notice,
    Parcel,
    Shipment,
    Status,
    TrackingEvent,
    in_order,
)
from stoa_shipping.ports import Carrier, NoAnswer, NotCarried, UnderWay

_log = get_logger(__name__)
# A token is renewed so long before it expires: none does on the way.
_TOKEN_MARGIN = 30.0
# By this time of the day a parcel is there: carriers name a day.
_END_OF_DAY = time_of_day(20, tzinfo=UTC)
_REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)

_Body = TypeVar("_Body", bound=BaseModel)
_Text = Annotated[str, Field(max_length=500)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where a carrier is, how it knows us, and how we know its notices."""

    url: str
    secret: str
    webhook_secret: str


@asynccontextmanager
async def _connect(
    carrier: str, account: Account, request_timeout: timedelta, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Company]:
    async with http_session(account.url, request_timeout, headers) as client:
        yield Company(carrier, client, NoAnswer)


# ----------------------------------------------------------------------------------------------- check digits


def fedex_number(number: str) -> str:
    """Check a number of twelve digits: the weighted sum of the first eleven modulo 11, ten being zero.

    Raises ValueError.
    """
    weights = (3, 1, 7) * 4
    _require(len(number) == 12 and number.isdecimal())
    total = sum(int(digit) * weight for digit, weight in zip(number[:11], weights, strict=False))
    _require(total % 11 % 10 == int(number[11]))
    return number


def ups_number(number: str) -> str:
    """Check 1Z, fifteen letters or digits and a check digit modulo 10.

    Letters count as digits (A is 2), and every second place twice. Raises ValueError.
    """
    _require(len(number) == 18 and number.startswith("1Z") and number.isascii() and number.isalnum())
    _require(number.isupper() and number[-1].isdecimal())
    values = [int(sign) if sign.isdecimal() else (ord(sign) - 3) % 10 for sign in number[2:-1]]
    _require((sum(values[::2]) + 2 * sum(values[1::2]) + int(number[-1])) % 10 == 0)
    return number


def dhl_number(number: str) -> str:
    """Check a number of ten digits: the first nine modulo 7. Raises ValueError."""
    _require(len(number) == 10 and number.isdecimal() and int(number[:9]) % 7 == int(number[9]))
    return number


def _require(is_right: bool) -> None:
    if not is_right:
        raise ValueError("is not a tracking number")


# ------------------------------------------------------------------------------------------------------ FedEx


_FEDEX_STATUSES = {
    "PU": Status.IN_TRANSIT,
    "OD": Status.OUT_FOR_DELIVERY,
    "DL": Status.DELIVERED,
    "DE": Status.EXCEPTION,
    "RS": Status.RETURNED,
}


class _FedExBody(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class _FedExToken(BaseModel):
    access_token: str
    expires_in: float


class _FedExPiece(_FedExBody):
    tracking_number: Annotated[str, AfterValidator(fedex_number)]
    delivery_datestamp: date


class _FedExShipment(_FedExBody):
    piece_responses: Annotated[list[_FedExPiece], Field(min_length=1)]


class _FedExShipments(_FedExBody):
    transaction_shipments: Annotated[list[_FedExShipment], Field(min_length=1)]


class _FedExCreated(_FedExBody):
    output: _FedExShipments


class _FedExLocation(_FedExBody):
    city: _Text = ""


class _FedExScan(_FedExBody):
    date: AwareDatetime
    event_type: str
    event_description: _Text
    scan_location: _FedExLocation

    def value(self) -> TrackingEvent | None:
        status = _FEDEX_STATUSES.get(self.event_type)
        return _event(status, self.event_description, self.scan_location.city, self.date)


class _FedExResult(_FedExBody):
    scan_events: list[_FedExScan]


class _FedExTracked(_FedExBody):
    track_results: Annotated[list[_FedExResult], Field(min_length=1)]


class _FedExComplete(_FedExBody):
    complete_track_results: Annotated[list[_FedExTracked], Field(min_length=1)]


class _FedExTracking(_FedExBody):
    output: _FedExComplete


class _FedExError(_FedExBody):
    code: str
    message: str


class _FedExErrors(_FedExBody):
    errors: Annotated[list[_FedExError], Field(min_length=1)]


class _FedExNotice(_FedExBody):
    index: str
    scan_event: _FedExScan


class FedEx:
    """FedEx: a token for a secret, and shipments that stay open until they are confirmed."""

    _SERVICES: Mapping[Method, str] = {
        Method.STANDARD: "FEDEX_GROUND",
        Method.EXPRESS: "PRIORITY_OVERNIGHT",
    }

    def __init__(self, http: Company, account: Account) -> None:
        self._http = http
        self._account = account
        self._token = ""
        self._token_until = 0.0  # by time.monotonic()
        self._renewing = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def connect(cls, account: Account, request_timeout: timedelta) -> AsyncIterator[Carrier]:
        """Keep connections to FedEx; a request may take up to `request_timeout`."""
        async with _connect("fedex", account, request_timeout) as http:
            yield cls(http, account)

    async def book(self, shipment: Shipment) -> Label:
        """Open a shipment, with its id as the index."""
        parcel = _parcel(shipment)
        to = parcel.destination
        wanted = {
            "index": str(shipment.shipment_id),
            "requestedShipment": {
                "serviceType": self._SERVICES[parcel.method],
                "recipients": [
                    {
                        "contact": {"personName": to.recipient},
                        "address": {
                            "streetLines": [line for line in (to.line1, to.line2) if line],
                            "city": to.city,
                            "stateOrProvinceCode": to.region,
                            "postalCode": to.postal_code,
                            "countryCode": to.country,
                        },
                    }
                ],
                "requestedPackageLineItems": [
                    {"weight": {"units": "KG", "value": parcel.weight_grams / 1000}}
                ],
                "customsClearanceDetail": {
                    "totalCustomsValue": {
                        "amount": str(parcel.value.amount),
                        "currency": parcel.value.currency,
                    }
                },
            },
        }
        answer = await self._send("POST", "ship/v1/openshipments/create", *_REFUSALS, json=wanted)
        if answer.status in _REFUSALS:
            raise NotCarried(_parsed(_FedExErrors, answer).errors[0].message)
        piece = _parsed(_FedExCreated, answer).output.transaction_shipments[0].piece_responses[0]
        number = piece.tracking_number
        return Label(
            number, f"https://www.fedex.com/fedextrack/?trknbr={number}", _by(piece.delivery_datestamp)
        )

    async def confirm(self, shipment: Shipment) -> None:
        """Close the shipment."""
        await self._send("POST", "ship/v1/openshipments/confirm", json={"index": str(shipment.shipment_id)})

    async def void(self, shipment: Shipment) -> None:
        """Cancel the shipment. Raises UnderWay."""
        answer = await self._send(
            "PUT",
            "ship/v1/shipments/cancel",
            HTTPStatus.BAD_REQUEST,
            json={"index": str(shipment.shipment_id)},
        )
        if answer.status == HTTPStatus.BAD_REQUEST:
            error = _parsed(_FedExErrors, answer).errors[0]
            if error.code != "SHIPMENT.ALREADY.TENDERED":
                raise NoAnswer(error.code)
            raise UnderWay

    async def scans(self, shipment: Shipment) -> Sequence[TrackingEvent]:
        """Track the shipment."""
        number = {"trackingNumberInfo": {"trackingNumber": _label(shipment).tracking_id}}
        answer = await self._send("POST", "track/v1/trackingnumbers", json={"trackingInfo": [number]})
        found = _parsed(_FedExTracking, answer).output.complete_track_results[0].track_results[0]
        return _known(scan.value() for scan in found.scan_events)

    async def label(self, shipment: Shipment) -> bytes:
        """Print the label."""
        return (await self._send("GET", f"ship/v1/labels/{_label(shipment).tracking_id}")).body

    def read_notice(self, body: bytes, headers: Mapping[str, str], now: datetime) -> Notice:
        """Return what a notice says: the signature is over its body, in hexadecimal digits."""
        expected = hmac.new(self._account.webhook_secret.encode(), body, hashlib.sha256).hexdigest()
        _check_signature(headers.get("fdx-signature", ""), expected)
        notice = _read(_FedExNotice, body)
        return _notice(notice.index, [notice.scan_event.value()])

    async def _send(
        self, method: Literal["GET", "POST", "PUT"], path: str, *expected: int, **content: Any
    ) -> Answer:
        """Send a request with a token; one that is refused is renewed, once."""
        for _ in range(2):
            token = await self._valid_token()
            headers = {"authorization": f"Bearer {token}"}
            answer = await self._http.send(
                method, path, HTTPStatus.UNAUTHORIZED, *expected, headers=headers, **content
            )
            if answer.status != HTTPStatus.UNAUTHORIZED:
                return answer
            if token == self._token:
                self._token_until = 0
        _log.error("a carrier refuses a fresh token", carrier="fedex")
        raise NoAnswer(f"{method} {path}: the token is refused")

    async def _valid_token(self) -> str:
        async with self._renewing:
            if time.monotonic() >= self._token_until:
                credentials = {"grant_type": "client_credentials", "client_secret": self._account.secret}
                token = _parsed(_FedExToken, await self._http.send("POST", "oauth/token", data=credentials))
                self._token = token.access_token
                self._token_until = time.monotonic() + max(0.0, token.expires_in - _TOKEN_MARGIN)
            return self._token


# -------------------------------------------------------------------------------------------------------- UPS


_UPS_STATUSES = {
    "P": Status.IN_TRANSIT,
    "I": Status.IN_TRANSIT,
    "O": Status.OUT_FOR_DELIVERY,
    "D": Status.DELIVERED,
    "X": Status.EXCEPTION,
    "RS": Status.RETURNED,
}


class _UpsBody(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal)


class _UpsResults(_UpsBody):
    shipment_identification_number: Annotated[str, AfterValidator(ups_number)]
    scheduled_delivery_date: Annotated[str, Field(pattern=r"^\d{8}$")]


class _UpsShipmentResponse(_UpsBody):
    shipment_results: _UpsResults


class _UpsShipped(_UpsBody):
    shipment_response: _UpsShipmentResponse


class _UpsStatus(BaseModel):
    type: str
    description: _Text


class _UpsAddress(BaseModel):
    city: _Text = ""


class _UpsLocation(BaseModel):
    address: _UpsAddress = _UpsAddress()


class _UpsActivity(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    status: _UpsStatus
    location: _UpsLocation = _UpsLocation()
    gmt_date: Annotated[str, Field(pattern=r"^\d{8}$")]
    gmt_time: Annotated[str, Field(pattern=r"^\d{2}:\d{2}:\d{2}$")]

    def value(self) -> TrackingEvent | None:
        at = datetime.strptime(f"{self.gmt_date} {self.gmt_time}", "%Y%m%d %H:%M:%S").replace(tzinfo=UTC)
        status = _UPS_STATUSES.get(self.status.type)
        return _event(status, self.status.description, self.location.address.city, at)


class _UpsPackage(BaseModel):
    activity: list[_UpsActivity]


class _UpsTrackedShipment(BaseModel):
    package: Annotated[list[_UpsPackage], Field(min_length=1)]


class _UpsTrackResponse(BaseModel):
    shipment: Annotated[list[_UpsTrackedShipment], Field(min_length=1)]


class _UpsTracking(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    track_response: _UpsTrackResponse


class _UpsImage(_UpsBody):
    graphic_image: str


class _UpsLabelResults(_UpsBody):
    label_image: _UpsImage


class _UpsLabelResponse(_UpsBody):
    label_results: _UpsLabelResults


class _UpsLabel(_UpsBody):
    label_recovery_response: _UpsLabelResponse


class _UpsError(BaseModel):
    code: str
    message: str


class _UpsErrors(BaseModel):
    errors: Annotated[list[_UpsError], Field(min_length=1)]


class _UpsRefusal(BaseModel):
    response: _UpsErrors


class _UpsNotice(_UpsActivity):
    reference_number: str


class Ups:
    """UPS: an access key, and shipments that are prepared and then accepted."""

    _SERVICES: Mapping[Method, str] = {Method.STANDARD: "03", Method.EXPRESS: "01"}
    _PICKED_UP = "190117"

    def __init__(self, http: Company, account: Account) -> None:
        self._http = http
        self._account = account

    @classmethod
    @asynccontextmanager
    async def connect(cls, account: Account, request_timeout: timedelta) -> AsyncIterator[Carrier]:
        """Keep connections to UPS; a request may take up to `request_timeout`."""
        async with _connect("ups", account, request_timeout, {"accesslicensenumber": account.secret}) as http:
            yield cls(http, account)

    async def book(self, shipment: Shipment) -> Label:
        """Prepare a shipment, with its id as the reference."""
        parcel = _parcel(shipment)
        to = parcel.destination
        kilograms = f"{parcel.weight_grams // 1000}.{parcel.weight_grams % 1000:03d}"
        wanted = {
            "ReferenceNumber": {"Value": str(shipment.shipment_id)},
            "ShipTo": {
                "Name": to.recipient,
                "Address": {
                    "AddressLine": [line for line in (to.line1, to.line2) if line],
                    "City": to.city,
                    "StateProvinceCode": to.region,
                    "PostalCode": to.postal_code,
                    "CountryCode": to.country,
                },
            },
            "Service": {"Code": self._SERVICES[parcel.method]},
            "Package": {"PackageWeight": {"UnitOfMeasurement": {"Code": "KGS"}, "Weight": kilograms}},
            "InvoiceLineTotal": {
                "CurrencyCode": parcel.value.currency,
                "MonetaryValue": str(parcel.value.amount),
            },
        }
        answer = await self._http.send(
            "POST",
            "api/shipments/v1/ship",
            *_REFUSALS,
            json={"ShipmentRequest": {"Shipment": wanted}},
        )
        if answer.status in _REFUSALS:
            raise NotCarried(_parsed(_UpsRefusal, answer).response.errors[0].message)
        results = _parsed(_UpsShipped, answer).shipment_response.shipment_results
        number = results.shipment_identification_number
        day = datetime.strptime(results.scheduled_delivery_date, "%Y%m%d").date()
        return Label(number, f"https://www.ups.com/track?tracknum={number}", _by(day))

    async def confirm(self, shipment: Shipment) -> None:
        """Have the shipment accepted."""
        reference = {"ReferenceNumber": {"Value": str(shipment.shipment_id)}}
        await self._http.send("POST", "api/shipments/v1/accept", json={"ShipmentAcceptRequest": reference})

    async def void(self, shipment: Shipment) -> None:
        """Void the shipment. Raises UnderWay."""
        path = f"api/shipments/v1/void/{shipment.shipment_id}"
        answer = await self._http.send("DELETE", path, HTTPStatus.BAD_REQUEST)
        if answer.status == HTTPStatus.BAD_REQUEST:
            error = _parsed(_UpsRefusal, answer).response.errors[0]
            if error.code != self._PICKED_UP:
                raise NoAnswer(error.code)
            raise UnderWay

    async def scans(self, shipment: Shipment) -> Sequence[TrackingEvent]:
        """Track the shipment."""
        answer = await self._http.send("GET", f"api/track/v1/details/{_label(shipment).tracking_id}")
        package = _parsed(_UpsTracking, answer).track_response.shipment[0].package[0]
        return _known(activity.value() for activity in package.activity)

    async def label(self, shipment: Shipment) -> bytes:
        """Recover the label, which comes in Base64."""
        answer = await self._http.send("GET", f"api/labels/v1/recovery/{_label(shipment).tracking_id}")
        image = _parsed(_UpsLabel, answer).label_recovery_response.label_results.label_image.graphic_image
        try:
            return base64.b64decode(image, validate=True)
        except ValueError as error:
            raise NoAnswer("a label that is not Base64") from error

    def read_notice(self, body: bytes, headers: Mapping[str, str], now: datetime) -> Notice:
        """Return what a notice says: the signature is over its body, in Base64."""
        digest = hmac.new(self._account.webhook_secret.encode(), body, hashlib.sha256).digest()
        _check_signature(headers.get("x-ups-signature", ""), base64.b64encode(digest).decode())
        notice = _read(_UpsNotice, body)
        return _notice(notice.reference_number, [notice.value()])


# -------------------------------------------------------------------------------------------------------- DHL


_DHL_STATUSES = {
    "transit": Status.IN_TRANSIT,
    "out-for-delivery": Status.OUT_FOR_DELIVERY,
    "delivered": Status.DELIVERED,
    "failure": Status.EXCEPTION,
    "returned": Status.RETURNED,
}


class _DhlBody(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class _DhlItem(_DhlBody):
    shipment_no: Annotated[str, AfterValidator(dhl_number)]
    estimated_delivery_date: date


class _DhlOrdered(_DhlBody):
    items: Annotated[list[_DhlItem], Field(min_length=1)]


class _DhlAddress(_DhlBody):
    address_locality: _Text = ""


class _DhlLocation(_DhlBody):
    address: _DhlAddress = _DhlAddress()


class _DhlEvent(_DhlBody):
    timestamp: AwareDatetime
    status_code: str
    status: _Text
    location: _DhlLocation = _DhlLocation()

    def value(self) -> TrackingEvent | None:
        status = _DHL_STATUSES.get(self.status_code)
        return _event(status, self.status, self.location.address.address_locality, self.timestamp)


class _DhlTracked(_DhlBody):
    events: list[_DhlEvent]


class _DhlTracking(_DhlBody):
    shipments: Annotated[list[_DhlTracked], Field(min_length=1)]


class _DhlProblem(_DhlBody):
    detail: str


class _DhlNotice(_DhlBody):
    ref_no: str
    events: list[_DhlEvent]


class Dhl:
    """DHL: an API key, and orders that are put on a manifest."""

    _PRODUCTS: Mapping[Method, str] = {Method.STANDARD: "PARCEL", Method.EXPRESS: "EXPRESS"}

    def __init__(self, http: Company, account: Account) -> None:
        self._http = http
        self._account = account

    @classmethod
    @asynccontextmanager
    async def connect(cls, account: Account, request_timeout: timedelta) -> AsyncIterator[Carrier]:
        """Keep connections to DHL; a request may take up to `request_timeout`."""
        async with _connect("dhl", account, request_timeout, {"dhl-api-key": account.secret}) as http:
            yield cls(http, account)

    async def book(self, shipment: Shipment) -> Label:
        """Place an order, with the shipment's id as the refNo."""
        parcel = _parcel(shipment)
        to = parcel.destination
        wanted = {
            "product": self._PRODUCTS[parcel.method],
            "refNo": str(shipment.shipment_id),
            "consignee": {
                "name1": to.recipient,
                "addressStreet": to.line1,
                "additionalAddressInformation1": to.line2,
                "city": to.city,
                "state": to.region,
                "postalCode": to.postal_code,
                "country": to.country,
            },
            "details": {"weight": {"uom": "g", "value": parcel.weight_grams}},
            "customs": {
                "postalCharges": {"currency": parcel.value.currency, "value": str(parcel.value.amount)}
            },
        }
        answer = await self._http.send("POST", "parcel/v2/orders", *_REFUSALS, json={"shipments": [wanted]})
        if answer.status in _REFUSALS:
            raise NotCarried(_parsed(_DhlProblem, answer).detail)
        item = _parsed(_DhlOrdered, answer).items[0]
        page = f"https://www.dhl.com/en/express/tracking.html?AWB={item.shipment_no}"
        return Label(item.shipment_no, page, _by(item.estimated_delivery_date))

    async def confirm(self, shipment: Shipment) -> None:
        """Put the order on a manifest."""
        await self._http.send("POST", "parcel/v2/manifests", json={"refNos": [str(shipment.shipment_id)]})

    async def void(self, shipment: Shipment) -> None:
        """Delete the order. Raises UnderWay."""
        answer = await self._http.send(
            "DELETE", "parcel/v2/orders", HTTPStatus.CONFLICT, params={"refNo": str(shipment.shipment_id)}
        )
        if answer.status == HTTPStatus.CONFLICT:
            raise UnderWay

    async def scans(self, shipment: Shipment) -> Sequence[TrackingEvent]:
        """Track the shipment."""
        number = {"trackingNumber": _label(shipment).tracking_id}
        tracked = _parsed(_DhlTracking, await self._http.send("GET", "track/shipments", params=number))
        return _known(event.value() for event in tracked.shipments[0].events)

    async def label(self, shipment: Shipment) -> bytes:
        """Print the label."""
        number = {"shipment": _label(shipment).tracking_id}
        return (await self._http.send("GET", "parcel/v2/labels", params=number)).body

    def read_notice(self, body: bytes, headers: Mapping[str, str], now: datetime) -> Notice:
        """Return what a notice says: the signature is over a time, which is not long ago, and its body."""
        try:
            check_signature(headers.get("dhl-signature", ""), body, self._account.webhook_secret, now)
        except ValueError as error:
            raise BadSignature(str(error)) from None
        notice = _read(_DhlNotice, body)
        return _notice(notice.ref_no, [event.value() for event in notice.events])


# ------------------------------------------------------------------------------------------- what they share


def _parcel(shipment: Shipment) -> Parcel:
    assert shipment.parcel is not None
    return shipment.parcel


def _label(shipment: Shipment) -> Label:
    assert shipment.label is not None
    return shipment.label


def _by(day: date) -> datetime:
    return datetime.combine(day, _END_OF_DAY)


def _event(status: Status | None, description: str, location: str, at: datetime) -> TrackingEvent | None:
    """Make a line of the history; None of what says nothing of the status, such as papers for the customs."""
    return None if status is None else TrackingEvent(status, description, location, at)


def _known(scans: Iterable[TrackingEvent | None]) -> Sequence[TrackingEvent]:
    """Leave out what says nothing of the status, and put the oldest first."""
    return in_order(scan for scan in scans if scan is not None)


def _parsed(body_type: type[_Body], answer: Answer) -> _Body:
    try:
        return body_type.model_validate_json(answer.body)
    except ValidationError as error:
        raise NoAnswer(f"an answer that we don't understand: {error.error_count()} errors") from error


def _read(body_type: type[_Body], body: bytes) -> _Body:
    try:
        return body_type.model_validate_json(body)
    except ValidationError as error:
        raise InvalidArgument("body", "is not a notice of the carrier") from error


def _notice(reference: str, scans: Iterable[TrackingEvent | None]) -> Notice:
    try:
        return Notice(UUID(reference), _known(scans))
    except ValueError:
        return Notice(None, ())


def _check_signature(given: str, expected: str) -> None:
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise BadSignature("the notice was not signed by the carrier")
