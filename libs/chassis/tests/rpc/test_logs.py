"""What a log line shows of what came from outside."""

import json
import subprocess
import sys


def test_a_secret_is_masked_wherever_a_line_got_it_from() -> None:
    program = """
from stoa_chassis import telemetry
from stoa_chassis.context import bound
telemetry.configure_logging("order")
with bound("4111111111111111"):
    try:
        raise ValueError("sent basic aHVudGVyMg==")
    except ValueError as error:
        telemetry.get_logger("x").error("it failed", exc_info=error)
"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout
    line = json.loads(output)
    assert line["correlation_id"] == "***"
    assert line["exception"].endswith("ValueError: sent basic ***")
    assert (line["service"], line["level"], line["module"]) == ("order", "error", "x")
