"""Kafka for asyncio: a producer that keeps order, a consumer that retries and then parks messages."""

from stoa_chassis.kafka.connection import connection
from stoa_chassis.kafka.consumer import Consumer, Handler, Membership, OutOfGroup, RetryPolicy
from stoa_chassis.kafka.dead_letters import (
    ADDRESSEE_HEADER,
    DeadLetter,
    dead_letter_topic,
    original_headers,
    replay_headers,
)
from stoa_chassis.kafka.producer import CORRELATION_ID_HEADER, Producer, PublishFailed, Record
from stoa_chassis.kafka.topics import DeadLetterTopicMissing, TopicMissing, check_topics

__all__ = [
    "ADDRESSEE_HEADER",
    "CORRELATION_ID_HEADER",
    "Consumer",
    "DeadLetter",
    "DeadLetterTopicMissing",
    "Handler",
    "Membership",
    "OutOfGroup",
    "Producer",
    "PublishFailed",
    "Record",
    "RetryPolicy",
    "TopicMissing",
    "check_topics",
    "connection",
    "dead_letter_topic",
    "original_headers",
    "replay_headers",
]
