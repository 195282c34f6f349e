import base64
from typing import Any
from uuid import uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_chassis.errors import InvalidArgument
from stoa_chassis.paging import decode_token, encode_token, page_size

values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
cursors = st.dictionaries(st.text(), values, max_size=4)


def refused_field(token: str, filters: dict[str, Any]) -> str:
    with pytest.raises(InvalidArgument) as refused:
        decode_token(token, filters)
    return refused.value.violations[0].field


@given(cursors, cursors)
def test_a_token_gives_back_its_cursor(cursor: dict[str, Any], filters: dict[str, Any]) -> None:
    assert decode_token(encode_token(cursor, filters), filters) == cursor


def test_no_token_is_the_first_page() -> None:
    assert decode_token("", {"category": "lamps"}) == {}


def test_ids_come_back_as_text() -> None:
    last = uuid4()
    assert decode_token(encode_token({"after": last}, {}), {}) == {"after": str(last)}


def test_a_token_of_a_list_with_other_filters_is_refused() -> None:
    token = encode_token({"after": 7}, {"category": "lamps"})
    assert refused_field(token, {"category": "chairs"}) == "page_token"


def test_the_order_of_filters_does_not_matter() -> None:
    token = encode_token({"after": 7}, {"category": "lamps", "brand": "x"})
    assert decode_token(token, {"brand": "x", "category": "lamps"}) == {"after": 7}


@given(st.text(min_size=1))
def test_a_made_up_token_is_refused(token: str) -> None:
    assert refused_field(token, {}) == "page_token"


@given(st.data())
def test_a_token_that_was_tampered_with_is_refused(data: st.DataObject) -> None:
    token = bytearray(base64.urlsafe_b64decode(encode_token({"after": 7}, {}) + "=="))
    position = data.draw(st.integers(0, len(token) - 1))
    token[position] ^= data.draw(st.integers(1, 255))
    assert refused_field(base64.urlsafe_b64encode(token).decode(), {}) == "page_token"


def test_a_token_without_a_signature_is_refused() -> None:
    body = orjson.dumps([{"after": 7}, "x"])
    assert refused_field(base64.urlsafe_b64encode(body).decode(), {}) == "page_token"


@pytest.mark.parametrize(("requested", "given_"), [(0, 20), (1, 1), (100, 100), (101, 100), (2**31 - 1, 100)])
def test_a_page_has_twenty_items_unless_asked_and_at_most_a_hundred(requested: int, given_: int) -> None:
    assert page_size(requested) == given_


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidArgument) as refused:
        page_size(-1)
    assert refused.value.violations[0].field == "page_size"
