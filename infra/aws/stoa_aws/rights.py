"""What a service may do at Kafka, out of its declaration: nothing that it does not publish or consume.

MSK knows a client by its IAM role. The actions are those that a producer with idempotence and a consumer in a
group need (https://docs.aws.amazon.com/msk/latest/developerguide/kafka-actions.html).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from stoa_contracts.declarations import Service


class Kind(StrEnum):
    """What a right is of, as it stands in the ARN."""

    CLUSTER = "cluster"
    TOPIC = "topic"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class Right:
    """Some actions on some resources of one kind; the cluster itself has no names."""

    kind: Kind
    actions: tuple[str, ...]
    names: tuple[str, ...] = ()


_CONNECT = Right(Kind.CLUSTER, ("Connect", "DescribeCluster"))
_LOOK = ("DescribeTopic", "DescribeTopicDynamicConfiguration")
EVERYTHING = ("*",)

OPERATORS: Sequence[Right] = (
    Right(Kind.CLUSTER, ("Connect", "DescribeCluster", "WriteDataIdempotently")),
    Right(
        Kind.TOPIC,
        (*_LOOK, "CreateTopic", "AlterTopicDynamicConfiguration", "ReadData", "WriteData"),
        EVERYTHING,
    ),
    Right(Kind.GROUP, ("DescribeGroup", "AlterGroup"), EVERYTHING),
)
"""Those of the image `ops`: it makes topics, reads all of them, and replays dead letters."""


def of(service: Service) -> Sequence[Right]:
    """The rights of a service; none if it has nothing to do with Kafka."""
    writes = sorted({*service.publishes, *([service.dead_letters] if service.dead_letters else [])})
    reads = sorted(service.consumes)
    if not writes and not reads:
        return ()
    rights = [_CONNECT]
    if writes:
        rights.append(Right(Kind.CLUSTER, ("WriteDataIdempotently",)))
        rights.append(Right(Kind.TOPIC, (*_LOOK, "WriteData"), tuple(writes)))
    if reads:
        rights.append(Right(Kind.TOPIC, (*_LOOK, "ReadData"), tuple(reads)))
        rights.append(Right(Kind.GROUP, ("DescribeGroup", "AlterGroup"), (service.name,)))
    return rights
