import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_chassis import paging
from stoa_chassis.errors import InvalidArgument
from stoa_chassis.paging import (
    Page,
    PageTokenKeyMissing,
    check_key,
    decode_token,
    encode_token,
    page,
    page_size,
)

SECRETS = ("page_token_key", "database_url", "mongo_url", "redis_url", "opensearch_url")
KEY = paging._key  # in the place of which tests get another: see testing_stores
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


def test_decimals_come_back_as_text() -> None:
    assert decode_token(encode_token({"after": Decimal("9.90")}, {}), {}) == {"after": "9.90"}


def test_a_token_of_a_list_with_other_filters_is_refused() -> None:
    token = encode_token({"after": 7}, {"category": "lamps"})
    assert refused_field(token, {"category": "chairs"}) == "page_token"
    with pytest.raises(InvalidArgument, match="other filters"):
        decode_token(token, {})


def test_a_list_can_be_filtered_by_a_price() -> None:
    cheap, dear = {"max_price": Decimal("9.99")}, {"max_price": Decimal("99.99")}
    token = encode_token({"after": 7}, cheap)
    assert decode_token(token, cheap) == {"after": 7}
    assert refused_field(token, dear) == "page_token"


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


@pytest.fixture
def signed_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Let tokens be signed as by a service with these settings, and no others."""

    def set_up(**settings: str) -> None:
        for name in SECRETS:
            monkeypatch.setenv(f"STOA_{name.upper()}", settings.get(name, ""))
        KEY.cache_clear()

    monkeypatch.setattr(paging, "_key", KEY)
    yield set_up
    KEY.cache_clear()


@pytest.mark.parametrize("setting", SECRETS)
def test_a_token_is_signed_with_a_secret_that_no_client_knows(
    setting: str, signed_with: Callable[..., None]
) -> None:
    signed_with(**{setting: "postgresql://order:secret@store/order"})
    token = encode_token({"after": 7}, {})
    assert decode_token(token, {}) == {"after": 7}
    signed_with(**{setting: "postgresql://order:guessed@store/order"})
    assert refused_field(token, {}) == "page_token"


def test_without_a_secret_no_token_is_signed_or_taken(signed_with: Callable[..., None]) -> None:
    signed_with()
    for use in (check_key, lambda: encode_token({"after": 7}, {}), lambda: decode_token("made-up", {})):
        with pytest.raises(PageTokenKeyMissing, match="STOA_PAGE_TOKEN_KEY is not set"):
            use()
    assert decode_token("", {}) == {}


def test_a_key_that_is_set_goes_before_the_address_of_the_store(signed_with: Callable[..., None]) -> None:
    signed_with(page_token_key="key", database_url="here")
    token = encode_token({"after": 7}, {})
    signed_with(page_token_key="key", database_url="moved")
    assert decode_token(token, {}) == {"after": 7}


def test_a_token_of_an_older_process_is_good(signed_with: Callable[..., None]) -> None:
    signed_with(page_token_key="key")
    token = encode_token({"after": 7}, {"category": "lamps"})
    assert token == "Gay6KcMOC7hLSaY4bs6QL1t7ImFmdGVyIjo3fSwiZTI5OTJkYzM0ZWJhNjcyNjQ2ZTYyOWYyIl0"
    assert decode_token(token, {"category": "lamps"}) == {"after": 7}


def test_a_token_is_the_same_for_everybody_and_can_stand_in_a_url() -> None:
    token = encode_token({"after": "~" * 100}, {"name": "ä" * 50})
    assert token == encode_token({"after": "~" * 100}, {"name": "ä" * 50})
    assert token.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize("token", ["a", "ab", "a" * 22, "=", "a+/=", "A" * 21 + "=="])
def test_what_is_too_short_or_no_base64_at_all_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match="not a token that this list gave out"):
        decode_token(token, {})


@pytest.mark.parametrize("sign", ["!", "\n", " ", "."])
def test_a_token_with_signs_among_it_that_are_no_base64_is_refused(sign: str) -> None:
    token = encode_token({"after": 7}, {})
    assert refused_field(f"{token[:8]}{sign * 4}{token[8:]}", {}) == "page_token"


@pytest.mark.parametrize(("requested", "given_"), [(0, 20), (1, 1), (100, 100), (101, 100), (2**31 - 1, 100)])
def test_a_page_has_twenty_items_unless_asked_and_at_most_a_hundred(requested: int, given_: int) -> None:
    assert page_size(requested) == given_


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidArgument) as refused:
        page_size(-1)
    assert refused.value.violations[0].field == "page_size"


# ----------------------------------------------------------------------------------------------- whole pages


@dataclass(frozen=True)
class Request:
    """A request for a page of a list of numbers."""

    page_size: int = 0
    page_token: str = ""


class OtherRequest(Request):
    """A request for a page of another list of the same service."""


class Numbers:
    """A list of numbers, and which reads of it a page took."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.reads: list[tuple[Mapping[str, Any], int]] = []

    async def page(self, request: Request, **filters: str) -> Page[int]:
        return await page(request, filters, self._read, lambda number: {"after": number})

    async def _read(self, after: Mapping[str, Any], limit: int) -> list[int]:
        self.reads.append((after, limit))
        first = after["after"] + 1 if after else 0
        return list(range(first, self.count))[:limit]


async def test_pages_follow_each_other_to_the_end_of_the_list() -> None:
    numbers, found, token = Numbers(7), [], ""
    while True:
        answer = await numbers.page(Request(3, token))
        found.append(list(answer.items))
        if not (token := answer.next_page_token):
            break
    assert found == [[0, 1, 2], [3, 4, 5], [6]]
    assert numbers.reads == [({}, 4), ({"after": 2}, 4), ({"after": 5}, 4)]


async def test_a_page_follows_one_that_an_older_process_answered(signed_with: Callable[..., None]) -> None:
    signed_with(page_token_key="key")
    numbers = Numbers(7)
    token = "jwz9-L7FEob3g_x_4QwYo1t7ImFmdGVyIjoyfSwiOGNlYTYxMTViNmQ0ZjI1OWM2ZDU4NjQ1Il0"
    assert (await numbers.page(Request(3), of="Ann")).next_page_token == token
    assert (await numbers.page(Request(3, token), of="Ann")).items == [3, 4, 5]


@pytest.mark.parametrize(("count", "size"), [(0, 3), (3, 3), (2, 3), (20, 0), (100, 1000)])
async def test_a_list_that_fits_on_a_page_has_no_next_one(count: int, size: int) -> None:
    answer = await Numbers(count).page(Request(size))
    assert (list(answer.items), answer.next_page_token) == (list(range(count)), "")


@pytest.mark.parametrize(("asked", "size"), [(0, 20), (1000, 100)])
async def test_a_page_has_the_default_size_and_at_most_the_greatest(asked: int, size: int) -> None:
    answer = await Numbers(101).page(Request(asked))
    assert len(answer.items) == size
    assert answer.next_page_token


async def test_a_page_of_a_list_with_other_filters_or_of_no_size_is_not_read() -> None:
    numbers = Numbers(7)
    token = (await numbers.page(Request(3), of="Ann")).next_page_token
    for request in (Request(3, token), Request(-1)):
        with pytest.raises(InvalidArgument):
            await numbers.page(request, of="Bo")
    assert len(numbers.reads) == 1


async def test_a_page_of_another_list_with_the_same_filters_is_not_read() -> None:
    numbers = Numbers(7)
    token = (await numbers.page(Request(3), of="Ann")).next_page_token
    with pytest.raises(InvalidArgument) as refused:
        await numbers.page(OtherRequest(3, token), of="Ann")
    assert refused.value.violations[0].field == "page_token"
    assert len(numbers.reads) == 1
