"""What the deploy step creates follows from the contracts and the declarations."""

from stoa_ops import deploy


def test_a_topic_is_kept_as_long_as_its_contract_says_or_as_all_are() -> None:
    topics = deploy.wanted_topics()
    week, hour = str(7 * 24 * 3_600_000), str(3_600_000)
    assert topics["user.registered"].config == {"retention.ms": week}
    for secret in ("user.password_reset_requested", "user.email_verification_requested"):
        assert topics[secret].config == {"retention.ms": hour, "segment.ms": hour}


def test_topics_are_those_of_the_declarations_with_dead_letters_for_who_consumes() -> None:
    topics = deploy.wanted_topics()
    assert {"order.placed", "product.viewed", "order.dlq", "cart.dlq"} <= topics.keys()
    assert "user.dlq" not in topics  # it consumes nothing


def test_events_are_handled_four_at_a_time_and_dead_letters_lie_in_one_row() -> None:
    topics = deploy.wanted_topics()
    assert topics["order.placed"].partitions == 4
    assert topics["order.dlq"].partitions == 1
