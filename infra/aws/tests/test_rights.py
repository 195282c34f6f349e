from typing import Any

from stoa_aws import rights
from stoa_aws.rights import Kind, Right
from stoa_contracts.declarations import Resources, Scale, Service


def declared(**values: Any) -> Service:
    nothing: dict[str, Any] = {
        "port": 150, "store": None, "publishes": (), "consumes": (), "calls": (), "secrets": (),
        "companies": (),
    }  # fmt: skip
    return Service(name="coupon", **(nothing | values), scale=Scale(1, 1), resources=Resources(64))


def named(found: Any, action: str, kind: Kind) -> set[str]:
    return {name for right in found if right.kind is kind and action in right.actions for name in right.names}


def test_a_service_writes_what_it_publishes_and_its_dead_letters() -> None:
    found = rights.of(declared(publishes=("coupon.made",), consumes=("order.placed",)))
    assert named(found, "WriteData", Kind.TOPIC) == {"coupon.made", "coupon.dlq"}
    assert Right(Kind.CLUSTER, ("WriteDataIdempotently",)) in found


def test_it_reads_what_it_consumes_as_its_own_group() -> None:
    found = rights.of(declared(consumes=("order.placed", "order.cancelled")))
    assert named(found, "ReadData", Kind.TOPIC) == {"order.placed", "order.cancelled"}
    assert named(found, "AlterGroup", Kind.GROUP) == {"coupon"}


def test_who_only_publishes_is_in_no_group() -> None:
    found = rights.of(declared(publishes=("coupon.made",)))
    assert not named(found, "AlterGroup", Kind.GROUP)
    assert not named(found, "ReadData", Kind.TOPIC)


def test_who_has_nothing_to_do_with_kafka_may_not_even_connect() -> None:
    assert rights.of(declared()) == ()
