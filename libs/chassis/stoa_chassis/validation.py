"""Every request is checked against what its proto declares, before a servicer sees it.

The constraints are those of `buf.validate`. A field that the server computes and a client may send back (as
part of a resource that it read and changed) is ignored, as AIP-203 has it for OUTPUT_ONLY; one that a client
must not send, such as the price of a cart's line, says so by a constraint of its own.

Texts are put in order before, and what a text may look like is checked without a constraint in each field:
see texts.py.
"""

from typing import cast

import protovalidate
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from stoa_chassis.auth import ContractError
from stoa_chassis.errors import FieldViolation, InvalidArgument
from stoa_chassis.telemetry import get_logger
from stoa_chassis.texts import TextCheck

_log = get_logger(__name__)
_validator = protovalidate.Validator()


class RequestCheck:
    """The checks of one request type, compiled once."""

    def __init__(self, request_type: type[Message]) -> None:
        """Compile. Raises ContractError if a constraint in the proto does not work."""
        self._texts = TextCheck(cast(Descriptor, request_type.DESCRIPTOR))
        try:
            _validator.collect_violations(request_type())
        except (protovalidate.CompilationError, protovalidate.EvaluationError) as error:
            raise ContractError(f"{request_type.DESCRIPTOR.full_name}: {error}") from error

    def __call__(self, request: Message) -> None:
        """Put the texts of a request in order, and raise InvalidArgument naming each field that is wrong."""
        unfit = self._texts.tidy(request)
        try:
            broken = _validator.collect_violations(request)
        except protovalidate.EvaluationError as error:
            # A rule of ours that this request breaks: for us to mend, but what it says can't be trusted.
            _log.error("constraint failed to evaluate", request=request.DESCRIPTOR.full_name, exc_info=error)
            raise InvalidArgument("", "the request can't be checked") from error
        if broken or unfit:
            violations = [_violation(violation) for violation in broken]
            named = {violation.field for violation in violations}
            raise InvalidArgument.of([*violations, *(each for each in unfit if each.field not in named)])


def _violation(violation: protovalidate.Violation) -> FieldViolation:
    proto = violation.proto
    return FieldViolation(_path(proto.field), proto.message or proto.rule_id)


def _path(field: protovalidate.FieldPathPb | None) -> str:
    """Return a path as in `items[0].quantity` or `labels["color"]`; "" is the request as a whole."""
    parts = []
    for element in field.elements if field else ():
        key = element.subscript.value if element.subscript else None
        text = f'"{key}"' if isinstance(key, str) else str(key)
        parts.append(element.field_name if key is None else f"{element.field_name}[{text}]")
    return ".".join(parts)
