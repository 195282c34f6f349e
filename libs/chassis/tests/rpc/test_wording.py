"""What is said of a field that is wrong."""

from typing import Any

import pytest
from chassis_example.echo_pb2 import (
    EchoRequest,
    Nest,
    NestRequest,
    NoFormRequest,
    NoMessageRequest,
    NoWordsRequest,
    Part,
    PutRequest,
    Thing,
    WordsRequest,
)
from chassis_example.echo_pb2_grpc import EchoStub
from google.protobuf.message import Message

from stoa_chassis.auth import ContractError
from stoa_chassis.errors import FieldViolation, InvalidArgument, RemoteError
from stoa_chassis.testing import InProcessServer
from stoa_chassis.validation import RequestCheck

ID = "01900000-0000-7000-8000-000000000000"
RIGHT: dict[str, Any] = {
    "needed": "x",
    "long": "xx",
    "exact": "x",
    "code": "US",
    "id": ID,
    "email": "a@example.com",
    "range": 1,
    "above": 1,
    "least": 1,
    "inside": 1,
    "not_zero": 1,
    "even": 2,
    "tags": ["x"],
    "pair": ["x", "y"],
    "part": Part(),
    "by_name": "x",
    "picked": "red",
}


def said(**changes: Any) -> list[tuple[str, str]]:
    """What is wrong with a request that is right but for these fields; None leaves one out."""
    given = {name: value for name, value in (RIGHT | changes).items() if value is not None}
    with pytest.raises(InvalidArgument) as refused:
        RequestCheck(WordsRequest)(WordsRequest(**given))
    return [(violation.field, violation.description) for violation in refused.value.violations]


def test_a_request_that_is_right_passes() -> None:
    RequestCheck(WordsRequest)(WordsRequest(**RIGHT))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("needed", None, "is missing"),
        ("needed", "x" * 6, "must be at most 5 characters"),
        ("long", "x", "must be at least 2 characters"),
        ("long", None, "is missing"),
        ("exact", "xx", "must be 1 character"),
        ("code", "us", "must be two capital letters"),
        ("code", None, "is missing"),
        ("code", "usa", "must be at most 2 characters"),
        ("code", "U\nS", "must be a single line"),
        ("choice", "pink", "must be red, green or blue"),
        ("one_choice", "pink", "must be red"),
        ("picked", None, "must be red"),
        ("not_root", "root", "must not be root"),
        ("id", "lamp", "must be a UUID"),
        ("id", None, "is missing"),
        ("email", "nowhere", "must be an email address, such as ada@example.com"),
        ("email", None, "is missing"),
        ("email", "x" * 21, "must be at most 20 characters"),
        ("patch", "", "must not be empty"),
        ("range", 0, "must be between 1 and 1,000"),
        ("above", 0, "must be more than 0"),
        ("least", 0, "must be at least 1"),
        ("inside", 1.5, "must be more than 0.0 and less than 1.5"),
        ("most", 1_000_001, "must be at most 1,000,000"),
        ("not_zero", 0, "must not be 0"),
        ("even", 3, "must be 2, 4 or 1,000"),
        ("shape", 7, "must be SHAPE_ROUND, SHAPE_FLAT or SHAPE_LONG"),
        ("tags", None, "must not be empty"),
        ("tags", ["x", "y", "z"], "must have at most 2 entries"),
        ("tags", ["x", "x"], "must not have the same entry twice"),
        ("pair", ["x"], "must have at least 2 entries"),
        ("labels", {"x": "y", "y": "y"}, "must have at most 1 entry"),
        ("part", None, "is missing"),
        ("whole", Part(name="half"), "must be whole"),
        ("raw", b"xx", "must be at most 1 byte"),
    ],
)
def test_each_rule_says_what_to_do(field: str, value: Any, words: str) -> None:
    assert said(**{field: value}) == [(field, words)]


def test_an_element_is_named_with_its_place() -> None:
    assert said(tags=["", "long"]) == [
        ("tags[0]", "must not be empty"),
        ("tags[1]", "must be at most 3 characters"),
    ]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"x": ""}, ('labels["x"]', "must not be empty")),
        ({"": "x"}, ('labels[""]', "its name must not be empty")),
        ({"long": "x"}, ('labels["long"]', "its name must be at most 3 characters")),
    ],
)
def test_a_name_of_a_map_is_told_from_its_value(labels: dict[str, str], words: tuple[str, str]) -> None:
    assert said(labels=labels) == [words]


def test_a_choice_of_fields_names_them() -> None:
    assert said(by_name=None) == [("by_name", "is missing: give by_name or by_id")]
    assert said(by_name=None, by_id="") == [("by_id", "must not be empty")]


def test_a_field_that_is_wrong_in_many_ways_is_named_once() -> None:
    assert said(labels={"": ""}) == [('labels[""]', "its name must not be empty")]
    assert said(email="x\nx" * 10) == [("email", "must be a single line")]


@pytest.mark.parametrize(
    ("request_type", "complaint"),
    [
        (NoFormRequest, r"NoFormRequest\.Inner\.codes has a pattern, but no words"),
        (NoWordsRequest, r"NoWordsRequest\.hosts: .* no words for string\.hostname"),
        (NoMessageRequest, r"NoMessageRequest\.text has an expression without a message"),
    ],
)
def test_a_constraint_without_words_keeps_a_server_from_starting(
    request_type: type[Message], complaint: str
) -> None:
    with pytest.raises(ContractError, match=complaint):
        RequestCheck(request_type)


async def test_a_field_of_the_body_goes_without_the_name_of_the_body(echo: InProcessServer) -> None:
    async def told(request: PutRequest) -> tuple[list[str], str]:
        with pytest.raises(RemoteError) as refused:
            await echo.stub(EchoStub).Put(request)
        return [violation.field for violation in refused.value.violations], refused.value.message

    thing = Thing(size=11, inside=[Thing(size=11)])
    assert await told(PutRequest(thing=thing)) == (
        ["size", "inside[0].size"],
        "size: must be at most 10; inside[0].size: must be at most 10",
    )
    assert await told(PutRequest()) == (["body"], "body: is missing")
    for named_by_a_model, told_as in {"thing.id": "id", "text": "text", "thing": "body", "": ""}.items():
        assert (await told(PutRequest(text=named_by_a_model, thing=Thing())))[0] == [told_as]
    with pytest.raises(RemoteError) as refused:
        await echo.stub(EchoStub).Anyone(EchoRequest(thing=Thing(size=11)))
    assert [violation.field for violation in refused.value.violations] == ["thing.size"]


def test_a_list_that_is_too_long_is_all_that_is_said() -> None:
    assert said(tags=["x", "x", "long"], code="us") == [("tags", "must have at most 2 entries")]
    assert said(labels={"x": "", "y": ""}, code="us") == [("labels", "must have at most 1 entry")]
    eggs = [Nest(eggs=["x"] * count) for count in (3, 4, 5)]
    nested = NestRequest(nests={"a": Nest(), "b": eggs[0]}, list=[eggs[1]], alone=eggs[2], size=11)
    with pytest.raises(InvalidArgument) as refused:
        RequestCheck(NestRequest)(nested)
    too_long = {'nests["b"].eggs', "list[0].eggs", "alone.eggs"}
    assert {violation.field for violation in refused.value.violations} == too_long


def test_what_is_wrong_with_a_request_as_a_whole_has_no_field() -> None:
    with pytest.raises(InvalidArgument) as refused:
        RequestCheck(NestRequest)(NestRequest(size=7))
    assert refused.value.violations == (FieldViolation("", "must not be of size 7"),)


def test_no_more_than_a_hundred_wrong_fields_are_put_into_words() -> None:
    request = EchoRequest(things=[Thing(size=11) for _ in range(250)])
    with pytest.raises(InvalidArgument) as refused:
        RequestCheck(EchoRequest)(request)
    assert (len(refused.value.violations), refused.value.unnamed) == (100, 150)


def test_a_name_is_not_told_at_its_full_length() -> None:
    short, words = "k" * 64, "its name must be at most 3 characters"
    assert said(labels={short: "x"}) == [(f'labels["{short}"]', words)]
    assert said(labels={f"{short}k": "x"}) == [(f'labels["{short}…"]', words)]
