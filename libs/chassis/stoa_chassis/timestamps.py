"""Times as `google.protobuf.Timestamp`; apart from `clock.py` so that models don't import protobuf."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def to_timestamp(at: datetime) -> Timestamp:
    """Return the message for an aware time."""
    message = Timestamp()
    message.FromDatetime(at)
    return message
