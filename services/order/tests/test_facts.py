"""The event store is a contract with the past: whatever was ever written can be read.

tests/facts has an example of every shape in which a fact was ever stored: <name>.v<N>.json. A fact whose
shape changes gets a new file; the old ones stay as they are.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stoa_chassis.ids import new_id
from stoa_order import facts
from stoa_order.model import Order, Placed, Recorded
from stoa_order.testing import NOW

FOLDER = Path(__file__).parent / "facts"


@dataclass(frozen=True)
class Example:
    """One file."""

    path: Path
    name: str
    version: int

    @property
    def data(self) -> Any:
        return json.loads(self.path.read_text())


def example(path: Path) -> Example:
    found = re.fullmatch(r"(\w+)\.v(\d+)\.json", path.name)
    assert found, f"{path.name} is not named <fact>.v<N>.json"
    return Example(path, found[1], int(found[2]))


EXAMPLES = sorted(map(example, FOLDER.iterdir()), key=lambda each: (each.name, each.version))
NEWEST = {each.name: each for each in EXAMPLES}


@pytest.mark.parametrize("each", EXAMPLES, ids=lambda each: each.path.stem)
def test_what_was_ever_stored_is_read_and_replayed(each: Example) -> None:
    fact = facts.load(each.name, each.data)
    begin = fact if isinstance(fact, Placed) else facts.load("placed", NEWEST["placed"].data)
    order = Order.replay(new_id(), [Recorded(1, begin, NOW), Recorded(2, fact, NOW)])
    assert order.version == 2
    assert order.lines


@pytest.mark.parametrize("name", facts.FACTS)
def test_the_newest_example_of_a_fact_is_what_is_written_today(name: str) -> None:
    assert name in NEWEST, f"tests/facts has no example of {name!r}: add {name}.v1.json"
    newest = NEWEST[name]
    written = facts.dump(facts.load(name, newest.data))
    following = newest.path.with_name(f"{name}.v{newest.version + 1}.json")
    assert written == newest.data, f"what is written has another shape now: add {following.name}"


@pytest.mark.parametrize("name", NEWEST)
def test_the_newest_example_has_a_value_in_every_field(name: str) -> None:
    def empty(value: Any, path: str) -> list[str]:
        if isinstance(value, dict):
            return [each for key, inner in value.items() for each in empty(inner, f"{path}.{key}")]
        if isinstance(value, list) and value:
            return [each for inner in value for each in empty(inner, path)]
        return [path] if value in ("", None, []) else []

    assert not empty(NEWEST[name].data, name)


@pytest.mark.parametrize("each", EXAMPLES, ids=lambda each: each.path.stem)
def test_no_version_is_missing(each: Example) -> None:
    versions = [other.version for other in EXAMPLES if other.name == each.name]
    assert versions == list(range(1, len(versions) + 1))
