"""What the order service hears: the answers that the saga's steps wait for."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from stoa_chassis.avro import Event
from stoa_order.saga import SAGA
from stoa_order.service import Orders


def handlers(orders: Orders) -> Mapping[type, Callable[[Event[Any]], Awaitable[None]]]:
    """Return the handler of each event."""
    return {answer: partial(orders.hear, decide) for step in SAGA for answer, decide in step.answers.items()}
