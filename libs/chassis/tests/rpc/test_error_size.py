"""An error as it travels: what it is, and that it fits whatever it says."""

import asyncio
import base64
from datetime import timedelta
from urllib.parse import quote

import grpc
import pytest
from chassis_example.echo_pb2 import EchoRequest, Thing
from chassis_example.echo_pb2_grpc import EchoStub
from google.rpc import code_pb2, error_details_pb2, status_pb2

from stoa_chassis import errors
from stoa_chassis.errors import Code, DomainError, FieldViolation, InvalidArgument, RemoteError
from stoa_chassis.status import answer, code_of, from_rpc_error, to_status
from stoa_chassis.testing import InProcessServer

LIMIT = 8_000  # bytes of headers, of which gRPC's clients take 8 kB


def header_size(error: DomainError) -> int:
    """What the error takes in headers."""
    status = to_status(error)
    message = quote(status.message, safe="".join(map(chr, range(0x20, 0x7F))).replace("%", ""))
    return len(message) + len(base64.b64encode(status.SerializeToString()))


def details(error: DomainError) -> tuple[error_details_pb2.ErrorInfo, list[FieldViolation], timedelta | None]:
    status = to_status(error)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    kinds = (info, bad, retry)
    unpacked = [kind for each in status.details for kind in kinds if each.Unpack(kind)]
    assert len(unpacked) == len(status.details)
    violations = [FieldViolation(each.field, each.description) for each in bad.field_violations]
    given = any(kind is retry for kind in unpacked)
    return info, violations, retry.retry_delay.ToTimedelta() if given else None


def test_the_codes_are_the_canonical_ones() -> None:
    assert {code.name: code.value for code in Code} == dict(code_pb2.Code.items())
    assert all(code_of(grpc.StatusCode[code.name]) is code for code in Code)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.NotFound, Code.NOT_FOUND),
        (errors.AlreadyExists, Code.ALREADY_EXISTS),
        (errors.FailedPrecondition, Code.FAILED_PRECONDITION),
        (errors.PermissionDenied, Code.PERMISSION_DENIED),
        (errors.Unauthenticated, Code.UNAUTHENTICATED),
        (errors.Aborted, Code.ABORTED),
        (errors.Unavailable, Code.UNAVAILABLE),
        (errors.ResourceExhausted, Code.RESOURCE_EXHAUSTED),
        (DomainError, Code.UNKNOWN),
    ],
)
def test_an_error_that_says_no_more_says_what_it_is(kind: type[DomainError], code: Code) -> None:
    error = kind()
    assert (error.code, error.reason, error.domain) == (code, code.name, "stoa")
    assert error.message == str(error) == code.name.replace("_", " ").lower()
    assert (error.metadata, error.violations, error.retry_after) == ({}, (), None)


def test_an_error_keeps_what_it_was_given() -> None:
    given = {"left": "2"}
    wrong = FieldViolation("size", "must be less")
    error = errors.NotFound("gone", metadata=given, violations=[wrong], retry_after=timedelta(seconds=2))
    given["left"] = "3"
    assert (error.message, error.metadata, error.violations) == ("gone", {"left": "2"}, (wrong,))
    info, violations, retry_after = details(error)
    assert (info.reason, info.domain, dict(info.metadata)) == ("NOT_FOUND", "stoa", {"left": "2"})
    assert (violations, retry_after) == ([wrong], timedelta(seconds=2))


def test_what_another_service_said_is_kept_and_passed_on() -> None:
    wrong = FieldViolation("token", "is a card number")
    error = RemoteError(
        "payment",
        "/p/M",
        Code.FAILED_PRECONDITION,
        "CARD_DECLINED",
        "no",
        metadata={"a": "b"},
        violations=[wrong],
        retry_after=timedelta(seconds=3),
    )
    assert (error.target, error.method, error.code) == ("payment", "/p/M", Code.FAILED_PRECONDITION)
    assert answer(error) is error
    info, violations, retry_after = details(error)
    assert (info.reason, dict(info.metadata), violations) == ("CARD_DECLINED", {"a": "b"}, [wrong])
    assert (to_status(error).message, retry_after) == ("no", timedelta(seconds=3))


def test_whoever_finds_us_down_is_told_when_to_come_back() -> None:
    assert details(errors.Unavailable())[2] == timedelta(seconds=1)
    assert details(errors.Unavailable(retry_after=timedelta(seconds=5)))[2] == timedelta(seconds=5)
    assert details(errors.ResourceExhausted())[2] is None


def test_a_wrong_field_is_named_in_the_message_too() -> None:
    error = InvalidArgument("size", "must be less")
    assert error.message == str(error) == "size: must be less"
    assert error.code is Code.INVALID_ARGUMENT
    assert InvalidArgument("", "must be smaller as a whole").message == "must be smaller as a whole"


def test_several_wrong_fields_are_one_error() -> None:
    wrong = [FieldViolation(name, "is missing") for name in "abcdefg"]
    assert InvalidArgument.of(wrong[:2]).message == "a: is missing; b: is missing"
    error = InvalidArgument.of(iter(wrong))
    assert error.violations == tuple(wrong)
    assert error.message == str(error)
    assert error.message.endswith("e: is missing; and 2 more")
    assert InvalidArgument.of(wrong[:5]).message.endswith("; e: is missing")


def test_fields_get_other_names_in_all_that_is_said() -> None:
    error = InvalidArgument("a.b", "is missing")
    error.rename_fields(str.upper)
    assert (error.violations, str(error)) == ((FieldViolation("A.B", "is missing"),), "A.B: is missing")
    taken = errors.AlreadyExists("it is taken", violations=[FieldViolation("a", "is taken")])
    taken.rename_fields(str.upper)
    assert (taken.violations, taken.message) == ((FieldViolation("A", "is taken"),), "it is taken")


TEXTS = {"plain": "x", "percent": "%", "wide": "\u20ac", "wider": "\U0001f6d2"}


@pytest.mark.parametrize("letter", TEXTS.values(), ids=TEXTS)
def test_an_error_fits_whatever_it_says(letter: str) -> None:
    long = letter * 5_000
    wrong = [FieldViolation(f"{at}{long}", long) for at in range(600)]
    for error in (
        errors.NotFound(long, metadata={f"{at}{long}": long for at in range(100)}),
        errors.NotFound(long, metadata={str(at): letter for at in range(1_000)}),
        InvalidArgument.of(wrong),
        InvalidArgument.of([FieldViolation(f'a["{at}"]', letter * 20) for at in range(600)]),
        errors.Unavailable(long, metadata={long: long}, violations=wrong, retry_after=timedelta(days=1)),
    ):
        assert header_size(error) < LIMIT
        assert to_status(error).code == error.code.value


def test_what_is_left_out_is_counted() -> None:
    info, violations, _ = details(
        errors.NotFound(
            metadata={f"key {at}": "value" for at in range(500)},
            violations=[FieldViolation(f"field[{at}]", "is missing") for at in range(600)],
        )
    )
    kept = dict(info.metadata)
    assert len(kept) > 20
    assert int(kept.pop("omitted")) == 500 - len(kept)
    assert (len(violations), violations[49]) == (51, FieldViolation("field[49]", "is missing"))
    assert violations[50] == FieldViolation("", "and 550 more")
    some = InvalidArgument.of([FieldViolation("a", "b")] * 51, unnamed=4)
    assert details(some)[1][50] == FieldViolation("", "and 5 more")
    assert some.message.endswith("; and 50 more")
    assert len(details(errors.NotFound(violations=[FieldViolation("a", "b")] * 50))[1]) == 50


def test_what_is_cut_ends_with_an_ellipsis_and_is_still_text() -> None:
    message = to_status(errors.NotFound("\u20ac" * 1_000)).message
    assert message == "\u20ac" * 199 + "\u2026"
    assert to_status(errors.NotFound("x" * 600)).message == "x" * 600
    assert to_status(errors.NotFound("x" * 601)).message == "x" * 597 + "\u2026"
    long = FieldViolation("f" * 151, "d" * 301)
    assert details(errors.NotFound(violations=[long]))[1] == [
        FieldViolation("f" * 147 + "\u2026", "d" * 297 + "\u2026")
    ]


def rpc_error(code: grpc.StatusCode, *trailers: tuple[str, bytes], told: str = "") -> RemoteError:
    metadata = grpc.aio.Metadata(*trailers)
    return from_rpc_error("cart", "/c/M", grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, told))


def test_an_answer_without_details_goes_by_its_code() -> None:
    error = rpc_error(grpc.StatusCode.NOT_FOUND, told="nothing there")
    assert (error.code, error.reason, error.message) == (Code.NOT_FOUND, "NOT_FOUND", "nothing there")
    assert (error.target, error.method) == ("cart", "/c/M")
    assert (error.metadata, error.violations, error.retry_after) == ({}, (), None)
    assert rpc_error(grpc.StatusCode.NOT_FOUND).message == "not_found"


def test_details_that_cannot_be_read_are_passed_over() -> None:
    error = rpc_error(grpc.StatusCode.ABORTED, ("grpc-status-details-bin", b"\xff\xff"), told="no")
    assert (error.code, error.reason, error.message) == (Code.ABORTED, "ABORTED", "no")
    status = status_pb2.Status(message="the status says more")
    error = rpc_error(
        grpc.StatusCode.ABORTED, ("grpc-status-details-bin", status.SerializeToString()), told="no"
    )
    assert (error.reason, error.message) == ("ABORTED", "the status says more")


def test_a_peer_that_went_away_is_unavailable() -> None:
    error = rpc_error(grpc.StatusCode.CANCELLED)
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "UNAVAILABLE")


async def test_hundreds_of_wrong_fields_neither_break_the_answer_nor_the_connection(
    echo: InProcessServer,
) -> None:
    stub = echo.stub(EchoStub)
    slow = [asyncio.create_task(stub.Anyone(EchoRequest(text="sleep:0.3"))) for _ in range(20)]
    await asyncio.sleep(0.1)
    names = {f"{at:03}" + "\u20ac" * 500: Thing(size=11) for at in range(600)}
    with pytest.raises(RemoteError) as refused:
        await stub.Anyone(EchoRequest(by_name=names))
    assert (refused.value.code, refused.value.reason) == (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert refused.value.violations[0].field.startswith('by_name["')
    assert refused.value.violations[-1].description.startswith("and 5")
    assert len(await asyncio.gather(*slow)) == 20
