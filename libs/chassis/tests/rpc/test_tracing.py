"""Traces across services, whether or not anybody collects the spans."""

import subprocess
import sys
from typing import Any

import pytest
from chassis_example import echo_pb2_grpc
from chassis_example.echo_pb2 import EchoRequest, EchoResponse
from chassis_example.echo_pb2_grpc import EchoStub
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from stoa_chassis import telemetry
from stoa_chassis.testing import serve_in_process


class Tracing(echo_pb2_grpc.EchoServicer):
    """Asks the next one, if there is any, and answers the trace contexts of all, the last one's first."""

    def __init__(self, following: Any = None) -> None:
        self._following = following

    async def Write(self, request: EchoRequest, _: Any) -> EchoResponse:
        further = (await self._following.Write(request)).text if self._following else ""
        headers = telemetry.trace_headers()
        return EchoResponse(text=f"{further} {headers['traceparent']};{headers.get('tracestate')}".strip())


async def contexts_of_a_call_through_two_services() -> list[list[str]]:
    add = echo_pb2_grpc.add_EchoServicer_to_server
    async with (
        serve_in_process(add, Tracing()) as last,
        serve_in_process(add, Tracing(last.stub(EchoStub, as_service="order"))) as first,
    ):
        answer = await first.stub(EchoStub, as_service="order").Write(EchoRequest())
    return [context.replace(";", "-").split("-") for context in answer.text.split()]


async def test_a_trace_keeps_its_id_flags_and_state_through_all_services() -> None:
    state = TraceState([("vendor", "1")])
    caller = SpanContext(0xABC, 0xDEF, False, TraceFlags(TraceFlags.SAMPLED), state)
    with trace.use_span(NonRecordingSpan(caller)):
        last, first = await contexts_of_a_call_through_two_services()
    for version, trace_id, _, flags, vendor in (last, first):
        assert (version, trace_id, flags, vendor) == ("00", f"{0xABC:032x}", "01", "vendor=1")
    assert len({last[2], first[2], f"{0xDEF:016x}"}) == 3  # each has a span of its own


async def test_a_call_that_comes_without_a_trace_begins_one() -> None:
    last, first = await contexts_of_a_call_through_two_services()
    assert last[1] == first[1] != "0" * 32
    assert last[2] != first[2]
    assert len(first[1]) == 32
    other, _ = await contexts_of_a_call_through_two_services()
    assert other[1] != last[1]


@pytest.mark.parametrize(
    ("traceparent", "continues"),
    [
        (f"00-{'a' * 32}-{'b' * 16}-01", True),
        (f"01-{'a' * 32}-{'b' * 16}-01-of-a-later-version", True),
        (f"00-{'a' * 32}-{'b' * 16}-01-more", False),
        (f"ff-{'a' * 32}-{'b' * 16}-01", False),
        (f"00-{'0' * 32}-{'b' * 16}-01", False),
        (f"00-{'a' * 32}-{'0' * 16}-01", False),
        (f"00-{'A' * 32}-{'b' * 16}-01", False),
        ("", False),
    ],
)
def test_a_header_that_is_no_trace_context_is_as_none(traceparent: str, continues: bool) -> None:
    span = telemetry.start_span("work", headers={"traceparent": traceparent}).get_span_context()
    assert span.is_valid
    assert (span.trace_id == int("a" * 32, 16)) == continues


def test_spans_are_recorded_where_a_collector_is_named() -> None:
    program = """
from stoa_chassis import telemetry
telemetry.configure_tracing("order", "http://127.0.0.1:1")
with telemetry.span("outer") as outer:
    inner = telemetry.start_span("inner")
    assert inner.is_recording() and inner.parent == outer.get_span_context()
    assert int(telemetry.trace_headers(inner)["traceparent"].split("-")[3], 16) & 1, "not sampled"
import os; os._exit(0)  # not waiting for a collector that is not there
"""
    subprocess.run([sys.executable, "-c", program], check=True)
