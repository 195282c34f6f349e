"""Every request is checked against what its proto declares, before a servicer sees it.

The constraints are those of `buf.validate`. A field that the server computes and a client may send back (as
part of a resource that it read and changed) is ignored, as AIP-203 has it for OUTPUT_ONLY; one that a client
must not send, such as the price of a cart's line, says so by a constraint of its own.

Texts are put in order before, and what a text may look like is checked without a constraint in each field:
see texts.py. What is said of a field that is wrong is in wording.py.
"""

from typing import cast

import protovalidate
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from stoa_chassis.auth import ContractError
from stoa_chassis.errors import InvalidArgument
from stoa_chassis.telemetry import get_logger
from stoa_chassis.texts import TextCheck
from stoa_chassis.wording import Wording

_log = get_logger(__name__)
_validator = protovalidate.Validator()
_MOST_NAMED = 100  # to name one takes some tenths of a millisecond, and nobody reads more


class RequestCheck:
    """The checks of one request type, compiled once."""

    def __init__(self, request_type: type[Message]) -> None:
        """Compile. Raises ContractError if a constraint in the proto does not work, or has no words."""
        type_ = cast(Descriptor, request_type.DESCRIPTOR)
        self._texts = TextCheck(type_)
        self._wording = Wording(type_)
        try:
            _validator.collect_violations(request_type())
        except (protovalidate.CompilationError, protovalidate.EvaluationError) as error:
            raise ContractError(f"{request_type.DESCRIPTOR.full_name}: {error}") from error

    def __call__(self, request: Message) -> None:
        """Put the texts of a request in order, and raise InvalidArgument naming each wrong field, once."""
        unfit = self._texts.tidy(request)
        try:
            broken = self._broken(request)
        except protovalidate.EvaluationError as error:
            # A rule of ours that this request breaks: for us to mend, but what it says can't be trusted.
            _log.error("constraint failed to evaluate", request=request.DESCRIPTOR.full_name, exc_info=error)
            raise InvalidArgument("", "the request can't be checked") from error
        if broken or unfit:
            named = broken[:_MOST_NAMED]
            wrong = {violation.field: violation for violation in (*self._wording.violations(named), *unfit)}
            raise InvalidArgument.of(wrong.values(), unnamed=len(broken) - len(named))

    def _broken(self, request: Message) -> list[protovalidate.Violation]:
        """Return all constraints that a request breaks. Raises InvalidArgument for a list that is too long.

        That comes first, since each wrong element costs time in which nobody else is answered.
        """
        if not _validator.collect_violations(request, fail_fast=True):
            return []
        if too_long := self._wording.too_long(request):
            raise InvalidArgument.of(too_long)
        return _validator.collect_violations(request)
