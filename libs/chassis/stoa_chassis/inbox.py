"""The inbox: which events were processed, so that one that comes again has no effect.

The mark is written in the transaction of the event's effects, so both happen or neither. Pattern:
https://microservices.io/patterns/communication-style/idempotent-consumer.html
"""


class AlreadyProcessed(Exception):
    """The event's effects are in the store already; to a consumer that is success."""
