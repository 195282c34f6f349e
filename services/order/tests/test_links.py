"""Whoever has the link of an order reads that order, for as long as the link lasts."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import timedelta
from uuid import UUID

import pytest

from stoa_chassis.ids import new_id
from stoa_order.links import GuestLinks
from stoa_order.testing import LINKS, NOW

MAILED = UUID("01234567-89ab-7def-8123-456789abcdef")


def test_a_link_leads_to_its_order_until_it_expires() -> None:
    order_id = new_id()
    secret = LINKS.secret(order_id, NOW)
    assert LINKS.secret(order_id, NOW) == secret
    for days, found in ((0, order_id), (365, order_id), (366, None)):
        assert LINKS.order_of(secret, NOW + timedelta(days=days)) == found


def test_a_link_that_was_mailed_once_leads_to_its_order_after_every_release() -> None:
    secret = "ASNFZ4mrfe-BI0VniavN7wAAUpwUDGGfu4HsMXPeL_hcbipb"
    assert LINKS.order_of(secret, NOW) == MAILED
    assert LINKS.secret(MAILED, NOW) == secret


def test_a_link_lasts_until_the_end_of_its_last_day() -> None:
    secret = LINKS.secret(MAILED, NOW)
    midnight = NOW.replace(hour=0) + LINKS.lifetime + timedelta(days=1)
    assert LINKS.order_of(secret, midnight - timedelta(microseconds=1)) == MAILED
    assert LINKS.order_of(secret, midnight) is None


def test_a_link_fits_into_a_path() -> None:
    assert all(LINKS.secret(new_id(), NOW).replace("-", "a").replace("_", "a").isalnum() for _ in range(50))


@pytest.mark.parametrize("made_up", ["", "a", "!!!", "a" * 48, "a" * 200])
def test_a_made_up_link_leads_nowhere(made_up: str) -> None:
    assert LINKS.order_of(made_up, NOW) is None


def test_no_bit_of_a_link_can_be_changed() -> None:
    sealed = urlsafe_b64decode(LINKS.secret(new_id(), NOW))
    for position in range(len(sealed)):
        changed = bytes(byte ^ (place == position) for place, byte in enumerate(sealed))
        assert LINKS.order_of(urlsafe_b64encode(changed).decode(), NOW) is None


def test_links_of_another_key_lead_nowhere_and_without_a_key_there_are_none() -> None:
    other = GuestLinks("another key", LINKS.lifetime)
    assert LINKS.order_of(other.secret(new_id(), NOW), NOW) is None
    with pytest.raises(ValueError, match="guest_link_key"):
        GuestLinks("", LINKS.lifetime)
    assert "the key" not in repr(LINKS)
