"""Addresses as the contracts write them."""

from stoa.types.v1 import address_pb2
from stoa_order.model import Address


def from_message(message: address_pb2.Address) -> Address:
    """Return the address that a message has."""
    return Address(
        recipient=message.recipient,
        line1=message.line1,
        line2=message.line2,
        city=message.city,
        region=message.region,
        postal_code=message.postal_code,
        country=message.country,
    )


def to_message(address: Address) -> address_pb2.Address:
    """Return the message for an address."""
    return address_pb2.Address(
        recipient=address.recipient,
        line1=address.line1,
        line2=address.line2,
        city=address.city,
        region=address.region,
        postal_code=address.postal_code,
        country=address.country,
    )
