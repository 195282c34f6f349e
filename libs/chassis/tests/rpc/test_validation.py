"""What a request must be like before a servicer sees it."""

from contextlib import suppress
from unicodedata import normalize

import grpc
import protovalidate
import pytest
from chassis_example.echo_pb2 import (
    Address,
    Box,
    BoxRequest,
    EchoRequest,
    EchoResponse,
    Hollow,
    NoTextRequest,
    Part,
    PartlyAnAddress,
    Thing,
)
from chassis_example.echo_pb2_grpc import EchoStub
from hypothesis import given
from hypothesis import strategies as st

from stoa_chassis.auth import ContractError
from stoa_chassis.errors import Code, InvalidArgument, RemoteError
from stoa_chassis.testing import InProcessServer
from stoa_chassis.validation import RequestCheck
from stoa_contracts.declarations import EDGE


async def refusal(echo: InProcessServer, request: EchoRequest) -> RemoteError:
    with pytest.raises(RemoteError) as refused:
        await echo.stub(EchoStub).Anyone(request)
    assert (refused.value.code, refused.value.reason) == (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    return refused.value


async def violations(echo: InProcessServer, request: EchoRequest) -> dict[str, str]:
    refused = await refusal(echo, request)
    return {violation.field: violation.description for violation in refused.violations}


async def test_all_fields_that_are_wrong_are_named(echo: InProcessServer) -> None:
    request = EchoRequest(
        text="x" * 101,
        quantity=-1,
        things=[Thing(), Thing(size=11)],
        by_name={"a b": Thing(size=12)},
    )
    found = await violations(echo, request)
    assert set(found) == {"text", "quantity", "things[1].size", 'by_name["a b"].size'}
    assert found["text"] == "must be at most 100 characters"


async def test_what_the_server_computes_may_be_sent_back(echo: InProcessServer) -> None:
    request = EchoRequest(text="fine", thing=Thing(id="1", part=Part(price=0.01), inside=[Thing(id="2")]))
    assert (await echo.stub(EchoStub).Anyone(request)).text == "fine"


CONTROL = "must not contain control characters"


async def test_no_text_of_a_request_has_control_characters(echo: InProcessServer) -> None:
    request = EchoRequest(
        user_id="a\x00b",
        text="two\nlines",
        story="Chapter 1\r\n\tIt was\x1b[31m dark.",
        thing=Thing(owner_id="\x7f", part=Part(name="x\ty"), inside=[Thing(owner_id="fine")]),
        things=[Thing(), Thing(inside=[Thing(part=Part(name="\u0085"))])],
        by_name={"a\tb": Thing(owner_id="c\rd")},
        tags=["good", "b\x08d"],
        labels={"k": "one\ntwo", "n\nm": "v"},
    )
    assert await violations(echo, request) == {
        "user_id": CONTROL,
        "text": "must be a single line",
        "story": CONTROL,
        "thing.owner_id": CONTROL,
        "thing.part.name": CONTROL,
        "things[1].inside[0].part.name": CONTROL,
        'by_name["a\tb"]': CONTROL,
        'by_name["a\tb"].owner_id': "must be a single line",
        "tags[1]": CONTROL,
        'labels["n\nm"]': "must be a single line",
    }


async def test_a_text_may_have_several_lines_where_its_field_says_so(echo: InProcessServer) -> None:
    request = EchoRequest(text="naïve \u200d 🛒", story="One.\r\n\n\tTwo.", labels={"k": "a\nb"})
    assert (await echo.stub(EchoStub).Anyone(request)).text == request.text


async def test_a_text_may_show_nothing_unless_its_field_says_otherwise(echo: InProcessServer) -> None:
    blank = EchoRequest(text="\u200d", title="\u2062\u200d", tags=["", "\u200e"])
    assert await violations(echo, blank) == dict.fromkeys(("title", "tags[1]"), "must not be blank")
    assert (await echo.stub(EchoStub).Anyone(EchoRequest(title="", tags=["x\u200d"]))).text == ""


@pytest.mark.parametrize("blank", [" ", "\t", "\r\n", "\u00a0", "\u3000", "\u200b", "\ufeff", " \u2028 "])
def test_blanks_around_a_text_do_not_count(blank: str) -> None:
    def around(text: str) -> str:
        return f"{blank}{text}{blank}"

    request = EchoRequest(
        text=around("x" * 100),  # the most that it takes
        story=around("One.\n\nTwo."),
        title=around(""),
        thing=Thing(owner_id=around("o"), id=around("computed"), part=Part(name=around("of two"))),
        things=[Thing(inside=[Thing(owner_id=around("deep"))])],
        by_name={around("k"): Thing(owner_id=around("o"), size=3)},
        tags=["fine", around("new")],
        labels={around("colour"): around("dark blue"), "size": "L"},
        secret=around("secret"),
    )
    RequestCheck(EchoRequest)(request)
    assert request == EchoRequest(
        text="x" * 100,
        story="One.\n\nTwo.",
        thing=Thing(owner_id="o", id=around("computed"), part=Part(name="of two")),
        things=[Thing(inside=[Thing(owner_id="deep")])],
        by_name={"k": Thing(owner_id="o", size=3)},
        tags=["fine", "new"],
        labels={"colour": "dark blue", "size": "L"},
        secret=around("secret"),
    )


def test_a_text_is_put_in_order_however_far_inside_it_is() -> None:
    request = BoxRequest(boxes=[Box(), Box(part=Part(name=" lamp "))], hollow=Hollow(inside=Hollow()))
    RequestCheck(BoxRequest)(request)
    assert request.boxes[1].part.name == "lamp"


def test_what_looks_the_same_is_the_same() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    request = EchoRequest(
        text=decomposed, tags=[decomposed], labels={decomposed: decomposed}, secret=decomposed
    )
    RequestCheck(EchoRequest)(request)
    assert (request.text, list(request.tags), dict(request.labels)) == (
        composed,
        [composed],
        {composed: composed},
    )
    assert request.secret == decomposed


@given(st.text())
def test_a_text_in_order_stays_as_it_is(text: str) -> None:
    request, check = EchoRequest(story=text, title="."), RequestCheck(EchoRequest)
    with suppress(InvalidArgument):
        check(request)
    once = request.story
    with suppress(InvalidArgument):
        check(request)
    assert request.story == once
    assert once == normalize("NFC", once)
    assert not once.startswith(" ")
    assert not once.endswith((" ", "\n"))


async def test_two_names_that_are_the_same_in_order_are_refused(echo: InProcessServer) -> None:
    request = EchoRequest(labels={"colour": "red", " colour": "blue"}, by_name={"k": Thing(), "k ": Thing()})
    assert await violations(echo, request) == dict.fromkeys(
        ('labels["colour"]', 'by_name["k"]'), "is there twice"
    )


async def test_a_field_has_one_complaint(echo: InProcessServer) -> None:
    found = await refusal(echo, EchoRequest(text="x" * 101 + "\x00"))
    assert [violation.field for violation in found.violations] == ["text"]


async def test_an_address_is_one_of_its_country(echo: InProcessServer) -> None:
    good = Address(line1="1 Elm Street", city="Boston", region="MA ", postal_code=" 02108", country="US")
    assert (await echo.stub(EchoStub).Anyone(EchoRequest(addresses=[good]))).text == ""
    bad = Address(line1="1 Elm Street", city="Boston", region="MA", country="US")
    assert await violations(echo, EchoRequest(addresses=[good, bad])) == {
        "addresses[1].postal_code": "must not be empty in an address of the United States"
    }


def test_an_address_must_have_the_parts_of_one() -> None:
    with pytest.raises(ContractError, match=r"PartlyAnAddress .* no line1, postal_code, region"):
        RequestCheck(PartlyAnAddress)


async def test_a_text_is_taken_verbatim_where_its_field_says_so(echo: InProcessServer) -> None:
    assert (await echo.stub(EchoStub).Anyone(EchoRequest(text="a", secret="\n\x00\u0085"))).text == "a"


async def test_what_the_server_computes_is_not_read(echo: InProcessServer) -> None:
    assert (await echo.stub(EchoStub).Anyone(EchoRequest(text="a", thing=Thing(id="\n")))).text == "a"


async def test_a_text_that_can_only_be_a_uuid_has_one_complaint(echo: InProcessServer) -> None:
    assert await violations(echo, EchoRequest(ids=["\n"])) == {"ids[0]": "must be a UUID"}


def test_a_request_on_which_a_constraint_fails_is_refused_without_naming_a_field(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check = RequestCheck(EchoRequest)

    def fail(*_: object, **__: object) -> None:
        raise protovalidate.EvaluationError("division by zero")

    monkeypatch.setattr(protovalidate.Validator, "collect_violations", fail)
    with pytest.raises(InvalidArgument, match="can't be checked") as refused:
        check(EchoRequest())
    assert [violation.field for violation in refused.value.violations] == [""]


def test_a_field_without_text_cannot_say_what_its_text_may_be() -> None:
    with pytest.raises(ContractError, match=r"NoTextRequest\.part"):
        RequestCheck(NoTextRequest)


@pytest.mark.parametrize(
    "nonsense",
    [b"\xff\xff\xff", b"\x0a\x02\xc3\x28", b"\x12\x05ab", b"\x22\x03\x0a\x01\xff"],
    ids=["no message", "wrong utf-8", "cut off", "wrong utf-8 inside"],
)
async def test_nonsense_bytes_are_the_clients_error(echo: InProcessServer, nonsense: bytes) -> None:
    credentials = echo.certificates(EDGE).current().channel_credentials()
    options = (("grpc.ssl_target_name_override", f"{echo.name}.stoa.internal"),)
    async with grpc.aio.secure_channel(echo.target, credentials, options) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = channel.unary_unary("/chassis_example.Echo/Anyone")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(nonsense)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        answer = await call(b"")
        assert EchoResponse.FromString(answer) == EchoResponse()


async def test_a_huge_request_is_the_clients_error(echo: InProcessServer) -> None:
    with pytest.raises(RemoteError) as refused:
        await echo.stub(EchoStub).Anyone(EchoRequest(text="x" * 5_000_000))
    assert refused.value.code is Code.RESOURCE_EXHAUSTED


async def test_a_stream_is_checked_as_well(echo: InProcessServer) -> None:
    with pytest.raises(RemoteError) as refused:
        _ = [item async for item in echo.stub(EchoStub).Count(EchoRequest(quantity=2))]
    assert refused.value.reason == "TOKEN_MISSING"
    stub = echo.stub(EchoStub, as_user="ann")
    with pytest.raises(RemoteError, match="quantity"):
        _ = [item async for item in stub.Count(EchoRequest(quantity=100))]
    assert [item.text async for item in stub.Count(EchoRequest(quantity=3))] == ["0", "1", "2"]
