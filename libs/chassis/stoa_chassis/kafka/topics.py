"""Whether the broker has the topics that a service needs: a deploy step makes them, no service does."""

import asyncio
from collections.abc import Iterable

import confluent_kafka
from confluent_kafka import KafkaException

from stoa_chassis.errors import Unavailable
from stoa_chassis.kafka.connection import connection
from stoa_chassis.kafka.dead_letters import dead_letter_topic

_REQUEST_SECONDS = 5.0


class TopicMissing(Exception):
    """The deploy step that makes a topic has not run."""


class DeadLetterTopicMissing(TopicMissing):
    """A consumer group has nowhere to park messages: the first bad one would stop it for ever."""


async def check_topics(bootstrap: str, topics: Iterable[str] = (), group: str = "") -> None:
    """Look whether the broker has these topics and, if a group is given, its dead-letter topic.

    Raises TopicMissing, DeadLetterTopicMissing, or Unavailable while the broker can't be reached.
    """
    existing = await asyncio.to_thread(_existing, bootstrap)
    if group and dead_letter_topic(group) not in existing:
        raise DeadLetterTopicMissing(
            f"the consumer group {group} has no topic {dead_letter_topic(group)}; it does not start without"
        )
    if missing := sorted(set(topics) - existing):
        raise TopicMissing(f"the broker has no topic {', '.join(missing)}")


def _existing(bootstrap: str) -> set[str]:
    try:
        return set(
            confluent_kafka.Producer(connection(bootstrap)).list_topics(timeout=_REQUEST_SECONDS).topics
        )
    except KafkaException as error:
        raise Unavailable(f"the broker can't be reached: {error}") from error
