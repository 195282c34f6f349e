"""Domain errors, and what becomes of them on the wire: the status that a client reads, and back."""

from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from stoa_chassis import errors, status
from stoa_chassis.auth import NotOwner, PeerUnknown, ServiceNotAllowed, ServicesOnly, StaffOnly
from stoa_chassis.errors import (
    Aborted,
    AlreadyExists,
    Code,
    DomainError,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RemoteError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from stoa_chassis.status import DependencyDown, Internal, answer, code_of, from_rpc_error, to_status
from stoa_chassis.tokens import KeysUnavailable, TokenExpired, TokenInvalid, TokenMissing

SECOND = timedelta(seconds=1)


class CardRefused(FailedPrecondition):
    """An error of a service."""

    reason = "CARD_REFUSED"


def test_the_codes_are_the_canonical_ones() -> None:
    assert {code.name: code.value for code in Code} == dict(code_pb2.Code.items())
    assert all(code_of(code) is Code[code.name] for code in grpc.StatusCode)


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        (DomainError, Code.UNKNOWN, "UNKNOWN"),
        (NotFound, Code.NOT_FOUND, "NOT_FOUND"),
        (AlreadyExists, Code.ALREADY_EXISTS, "ALREADY_EXISTS"),
        (FailedPrecondition, Code.FAILED_PRECONDITION, "FAILED_PRECONDITION"),
        (PermissionDenied, Code.PERMISSION_DENIED, "PERMISSION_DENIED"),
        (Unauthenticated, Code.UNAUTHENTICATED, "UNAUTHENTICATED"),
        (Aborted, Code.ABORTED, "ABORTED"),
        (Unavailable, Code.UNAVAILABLE, "UNAVAILABLE"),
        (ResourceExhausted, Code.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"),
        (Internal, Code.INTERNAL, "INTERNAL"),
        (DependencyDown, Code.UNAVAILABLE, "DEPENDENCY_DOWN"),
        (NotOwner, Code.PERMISSION_DENIED, "NOT_OWNER"),
        (StaffOnly, Code.PERMISSION_DENIED, "STAFF_ONLY"),
        (ServiceNotAllowed, Code.PERMISSION_DENIED, "SERVICE_NOT_ALLOWED"),
        (ServicesOnly, Code.PERMISSION_DENIED, "SERVICES_ONLY"),
        (PeerUnknown, Code.PERMISSION_DENIED, "PEER_UNKNOWN"),
        (TokenMissing, Code.UNAUTHENTICATED, "TOKEN_MISSING"),
        (TokenExpired, Code.UNAUTHENTICATED, "TOKEN_EXPIRED"),
        (TokenInvalid, Code.UNAUTHENTICATED, "TOKEN_INVALID"),
        (KeysUnavailable, Code.UNAVAILABLE, "KEYS_UNAVAILABLE"),
        (CardRefused, Code.FAILED_PRECONDITION, "CARD_REFUSED"),
    ],
)
def test_an_error_has_a_code_and_a_reason_and_says_that_in_words(
    kind: type[DomainError], code: Code, reason: str
) -> None:
    error = kind()
    assert (error.code, error.reason, error.domain) == (code, reason, "stoa")
    assert str(error) == error.message
    if kind not in (Internal, DependencyDown):
        assert error.message == reason.lower().replace("_", " ")
    assert (error.metadata, error.violations, error.retry_after) == ({}, (), None)


def test_an_error_keeps_what_it_was_made_with() -> None:
    metadata, violation = {"card": "4242"}, FieldViolation("card", "is refused")
    error = CardRefused("no", metadata=metadata, violations=iter([violation]), retry_after=SECOND)
    assert (error.message, str(error)) == ("no", "no")
    assert (error.metadata, error.violations, error.retry_after) == (metadata, (violation,), SECOND)
    metadata["card"] = "changed"
    assert error.metadata == {"card": "4242"}


def test_a_wrong_field_is_named_and_said_in_the_message() -> None:
    error = InvalidArgument("page_size", "must not be negative")
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert error.violations == (FieldViolation("page_size", "must not be negative"),)
    assert error.message == str(error) == "page_size: must not be negative"
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
    taken = AlreadyExists("it is taken", violations=[FieldViolation("a", "is taken")])
    taken.rename_fields(str.upper)
    assert (taken.violations, taken.message) == ((FieldViolation("A", "is taken"),), "it is taken")


class TestOnTheWire:
    def test_a_status_carries_all_that_an_error_says(self) -> None:
        violations = [FieldViolation("card.number", "is refused"), FieldViolation("amount", "is too much")]
        error = CardRefused("no", metadata={"card": "4242"}, violations=violations, retry_after=SECOND / 4)
        made = to_status(error)
        assert (made.code, made.message) == (code_pb2.FAILED_PRECONDITION, "no")
        info, bad_request, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        assert len(made.details) == 3
        assert all(
            any(packed.Unpack(detail) for packed in made.details) for detail in (info, bad_request, retry)
        )
        assert (info.reason, info.domain, dict(info.metadata)) == ("CARD_REFUSED", "stoa", {"card": "4242"})
        assert [(v.field, v.description) for v in bad_request.field_violations] == [
            ("card.number", "is refused"),
            ("amount", "is too much"),
        ]
        assert retry.retry_delay.ToTimedelta() == SECOND / 4

    def test_a_status_has_no_details_that_say_nothing(self) -> None:
        (only,) = to_status(CardRefused()).details
        assert only.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)

    @pytest.mark.parametrize(
        ("error", "after"),
        [
            (Unavailable(), SECOND),
            (Unavailable(retry_after=5 * SECOND), 5 * SECOND),
            (DependencyDown(), SECOND),
            (ResourceExhausted(), None),
            (ResourceExhausted(retry_after=3 * SECOND), 3 * SECOND),
        ],
        ids=str,
    )
    def test_what_is_down_for_now_may_be_asked_again_in_a_second_unless_it_says_when(
        self, error: DomainError, after: timedelta | None
    ) -> None:
        assert received(to_status(error), grpc.StatusCode.UNAVAILABLE).retry_after == after

    def test_a_caller_reads_what_was_answered(self) -> None:
        error = CardRefused(
            "no",
            metadata={"card": "4242"},
            violations=[FieldViolation("card", "is refused")],
            retry_after=2 * SECOND,
        )
        remote = received(to_status(error), grpc.StatusCode.FAILED_PRECONDITION)
        assert (remote.target, remote.method) == ("payment", "/stoa.payment/Charge")
        assert (remote.code, remote.reason, remote.message) == (
            Code.FAILED_PRECONDITION,
            "CARD_REFUSED",
            "no",
        )
        assert remote.metadata == {"card": "4242"}
        assert remote.violations == (FieldViolation("card", "is refused"),)
        assert remote.retry_after == 2 * SECOND

    @pytest.mark.parametrize("details", [b"", b"\xff\xff\xff", "no bytes", None])
    def test_an_answer_without_details_has_its_code_as_the_reason(self, details: Any) -> None:
        error = rpc_error(grpc.StatusCode.NOT_FOUND, details, text="no such method")
        remote = from_rpc_error("payment", "/m", error)
        assert (remote.code, remote.reason, remote.message) == (
            Code.NOT_FOUND,
            "NOT_FOUND",
            "no such method",
        )
        assert (remote.metadata, remote.violations, remote.retry_after) == ({}, (), None)

    def test_the_text_of_a_status_goes_before_that_of_the_call(self) -> None:
        made = status_pb2.Status(message="the status says more").SerializeToString()
        remote = from_rpc_error("payment", "/m", rpc_error(grpc.StatusCode.ABORTED, made, text="no"))
        assert (remote.reason, remote.message) == ("ABORTED", "the status says more")

    def test_an_answer_without_any_text_says_its_code(self) -> None:
        error = rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, None)
        assert from_rpc_error("payment", "/m", error).message == "deadline_exceeded"

    def test_other_metadata_is_no_detail(self) -> None:
        made = to_status(CardRefused("no")).SerializeToString()
        trailing = grpc.aio.Metadata(("x-request-id", "1"), ("grpc-status-details-bin", made))
        error = grpc.aio.AioRpcError(
            grpc.StatusCode.FAILED_PRECONDITION, grpc.aio.Metadata(), trailing, details="no"
        )
        assert from_rpc_error("payment", "/m", error).reason == "CARD_REFUSED"

    def test_a_peer_that_went_away_is_unavailable(self) -> None:
        remote = from_rpc_error("payment", "/m", rpc_error(grpc.StatusCode.CANCELLED, None))
        assert (remote.code, remote.reason) == (Code.UNAVAILABLE, "UNAVAILABLE")

    async def test_a_call_ends_with_the_status_of_the_error(self) -> None:
        class Context:
            async def abort(self, *what: Any) -> None:
                self.aborted = what
                raise grpc.aio.AbortError

        context: Any = Context()
        with pytest.raises(grpc.aio.AbortError):
            await status.abort(context, CardRefused("no"))
        code, message, trailing = context.aborted
        assert (code, message) == (grpc.StatusCode.FAILED_PRECONDITION, "no")
        assert trailing == (("grpc-status-details-bin", to_status(CardRefused("no")).SerializeToString()),)


class TestAnswer:
    @pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
    def test_a_peer_s_answer_is_passed_on_unless_we_called_it_wrongly(self, code: Code) -> None:
        ours = {"UNAUTHENTICATED", "UNIMPLEMENTED", "UNKNOWN", "INTERNAL", "DATA_LOSS"}
        remote = RemoteError("payment", "/m", code, "ANY", "text of a peer")
        told = answer(remote)
        if code.name in ours:
            assert (told.code, told.reason, told.message) == (Code.INTERNAL, "INTERNAL", "internal error")
        else:
            assert told is remote

    @pytest.mark.parametrize("reason", ["SERVICE_NOT_ALLOWED", "PEER_UNKNOWN"])
    def test_that_we_may_not_call_a_peer_is_not_the_callers_business(self, reason: str) -> None:
        remote = RemoteError("payment", "/m", Code.PERMISSION_DENIED, reason, "no")
        assert isinstance(answer(remote), Internal)
        own = errors.PermissionDenied()
        own.reason = reason
        assert answer(own) is own

    def test_an_outage_is_told_apart_from_a_defect(self) -> None:
        down = answer(ConnectionRefusedError("10.0.0.1"))
        assert (down.code, down.reason) == (Code.UNAVAILABLE, "DEPENDENCY_DOWN")
        assert down.message == "temporarily unavailable, please try again"
        assert isinstance(answer(ZeroDivisionError()), Internal)


def rpc_error(code: grpc.StatusCode, details: Any, text: str = "") -> grpc.aio.AioRpcError:
    """What a stub raises."""
    trailing = grpc.aio.Metadata(*([("grpc-status-details-bin", details)] if details is not None else []))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details=text)


def received(made: status_pb2.Status, code: grpc.StatusCode) -> RemoteError:
    """What a caller makes of a status that it is answered with."""
    return from_rpc_error("payment", "/stoa.payment/Charge", rpc_error(code, made.SerializeToString()))
