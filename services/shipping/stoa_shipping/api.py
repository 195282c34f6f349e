"""The gRPC servicer: messages to use cases and back."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from stoa.shipping.v1 import shipping_pb2, shipping_pb2_grpc
from stoa.types.v1 import address_pb2
from stoa_chassis.auth import current_principal
from stoa_chassis.money_proto import to_proto
from stoa_chassis.paging import page
from stoa_chassis.timestamps import to_timestamp
from stoa_shipping.model import Address, Shipment, Status
from stoa_shipping.service import Item, Quotes, Shipments
from stoa_shipping.tariff import Quote


class ShippingServicer(shipping_pb2_grpc.ShippingServiceServicer):
    """stoa.shipping.v1.ShippingService."""

    def __init__(self, quotes: Quotes, shipments: Shipments) -> None:
        self._quotes = quotes
        self._shipments = shipments

    async def QuoteShipping(
        self, request: shipping_pb2.QuoteShippingRequest, context: Any
    ) -> shipping_pb2.QuoteShippingResponse:
        """Price a parcel."""
        items = [Item(UUID(item.variant_id), item.quantity) for item in request.items]
        quotes = await self._quotes.quote(items, _address(request.address))
        return shipping_pb2.QuoteShippingResponse(quotes=map(_quote_message, quotes))

    async def GetTracking(
        self, request: shipping_pb2.GetTrackingRequest, context: Any
    ) -> shipping_pb2.GetTrackingResponse:
        """Tell where the parcel of an order is."""
        shipment = await self._shipments.get(UUID(request.order_id), current_principal())
        return shipping_pb2.GetTrackingResponse(tracking=_tracking_message(shipment))

    async def ListShipments(
        self, request: shipping_pb2.ListShipmentsRequest, context: Any
    ) -> shipping_pb2.ListShipmentsResponse:
        """List shipments."""
        status = Status(request.status) if request.status else None

        async def read(after: Mapping[str, Any], limit: int) -> Sequence[Shipment]:
            before = UUID(after["shipment_id"]) if after else None
            return await self._shipments.list(status, before, limit)

        found = await page(
            request, {"status": request.status}, read, lambda last: {"shipment_id": last.shipment_id}
        )
        return shipping_pb2.ListShipmentsResponse(
            shipments=map(_shipment_message, found.items), next_page_token=found.next_page_token
        )

    async def GetShipmentLabel(
        self, request: shipping_pb2.GetShipmentLabelRequest, context: Any
    ) -> shipping_pb2.GetShipmentLabelResponse:
        """Read the label of an order's parcel."""
        label = await self._shipments.label(UUID(request.order_id))
        return shipping_pb2.GetShipmentLabelResponse(
            label=HttpBody(content_type="application/pdf", data=label)
        )

    async def StopShipment(
        self, request: shipping_pb2.StopShipmentRequest, context: Any
    ) -> shipping_pb2.StopShipmentResponse:
        """Keep an order's parcel from being sent."""
        await self._shipments.stop(UUID(request.order_id))
        return shipping_pb2.StopShipmentResponse()

    async def ReceiveCarrierNotice(
        self, request: shipping_pb2.ReceiveCarrierNoticeRequest, context: Any
    ) -> Empty:
        """Take a notice of a carrier."""
        headers = {name: str(value) for name, value in context.invocation_metadata()}
        await self._shipments.receive_notice(request.carrier, request.body.data, headers)
        return Empty()


def _address(message: address_pb2.Address) -> Address:
    return Address(
        recipient=message.recipient,
        line1=message.line1,
        line2=message.line2,
        city=message.city,
        region=message.region,
        postal_code=message.postal_code,
        country=message.country,
    )


def _quote_message(quote: Quote) -> shipping_pb2.Quote:
    return shipping_pb2.Quote(
        shipping_method=quote.method,
        carrier=quote.carrier,
        amount=to_proto(quote.amount),
        estimated_delivery=to_timestamp(quote.estimated_delivery),
    )


def _tracking_message(shipment: Shipment) -> shipping_pb2.Tracking:
    tracking = shipping_pb2.Tracking(
        shipment_id=str(shipment.shipment_id),
        order_id=str(shipment.order_id),
        carrier=shipment.carrier,
        status=shipment.status,
        events=[
            shipping_pb2.TrackingEvent(
                status=event.status,
                description=event.description,
                location=event.location,
                at=to_timestamp(event.at),
            )
            for event in shipment.history
        ],
        shipping_method=shipment.parcel.method if shipment.parcel else "",
    )
    if shipment.label is not None:
        tracking.tracking_id = shipment.label.tracking_id
        tracking.tracking_url = shipment.label.tracking_url
        tracking.estimated_delivery.CopyFrom(to_timestamp(shipment.label.estimated_delivery))
    return tracking


def _shipment_message(shipment: Shipment) -> shipping_pb2.Shipment:
    message = shipping_pb2.Shipment(
        shipment_id=str(shipment.shipment_id),
        order_id=str(shipment.order_id),
        user_id=str(shipment.user_id or ""),
        status=shipment.status,
        carrier=shipment.carrier,
        problem=shipment.problem,
        created_at=to_timestamp(shipment.created_at),
        updated_at=to_timestamp(shipment.updated_at),
    )
    if (parcel := shipment.parcel) is not None:
        message.shipping_method = parcel.method
        message.weight_grams = parcel.weight_grams
        message.destination.CopyFrom(_address_message(parcel.destination))
    if shipment.label is not None:
        message.tracking_id = shipment.label.tracking_id
        message.estimated_delivery.CopyFrom(to_timestamp(shipment.label.estimated_delivery))
    return message


def _address_message(address: Address) -> address_pb2.Address:
    return address_pb2.Address(
        recipient=address.recipient,
        line1=address.line1,
        line2=address.line2,
        city=address.city,
        region=address.region,
        postal_code=address.postal_code,
        country=address.country,
    )
