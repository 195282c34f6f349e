"""An error fits into headers, whatever it says."""

import asyncio
import base64
from datetime import timedelta
from urllib.parse import quote

import pytest
from chassis_example.echo_pb2 import EchoRequest, Thing
from chassis_example.echo_pb2_grpc import EchoStub, add_EchoServicer_to_server
from google.rpc import error_details_pb2

from stoa_chassis import errors
from stoa_chassis.errors import Code, DomainError, FieldViolation, InvalidArgument, RemoteError
from stoa_chassis.status import to_status
from stoa_chassis.testing import eventually, serve_in_process
from stoa_example.servicer import EchoServicer

LIMIT = 8_000  # bytes of headers, of which gRPC's clients take 8 kB


def header_size(error: DomainError) -> int:
    """What the error takes in headers."""
    status = to_status(error)
    message = quote(status.message, safe="".join(map(chr, range(0x20, 0x7F))).replace("%", ""))
    return len(message) + len(base64.b64encode(status.SerializeToString()))


def details(error: DomainError) -> tuple[dict[str, str], list[FieldViolation]]:
    """What the error's status names: the metadata and the wrong fields."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for each in to_status(error).details:
        assert any(each.Unpack(kind) for kind in (info, bad))
    return dict(info.metadata), [
        FieldViolation(each.field, each.description) for each in bad.field_violations
    ]


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
    kept, violations = details(
        errors.NotFound(
            metadata={f"key {at}": "value" for at in range(500)},
            violations=[FieldViolation(f"field[{at}]", "is missing") for at in range(600)],
        )
    )
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


def test_a_key_of_the_metadata_has_up_to_64_letters() -> None:
    kept, _ = details(errors.NotFound(metadata={"a" * 64: "1", "b" * 65: "2"}))
    assert kept == {"a" * 64: "1", "b" * 61 + "\u2026": "2"}


def test_wrong_fields_and_metadata_are_named_up_to_the_last_byte_of_the_room_for_them() -> None:
    # That there are fields takes 2 bytes, and what holds them together may take 120. A field takes beside its
    # letters 6, in which protobuf says how long what is, and 4 are kept for its place.
    room = 3_600 - to_status(errors.NotFound()).ByteSize() - 2 - 120
    count = (room - 160) // 160
    others = [FieldViolation("f", "d" * (160 - 10))] * count
    last = "d" * (room - count * 160 - 10)
    assert details(errors.NotFound(violations=[*others, FieldViolation("f", last)]))[1] == [
        *others,
        FieldViolation("f", last),
    ]
    assert details(errors.NotFound(violations=[*others, FieldViolation("f", f"{last}d")]))[1] == [
        *others,
        FieldViolation("", "and 1 more"),
    ]
    texts = {"a": "v" * 599, "b": "v" * 599}
    assert details(errors.NotFound(metadata=texts))[0] == texts
    assert details(errors.NotFound(metadata=texts | {"b": "v" * 600}))[0] == {"a": texts["a"], "omitted": "1"}


async def test_hundreds_of_wrong_fields_neither_break_the_answer_nor_the_connection() -> None:
    servicer = EchoServicer()
    async with serve_in_process(add_EchoServicer_to_server, servicer) as server:
        stub = server.stub(EchoStub)
        others = [asyncio.ensure_future(stub.Anyone(EchoRequest(text="wait"))) for _ in range(20)]
        await eventually(lambda: servicer.calls["wait"] == 20)
        names = {f"{at:03}" + "\u20ac" * 500: Thing(size=11) for at in range(600)}
        with pytest.raises(RemoteError) as refused:
            await stub.Anyone(EchoRequest(by_name=names))
        assert (refused.value.code, refused.value.reason) == (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT")
        assert refused.value.violations[0].field.startswith('by_name["')
        assert refused.value.violations[-1].description.startswith("and 5")
        servicer.released.set()
        assert len(await asyncio.gather(*others)) == 20
