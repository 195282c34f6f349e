"""What the audit must know of the cart service."""

from stoa_events import OrderPlaced

# Products are taken by their version, without an inbox.
NOTED = (OrderPlaced.TOPIC,)
