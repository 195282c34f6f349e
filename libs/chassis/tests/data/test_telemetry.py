import json
import subprocess
import sys
import time
from uuid import uuid4

import pytest

from stoa_chassis.telemetry import MASK, mask_secrets


def masked(**event: object) -> object:
    return mask_secrets(None, "info", dict(event))


@pytest.mark.parametrize(
    "key", ["password", "new_password", "refresh_token", "Authorization", "client_secret", "api_key", "cvv"]
)
def test_the_values_of_secret_keys_are_masked_at_any_depth(key: str) -> None:
    assert masked(**{key: "hunter2"}) == {key: MASK}
    assert masked(request={"inner": [{key: "hunter2"}]}) == {"request": {"inner": [{key: MASK}]}}


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("no route to postgresql://order:hunter2@db:5432/order", f"no route to postgresql://order:{MASK}@db:5432/order"),
        ("sent Bearer eyJhbGciOi.eyJzdWIi.c2ln", f"sent Bearer {MASK}"),
        ("card 4111 1111 1111 1111 was refused", f"card {MASK} was refused"),
        ("4242424242424242", MASK),
        ("ada.o'neill+shop@mail.example is taken", f"{MASK} is taken"),
        ("user@bücher.example", MASK),
        ("it exists\nDETAIL:  Key (name)=(Ada) exists.\nat work", f"it exists\nDETAIL:  {MASK}\nat work"),
    ],
)  # fmt: skip
def test_secrets_inside_of_texts_are_masked(text: str, safe: str) -> None:
    assert masked(event=text) == {"event": safe}


@pytest.mark.parametrize(
    "text", ["a" * 50_000 + " @", "@" + "a.b" * 20_000, "a@" * 25_000, "x@" + "1" * 50_000]
)
def test_a_long_text_keeps_nobody_waiting(text: str) -> None:
    began = time.process_time()
    assert masked(event=text) == {"event": text}
    assert time.process_time() - began < 2  # some hundredths; at every letter anew it would be half a minute


def test_what_identifies_and_counts_is_kept() -> None:
    event = {"order_id": str(uuid4()), "offset": 12345, "ok": True, "at": "2026-11-24T09:28:07.177485Z"}
    assert masked(**event) == event
    assert masked(event="the broker GroupCoordinator@127.0.0.1:9092 is gone") == {
        "event": "the broker GroupCoordinator@127.0.0.1:9092 is gone"
    }


def test_lines_are_json_with_service_correlation_and_trace_whoever_logs() -> None:
    program = """
import logging
from stoa_chassis import telemetry
from stoa_chassis.context import bound
telemetry.configure_logging("order")
telemetry.configure_tracing("order")
with bound("c-1"), telemetry.span("work"):
    telemetry.get_logger("x").info("ours", token="abc")
    logging.getLogger("library").warning("theirs %s", 1)
"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout
    ours, theirs = sorted(map(json.loads, output.splitlines()), key=lambda line: line["event"])
    for line in (ours, theirs):
        assert line["service"] == "order"
        assert line["correlation_id"] == "c-1"
        assert len(line["trace_id"]) == 32
    assert (ours["event"], ours["token"]) == ("ours", MASK)
    assert (theirs["event"], theirs["logger"]) == ("theirs 1", "library")
