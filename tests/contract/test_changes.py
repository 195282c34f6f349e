"""A change that would break those who read or write already is refused before it is merged."""

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoa_stack.instance import CHECKOUT
from stoa_tools.gen import changes, schemas
from stoa_tools.gen.errors import GenerationFailed

PROTO = "proto/stoa/inventory/v1/inventory.proto"
EVENT = "events/parcel.sent.avsc"
PAYLOAD: dict[str, Any] = {
    "type": "record",
    "name": "ParcelSent",
    "doc": "A parcel is on its way.",
    "fields": [
        {"name": "parcel_id", "type": "string", "doc": "Which parcel."},
        {"name": "user_id", "type": {"type": "string", "logicalType": "uuid"}, "doc": "Who gets it."},
        {"name": "content", "type": {"type": "array", "items": "Content"}, "doc": "What is in it."},
    ],
    "stoa.key": "parcel_id",
}
CONTENT: dict[str, Any] = {
    "type": "record",
    "name": "Content",
    "doc": "Something in a parcel.",
    "fields": [{"name": "sku", "type": "string", "doc": "What."}],
}
ENVELOPE = (CHECKOUT / "events/envelope.avsc").read_text()


def registered(payload: dict[str, Any]) -> dict[str, Any]:
    """The whole schema of the event, as it was in its file before records were shared."""
    sources = schemas.Sources(ENVELOPE, {"Content": CONTENT}, {"parcel.sent": payload})
    return dict(sources.registered("parcel.sent"))


def changed(
    change: Callable[[list[dict[str, Any]]], None], schema: dict[str, Any] = PAYLOAD
) -> dict[str, Any]:
    schema = copy.deepcopy(schema)
    change(schema["fields"])
    return schema


def with_field(schema: dict[str, Any] = PAYLOAD, **field: Any) -> dict[str, Any]:
    return changed(lambda fields: fields.append(field), schema)


def without_user(fields: list[dict[str, Any]]) -> None:
    fields[:] = [field for field in fields if field["name"] != "user_id"]


def with_another_type(fields: list[dict[str, Any]]) -> None:
    next(field for field in fields if field["name"] == "user_id")["type"] = "long"


def with_another_name(fields: list[dict[str, Any]]) -> None:
    next(field for field in fields if field["name"] == "user_id")["name"] = "buyer_id"


def with_another_record(fields: list[dict[str, Any]]) -> None:
    next(field for field in fields if field["name"] == "content")["type"]["items"] = {
        "type": "Content",
        "stoa.as": "ParcelContent",
    }


OPTIONAL: dict[str, Any] = {"name": "note", "type": ["null", "string"], "default": None}
COMPATIBLE = {
    "an optional field": with_field(**OPTIONAL),
    "a field with a default": with_field(name="gift", type="boolean", default=False),
    "a list that starts empty": with_field(
        name="vouchers", type={"type": "array", "items": "string"}, default=[]
    ),
    "nothing but the documentation": changed(lambda fields: fields[0].update(doc="Another word.")),
}
INCOMPATIBLE = {
    "a field without a default": with_field(name="note", type="string"),
    "a field removed that had no default": changed(without_user),
    "another type": changed(with_another_type),
    "another name": changed(with_another_name),
    "another name of a record": changed(with_another_record),
}


def incompatibilities(payload: dict[str, Any]) -> list[str]:
    return changes.incompatibilities(json.dumps(registered(PAYLOAD)), json.dumps(registered(payload)))


@pytest.mark.parametrize("payload", COMPATIBLE.values(), ids=COMPATIBLE.keys())
def test_an_event_may_gain(payload: dict[str, Any]) -> None:
    assert incompatibilities(payload) == []


@pytest.mark.parametrize("payload", INCOMPATIBLE.values(), ids=INCOMPATIBLE.keys())
def test_an_event_may_not_get(payload: dict[str, Any]) -> None:
    assert incompatibilities(payload) != []


class Clone:
    """A repository with the protos of this one and an event of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("proto", "third_party"):
            shutil.copytree(CHECKOUT / name, root / name)
        shutil.copy(CHECKOUT / "buf.yaml", root)
        self.write("events/envelope.avsc", ENVELOPE)
        self.write("events/types/Content.avsc", json.dumps(CONTENT))
        self.write(EVENT, json.dumps(PAYLOAD))
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.root,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, message: str = "Change") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_the_first_commit_has_nothing_to_be_compared_with(clone: Clone) -> None:
    clone.commit()
    assert changes.check(clone.root) == "no earlier contracts to compare with"


def test_what_came_before_the_contracts_is_not_compared_with(clone: Clone) -> None:
    clone.git("commit", "--quiet", "--allow-empty", "--message", "Begin")
    clone.commit()
    assert changes.previous(clone.root) is None


def test_main_is_compared_with_the_commit_before(clone: Clone) -> None:
    first = clone.commit()
    clone.commit()
    assert changes.previous(clone.root) == first


def test_a_branch_is_compared_with_where_it_left_main(clone: Clone) -> None:
    clone.commit()
    fork = clone.commit()
    clone.git("switch", "--quiet", "--create", "branch")
    clone.commit()
    clone.commit()
    clone.git("switch", "--quiet", "main")
    clone.commit("Main moves on")
    clone.git("switch", "--quiet", "branch")
    assert changes.previous(clone.root) == fork


def test_a_new_field_is_welcome(clone: Clone) -> None:
    clone.commit()
    clone.edit(PROTO, "message Inventory {", "message Inventory {\n  // Where.\n  string shelf = 99;\n")
    head = clone.commit()
    assert changes.check(clone.root) == f"compatible with {changes.previous(clone.root) or head:.12}"


def test_a_proto_that_drops_a_field_is_refused(clone: Clone) -> None:
    clone.commit()
    clone.edit(PROTO, "  int32 reserved_count = 4;", "")
    clone.commit()
    with pytest.raises(GenerationFailed, match="reserved_count"):
        changes.check(clone.root)


def test_a_proto_against_the_style_guide_is_refused(clone: Clone) -> None:
    clone.edit(PROTO, "  // Reads the stock of a variant.\n", "")
    with pytest.raises(GenerationFailed, match="GetInventory"):
        changes.check(clone.root)


def test_an_event_is_compared_with_every_version_it_has_had(clone: Clone) -> None:
    clone.commit()
    clone.write(EVENT, json.dumps(with_field(**OPTIONAL)))
    first = clone.commit()
    clone.write(EVENT, json.dumps(PAYLOAD))
    clone.commit()
    assert "compatible" in changes.check(clone.root)
    clone.write(EVENT, json.dumps(with_field(**{**OPTIONAL, "type": ["null", "long"]})))
    clone.commit()
    with pytest.raises(GenerationFailed, match=f"parcel.sent.avsc can't replace the version of {first[:12]}"):
        changes.check(clone.root)


def test_a_shared_record_changes_each_event_that_has_it(clone: Clone) -> None:
    clone.commit()
    clone.commit()
    clone.write("events/types/Content.avsc", json.dumps(with_field(CONTENT, **OPTIONAL)))
    assert "compatible" in changes.check(clone.root)
    clone.write("events/types/Content.avsc", json.dumps(with_field(CONTENT, name="note", type="string")))
    with pytest.raises(GenerationFailed, match=r"parcel.sent.avsc can't replace .*note"):
        changes.check(clone.root)


def test_an_event_is_compared_with_its_versions_before_records_were_shared(clone: Clone) -> None:
    shutil.rmtree(clone.root / "events")
    clone.write(EVENT, json.dumps(registered(PAYLOAD)))
    first = clone.commit()
    clone.write("events/envelope.avsc", ENVELOPE)
    clone.write("events/types/Content.avsc", json.dumps(CONTENT))
    clone.write(EVENT, json.dumps(PAYLOAD))
    clone.commit()
    assert "compatible" in changes.check(clone.root)
    assert list(changes.earlier_versions(clone.root)["parcel.sent"]) == [json.dumps(registered(PAYLOAD))]
    clone.write(EVENT, json.dumps(with_field(name="note", type="string")))
    with pytest.raises(GenerationFailed, match=rf"can't replace the version of (?!{first[:12]})"):
        changes.check(clone.root)


def test_a_version_that_made_no_sense_was_never_registered(clone: Clone) -> None:
    clone.commit()
    clone.write(EVENT, "{")
    clone.commit()
    clone.write(EVENT, json.dumps(with_field(**OPTIONAL)))
    clone.commit()
    assert "compatible" in changes.check(clone.root)


def test_what_shops_have_registered_can_be_replaced_by_what_is_generated() -> None:
    """registered.json holds the schemas as they were when each topic's file still held its whole schema."""
    first: dict[str, Any] = json.loads((CHECKOUT / "tests/contract/registered.json").read_text())
    now = schemas.read_folder(CHECKOUT / "events")
    for topic, schema in first.items():
        assert changes.incompatibilities(json.dumps(schema), json.dumps(now.registered(topic))) == []
